/**
 * The files of the extension in the directory of a Postgres server.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HawserError } from "../../errors/index.js";
import { extensionName, extensionScript } from "./script.js";
import type { ServerDirectories } from "./server-directories.js";

/** A file as it is to be. */
interface ExtensionFile {
  readonly name: string;
  readonly text: string;
}

/** The first line of the files that are ours. */
const fileMark = "Made by hawser extension";

/** The file `litmus_pgnats.control`. It names no schema: the functions go where CREATE EXTENSION says, else to the first of the path. */
function controlFile(version: string): string {
  return `# ${extensionName}. ${fileMark}.
comment = 'NATS from SQL, over Hawser: the script installs, and the extension owns nothing'
default_version = '${version}'
encoding = 'UTF8'
relocatable = false
superuser = true
trusted = false
`;
}

/** What became of a file, or would. */
interface FileChange {
  readonly path: string;
  readonly change: "written" | "unchanged" | "removed";
}

/** What was done in the directory, or would be. */
export interface ExtensionReport {
  readonly directory: string;
  readonly files: readonly FileChange[];
  readonly dryRun: boolean;
}

const controlName = `${extensionName}.control`;
const scriptName = new RegExp(`^${extensionName}--.*\\.sql$`);

/** Both files of a version: the script, and the control file. */
export function extensionFiles(version: string): { readonly sql: ExtensionFile; readonly control: ExtensionFile } {
  return {
    sql: { name: `${extensionName}--${version}.sql`, text: extensionScript(version) },
    control: { name: controlName, text: controlFile(version) },
  };
}

/**
 * Writes the files, each at once or not at all, and removes those of other versions. It may be run again at any time.
 *
 * @throws HawserError `native_extension` if the native extension is installed there; `invalid_argument` if there is no such
 * directory; `output_failed` if it may not be written to
 */
export function installExtension(
  where: ServerDirectories,
  { version, dryRun = false }: { readonly version: string; readonly dryRun?: boolean },
): ExtensionReport {
  const { extension: directory } = where;
  const { sql, control } = extensionFiles(version);
  const present = namesIn(directory);
  refuseNative(where, present, sql.name);
  // A reader of the control file finds the script.
  const changes = [sql, control].map(({ name, text }): FileChange => {
    const path = join(directory, name);
    if (present.includes(name) && readFileSync(path, "utf8") === text) return { path, change: "unchanged" };
    if (!dryRun) changing(directory, () => replace(path, text));
    return { path, change: "written" };
  });
  const old = ourScripts(directory, present).filter((name) => name !== sql.name);
  return { directory, dryRun, files: [...changes, ...remove(directory, old, dryRun)] };
}

/**
 * Removes the files that are ours. Databases keep what CREATE EXTENSION has made.
 *
 * @throws HawserError `invalid_argument` and `output_failed` as {@link installExtension}
 */
export function uninstallExtension(
  { extension: directory }: ServerDirectories,
  { dryRun = false }: { readonly dryRun?: boolean } = {},
): ExtensionReport {
  const present = namesIn(directory);
  const control = present.filter((name) => name === controlName && isOurs(join(directory, name)));
  return { directory, dryRun, files: remove(directory, [...control, ...ourScripts(directory, present)], dryRun) };
}

function remove(directory: string, names: readonly string[], dryRun: boolean): FileChange[] {
  return names.map((name) => {
    const path = join(directory, name);
    if (!dryRun) changing(directory, () => rmSync(path, { force: true }));
    return { path, change: "removed" };
  });
}

function ourScripts(directory: string, names: readonly string[]): string[] {
  return names.filter((name) => scriptName.test(name) && isOurs(join(directory, name)));
}

function isOurs(path: string): boolean {
  return readFileSync(path, "utf8").split("\n", 1)[0]!.includes(fileMark);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (cause) {
    throw new HawserError(
      "invalid_argument",
      `${directory} is no directory that can be read (${(cause as Error).message}): it is to be share/extension of a Postgres server`,
      { cause },
    );
  }
}

function refuseNative(
  { extension: directory, library }: ServerDirectories,
  present: readonly string[],
  script: string,
): void {
  const foreign = [controlName, script].filter((name) => present.includes(name) && !isOurs(join(directory, name)));
  const libraries = [".so", ".dylib", ".dll"].map((suffix) => join(library ?? "", `${extensionName}${suffix}`));
  const files = [
    ...foreign.map((name) => join(directory, name)),
    ...(library === undefined ? [] : libraries.filter((path) => existsSync(path))),
  ];
  if (files.length === 0) return;
  throw new HawserError(
    "native_extension",
    `the native extension ${extensionName} is installed in this server: ${files.join(", ")}. DROP EXTENSION ${extensionName} in ` +
      "each database, take it out of shared_preload_libraries, restart Postgres, and remove its package or these files",
  );
}

/** A reader sees the old file or the new one. */
function replace(path: string, text: string): void {
  const draft = `${path}.${process.pid}.draft`;
  try {
    writeFileSync(draft, text, { flag: "wx" });
    // Whatever the umask is: the server runs as another user.
    chmodSync(draft, 0o644);
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

function changing(directory: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    if (cause instanceof HawserError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const refused = code === "EACCES" || code === "EPERM" || code === "EROFS";
    throw new HawserError(
      "output_failed",
      refused
        ? `${directory} may not be written to by this user (${code}): run the command as its owner, such as with sudo`
        : `the files of the extension could not be written to ${directory}: ${message}`,
      { cause },
    );
  }
}
