import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { checkPackage as checkTypes, createPackageFromTarballData, type Problem } from "@arethetypeswrong/core";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { readManifest } from "./manifest.js";
import { reachableFiles } from "./reachable-files.js";

/** Greatest number of files and of bytes of the unpacked package. */
const maxFiles = 1_000;
const maxBytes = 7_000_000;

/** Size of a packed package, and its problems: one line each, with the remedy. */
export interface PackageCheck {
  readonly problems: readonly string[];
  readonly files: number;
  readonly bytes: number;
}

/** Tarball as `npm pack --json` describes it. */
interface Tarball {
  readonly filename: string;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

/**
 * Packs a built package and checks the tarball: size, files that package.json and imports name, `publint` and
 * `arethetypeswrong`.
 *
 * @param root the folder with package.json and `dist/`
 */
export async function checkPackage(root: string): Promise<PackageCheck> {
  if (!existsSync(join(root, "dist"))) {
    return { problems: ["dist/ does not exist. Run: npm run build"], files: 0, bytes: 0 };
  }
  const directory = mkdtempSync(join(tmpdir(), "hawser-check-package-"));
  try {
    const tarball = await pack(root, directory);
    const archive = join(directory, tarball.filename);
    await promisify(execFile)("tar", ["-xzf", archive, "-C", directory]);
    const unpacked = join(directory, "package");
    const bytes = readFileSync(archive);
    const problems = [
      ...limitProblems(tarball),
      ...reachableFiles(unpacked, readManifest(unpacked)).missing.map((line) => `${line}. Run: npm run build`),
      ...(await publintProblems(bytes)),
      ...(await typesProblems(bytes)),
    ];
    return { problems, files: tarball.files.length, bytes: tarball.unpackedSize };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Packs the package. The options are explicit, because `npm publish --dry-run` passes its own options to the scripts
 * that it runs.
 */
async function pack(root: string, directory: string): Promise<Tarball> {
  const options = ["--json", "--ignore-scripts", "--dry-run=false", "--pack-destination", directory];
  const { stdout } = await promisify(execFile)("npm", ["pack", ...options], { cwd: root, maxBuffer: 2 ** 26 });
  const [tarball] = JSON.parse(stdout) as [Tarball];
  return tarball;
}

function limitProblems({ files, unpackedSize }: Tarball): string[] {
  const problems: string[] = [];
  if (files.length > maxFiles) {
    problems.push(`The package has ${files.length} files; ${maxFiles} are allowed. Shorten "files" in package.json.`);
  }
  if (unpackedSize > maxBytes) {
    problems.push(`The package has ${unpackedSize} bytes; ${maxBytes} are allowed. Shorten "files" in package.json.`);
  }
  return problems;
}

async function publintProblems(archive: Buffer): Promise<string[]> {
  const tarball = archive.buffer.slice(archive.byteOffset, archive.byteOffset + archive.byteLength) as ArrayBuffer;
  const { messages, pkg } = await publint({ pack: { tarball }, level: "warning" });
  return messages.map((message) => `publint: ${formatMessage(message, pkg) ?? message.code}`);
}

/** True for a problem that is accepted: the package has only ES modules, and only the entry points in `exports`. */
const accepted = ({ kind, ...where }: Problem): boolean =>
  kind === "CJSResolvesToESM" || ("resolutionKind" in where && where.resolutionKind === "node10");

async function typesProblems(archive: Buffer): Promise<string[]> {
  const result = await checkTypes(createPackageFromTarballData(archive));
  if (!result.types) return ["arethetypeswrong: the package has no types"];
  return result.problems
    .filter((problem) => !accepted(problem))
    .map((problem) => `arethetypeswrong: ${JSON.stringify(problem)}`);
}
