/**
 * The project's programs as plain JavaScript, compiled once for a whole run: from TypeScript each start of one would
 * take three times as long.
 */
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type BuildOptions, build, type Plugin } from "esbuild";

const prefix = "hawser-test-programs-";

/** The root of the project, with a slash at its end. */
export const projectDirectory = fileURLToPath(new URL("../..", import.meta.url));

/** The program that tests start most. */
const command = "src/operating/cli/main.ts";

/**
 * Compiles `src/`, `generated/` and the programs of tests to a directory that is laid out as the project is. It is below
 * the project, so that programs find `node_modules`. `hawser` is bundled, and there are no source maps: so it starts in
 * half the processor time.
 */
export async function buildPrograms(): Promise<{ readonly directory: string; remove(): void }> {
  const cache = join(projectDirectory, "node_modules/.cache");
  mkdirSync(cache, { recursive: true });
  removeLeftovers(cache);
  const directory = mkdtempSync(join(cache, `${prefix}${process.pid}-`));
  // Some tests start programs as another user.
  chmodSync(directory, 0o755);
  cpSync(join(projectDirectory, "package.json"), join(directory, "package.json"));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  const options: BuildOptions = {
    absWorkingDir: projectDirectory,
    outdir: directory,
    outbase: projectDirectory,
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "warning",
  };
  const files = ["src", "generated/ts", "test"].flatMap(typescriptBelow).filter((file) => file !== command);
  const built = Promise.all([
    build({ ...options, entryPoints: files }),
    build({
      ...options,
      entryPoints: [command],
      bundle: true,
      splitting: true,
      packages: "external",
      plugins: [ownUrls(directory)],
    }),
  ]);
  await built.catch((error: unknown) => {
    remove();
    throw error;
  });
  return { directory, remove };
}

/** Gives modules in a bundle the URLs that they have without it: beside them are the programs that they start. */
function ownUrls(directory: string): Plugin {
  return {
    name: "own-urls",
    setup({ onLoad }) {
      onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const compiled = join(directory, relative(projectDirectory, path).replace(/\.ts$/, ".js"));
        const url = JSON.stringify(pathToFileURL(compiled).href);
        return { loader: "ts", contents: readFileSync(path, "utf8").replaceAll("import.meta.url", () => url) };
      });
    },
  };
}

/** Arguments and environment of Node for a program of the project. */
export interface NodeProgram {
  /** Flags of Node. */
  readonly execArgv: string[];
  readonly file: string;
}

/**
 * The program of a TypeScript file, given relative to the root: compiled if it is of `src/` or `test/` of this project.
 *
 * @param directory root of the project, or of a copy
 */
export function nodeProgram(script: string, directory = projectDirectory): NodeProgram {
  const built = process.env["HAWSER_TEST_PROGRAMS"];
  if (built === undefined || directory !== projectDirectory || !/^(src|test)\//.test(script)) {
    return { execArgv: ["--import", "tsx"], file: join(directory, script) };
  }
  return { execArgv: [], file: join(built, script.replace(/\.ts$/, ".js")) };
}

/** The same as a command. */
export function nodeCommand(script: string): string[] {
  const { execArgv, file } = nodeProgram(script);
  return [process.execPath, ...execArgv, file];
}

/** Directories of runs that were killed; their names have the process id. */
function removeLeftovers(cache: string): void {
  for (const name of readdirSync(cache).filter((each) => each.startsWith(prefix))) {
    const pid = Number.parseInt(name.slice(prefix.length), 10);
    if (pid === process.pid || !isRunning(pid)) rmSync(join(cache, name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // Another user's.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function typescriptBelow(folder: string): string[] {
  return readdirSync(join(projectDirectory, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !file.includes("golden/"))
    .map((file) => join(folder, file));
}
