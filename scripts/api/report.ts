/**
 * API report: one Markdown file for each entry point of the package, with the declarations that it exports, and one for the
 * arguments of the command.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { CompilerState, Extractor, ExtractorConfig } from "@microsoft/api-extractor";
import { entryPointsOf, readManifest } from "../package/manifest.js";
import { commandReport } from "./command.js";

/** Report of one entry point, or of the command. */
export interface ApiReport {
  /** Import specifier, such as `hawser/nats`, or the command. */
  readonly entryPoint: string;
  /** Name of the file in `api/`, such as `hawser-nats.api.md`. */
  readonly file: string;
  readonly names: number;
  readonly text: string;
}

/**
 * Creates the reports of all entry points, from declarations that the compiler emits for this call, and of the command.
 *
 * @throws Error if the sources do not compile
 */
export async function apiReports(root: string): Promise<ApiReport[]> {
  const folder = await mkdtemp(join(tmpdir(), "hawser-api-"));
  try {
    // The link provides the types of other packages. The temporary folder itself must not be below node_modules/,
    // because the compiler treats every file there as a dependency.
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    await mkdir(join(folder, "reports"));
    await emitDeclarations(root, folder);
    const entries = [...entryPointsOf(readManifest(root))].map(([entryPoint, { types }]) => {
      const file = `${entryPoint.replaceAll("/", "-")}.api.md`;
      return { entryPoint, file, config: configOf(root, folder, types.replace("./dist/", ""), file) };
    });
    const additionalEntryPoints = entries.slice(1).map(({ config }) => config.mainEntryPointFilePath);
    const compilerState = CompilerState.create(entries[0]!.config, { additionalEntryPoints });
    const reports: ApiReport[] = [];
    for (const { entryPoint, file, config } of entries) {
      Extractor.invoke(config, {
        localBuild: true,
        compilerState,
        messageCallback: (message) => {
          message.handled = true;
        },
      });
      const text = await readFile(join(folder, "reports", file), "utf8");
      const names = exportedNames(text).size;
      const title = `## API Report File for "hawser"`;
      reports.push({ entryPoint, file, names, text: text.replace(title, `# ${entryPoint}: ${names} names`) });
    }
    return [...reports, { entryPoint: "the command hawser", file: "hawser-command.md", ...(await commandReport()) }];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function emitDeclarations(root: string, folder: string): Promise<void> {
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
  const options = ["-p", "tsconfig.build.json", "--emitDeclarationOnly", "--outDir", folder];
  await promisify(execFile)(process.execPath, [tsc, ...options], { cwd: root }).catch((cause: { stdout: string }) => {
    throw new Error(`The sources do not compile:\n${cause.stdout}`, { cause });
  });
}

function configOf(root: string, folder: string, entry: string, file: string): ExtractorConfig {
  const silent = { default: { logLevel: "none" as never } };
  return ExtractorConfig.prepare({
    packageJsonFullPath: join(root, "package.json"),
    configObjectFullPath: join(root, "api-extractor.json"),
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: join(folder, entry),
      newlineKind: "lf",
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: "es2022",
            lib: ["ES2023", "ESNext.Disposable"],
            types: ["node"],
            module: "nodenext",
            moduleResolution: "nodenext",
            strict: true,
            skipLibCheck: true,
          },
          files: [join(folder, entry)],
        },
      },
      apiReport: {
        enabled: true,
        reportFileName: file,
        reportFolder: join(folder, "reports"),
        reportTempFolder: join(folder, "temporary"),
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: { compilerMessageReporting: silent, extractorMessageReporting: silent, tsdocMessageReporting: silent },
    },
  });
}

/** Names that a report exports. A type and a value with the same name count once. */
function exportedNames(report: string): Set<string> {
  const declared = report.matchAll(
    /^export (?:abstract )?(?:class|const|enum|function|interface|namespace|type) (\w+)/gm,
  );
  const listed = [...report.matchAll(/^export (?:type )?\{ ([^}]+) \}/gm)].flatMap(([, names]) => names!.split(", "));
  return new Set([...[...declared].map(([, name]) => name!), ...listed.map((name) => name.split(" as ").at(-1)!)]);
}
