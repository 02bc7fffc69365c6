/**
 * The package as it would be published, made beside the checkout, so that nobody's dist/ is in the way or out of date.
 */
import { execFile } from "node:child_process";
import { cpSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { projectDirectory } from "../support/program.js";

/** Properties of package.json that the tests read. */
export interface Manifest {
  readonly version: string;
  readonly files: readonly string[];
  readonly exports: Readonly<Record<string, unknown>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

export const manifest = JSON.parse(readFileSync(join(projectDirectory, "package.json"), "utf8")) as Manifest;

/** The programs of the project's own dependencies. */
export const projectBin = join(projectDirectory, "node_modules", ".bin");

/** Runs a program; what it wrote is in the error if it fails. */
export async function run(
  command: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = {},
): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(command, args, { cwd, env: { ...process.env, ...env } });
    return stdout;
  } catch (cause) {
    const { stdout, stderr } = cause as { stdout: string; stderr: string };
    throw new Error(`${command} ${args.join(" ")} failed in ${cwd}:\n${stdout}\n${stderr}`, { cause });
  }
}

/** Files that `npm pack` needs for the build, besides those that it packs. */
const sources = [
  "package.json",
  "README.md",
  "LICENSE",
  "tsconfig.json",
  "tsconfig.build.json",
  "src",
  "codegen",
  "scripts",
  "generated",
];

/** Packs a copy of the checkout, which is not built yet, in a folder, which is made. Resolves with the tarball's path and the files in it. */
export async function pack(directory: string): Promise<{ tarball: string; files: readonly string[] }> {
  for (const name of [...sources, ...manifest.files.filter((name) => name !== "dist" && !name.startsWith("!"))]) {
    cpSync(join(projectDirectory, name), join(directory, name), { recursive: true });
  }
  symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
  // What the build prints stays out of the JSON.
  const packed = await run("npm", ["pack", "--json", "--foreground-scripts=false"], directory);
  const [tarball] = JSON.parse(packed) as [{ filename: string; files: { path: string }[] }];
  return { tarball: join(directory, tarball.filename), files: tarball.files.map(({ path }) => path) };
}
