/** Files of the extension in the directory of a Postgres server. */
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HawserError } from "../../../foundation/errors/index.js";
import { extensionName, extensionScript } from "./script.js";
import type { ServerDirectories } from "./server-directories.js";

/** File and its intended content. */
interface ExtensionFile {
  readonly name: string;
  readonly text: string;
}

/** Text in the first line of our files. */
const fileMark = "Made by hawser extension";

/**
 * Content of `litmus_pgnats.control`. It names no schema: CREATE EXTENSION uses its SCHEMA option or the first schema
 * of the search_path.
 */
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

/** Change of a file, made or planned. */
interface FileChange {
  readonly path: string;
  readonly change: "written" | "unchanged" | "removed";
}

/** Changes in the directory, made or planned. */
export interface ExtensionReport {
  readonly directory: string;
  readonly files: readonly FileChange[];
  readonly dryRun: boolean;
}

const controlName = `${extensionName}.control`;
const scriptName = new RegExp(`^${extensionName}--.*\\.sql$`);

/** Files of a version: the script and the control file. */
export function extensionFiles(version: string): { readonly sql: ExtensionFile; readonly control: ExtensionFile } {
  return {
    sql: { name: `${extensionName}--${version}.sql`, text: extensionScript(version) },
    control: { name: controlName, text: controlFile(version) },
  };
}

/**
 * Writes the files, each atomically, and removes those of other versions. Can be repeated at any time.
 *
 * @throws HawserError `native_extension` if the native extension is installed there; `invalid_argument` if the directory
 * does not exist; `output_failed` if it is not writable
 */
export function installExtension(
  where: ServerDirectories,
  { version, dryRun = false }: { readonly version: string; readonly dryRun?: boolean },
): ExtensionReport {
  const { extension: directory } = where;
  const { sql, control } = extensionFiles(version);
  const present = namesIn(directory);
  refuseNative(where, present, sql.name);
  // The script is written first, so that a reader of the control file finds it.
  const changes = [sql, control].map(({ name, text }): FileChange => {
    const path = join(directory, name);
    if (present.includes(name) && readFileSync(path, "utf8") === text) return { path, change: "unchanged" };
    if (!dryRun) wrapWriteErrors(directory, () => replace(path, text));
    return { path, change: "written" };
  });
  const old = ourScripts(directory, present).filter((name) => name !== sql.name);
  return { directory, dryRun, files: [...changes, ...remove(directory, old, dryRun)] };
}

/**
 * Removes our files. Databases keep the objects that CREATE EXTENSION created.
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
    if (!dryRun) wrapWriteErrors(directory, () => rmSync(path, { force: true }));
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
      `${directory} cannot be read as a directory (${(cause as Error).message}): give share/extension of a Postgres server`,
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

/** Replaces a file atomically. */
function replace(path: string, text: string): void {
  const draft = `${path}.${process.pid}.draft`;
  try {
    writeFileSync(draft, text, { flag: "wx" });
    // Independent of the umask, because the server runs as another user.
    chmodSync(draft, 0o644);
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

function wrapWriteErrors(directory: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    if (cause instanceof HawserError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const refused = code === "EACCES" || code === "EPERM" || code === "EROFS";
    throw new HawserError(
      "output_failed",
      refused
        ? `${directory} is not writable for this user (${code}): run the command as its owner, such as with sudo`
        : `the files of the extension could not be written to ${directory}: ${message}`,
      { cause },
    );
  }
}
