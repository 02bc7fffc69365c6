/**
 * Directory of one dev stack: data, logs and owner.
 *
 * A stack without a named directory has a temporary one, which is removed when the stack stops. A named directory is
 * kept, so that the next start finds the data. In both cases, a file in it names the process that owns it.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { HawserError } from "../../foundation/errors/index.js";
import { writePrivate } from "../../foundation/runtime/index.js";
import { type Account, mayEnter } from "./server-process.js";

/** Prefix of the names of temporary directories. */
export const temporaryPrefix = "hawser-dev-";

const markFile = "hawser-dev.json";

/** Paths of a stack on disk. */
export interface RunDirectory {
  readonly path: string;
  /** True if the directory is removed when the stack stops. */
  readonly temporary: boolean;
  /** Data directory of Postgres. */
  readonly postgresData: string;
  /** Store of nats-server. */
  readonly natsStore: string;
}

/** Contents of the file that marks a directory as a run directory. */
interface Mark {
  /** Process that uses the directory now; absent while none does. */
  readonly owner?: ProcessIdentity;
}

/** Paths of the parts of a run directory. */
export function partsOf(path: string): Pick<RunDirectory, "postgresData" | "natsStore"> {
  return { postgresData: join(path, "postgres"), natsStore: join(path, "nats") };
}

/** Directories that may contain temporary run directories. */
export function temporaryRoots(): string[] {
  return [...new Set([tmpdir(), "/tmp", "/var/tmp"])].filter((root) => existsSync(root));
}

/** Creates a temporary run directory and claims it. */
export function createTemporary(account: Account | undefined): RunDirectory {
  const root = temporaryRoots().find((candidate) => account === undefined || mayEnter(candidate, account));
  if (root === undefined) {
    throw new HawserError(
      "dev_server_failed",
      `Postgres must run as uid ${account?.uid}, which may enter none of ${temporaryRoots().join(", ")}. ` +
        "Set TMPDIR to a directory that every user can enter.",
    );
  }
  const path = mkdtempSync(join(root, temporaryPrefix));
  take(path, account);
  return { path, temporary: true, ...partsOf(path) };
}

/**
 * Claims the named directory, creating it if necessary. Throws `dev_server_failed` if a living process owns it, or if
 * it has contents although no dev stack created it.
 */
export function openNamed(directory: string, account: Account | undefined): RunDirectory {
  const path = resolve(directory);
  mkdirSync(path, { recursive: true });
  const mark = readMark(path);
  if (mark === undefined && readdirSync(path).length > 0) {
    throw new HawserError(
      "dev_server_failed",
      `The directory ${path} is not empty, and no dev stack created it. Name a new or an empty directory.`,
    );
  }
  if (mark?.owner !== undefined && isAlive(mark.owner)) {
    throw new HawserError(
      "dev_server_failed",
      `The directory ${path} is used by the dev stack of process ${mark.owner.pid}. Stop that process, or name another directory.`,
    );
  }
  if (account !== undefined && !mayEnter(resolve(path, ".."), account)) {
    throw new HawserError(
      "dev_server_failed",
      `Postgres must run as uid ${account.uid}, which may not enter ${path}. Name a directory that every user can enter.`,
    );
  }
  take(path, account);
  return { path, temporary: false, ...partsOf(path) };
}

/** Releases the directory: removes a temporary one, keeps a named one for the next start. */
export function giveUp(directory: RunDirectory): void {
  if (directory.temporary) removeDirectory(directory.path);
  else writeMark(directory.path, {});
}

export function removeDirectory(path: string): void {
  // Retried, because a server that was just killed may still have been writing a file.
  rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}

/** Owner of a directory: undefined if it has none, or is not a run directory. */
export function ownerOf(path: string): ProcessIdentity | undefined {
  return readMark(path)?.owner;
}

function take(path: string, account: Account | undefined): void {
  // The account of Postgres must be able to pass through this directory to its data directory, which others cannot
  // enter.
  if (account !== undefined) chownSync(path, process.getuid!(), account.gid);
  chmodSync(path, account === undefined ? 0o700 : 0o710);
  writeMark(path, { owner: identityOf() });
}

function writeMark(path: string, mark: Mark): void {
  // Renamed into place, so that no reader sees a partial file.
  const draft = join(path, `.${markFile}.${process.pid}`);
  writePrivate(draft, JSON.stringify(mark));
  renameSync(draft, join(path, markFile));
}

function readMark(path: string): Mark | undefined {
  try {
    return JSON.parse(readFileSync(join(path, markFile), "utf8")) as Mark;
  } catch {
    return undefined;
  }
}

/** Process identity that distinguishes a process from later ones with the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in a system-specific form; only compared for equality. */
  readonly startedAt: string;
  /** Pid namespace (Linux), because a pid is only unique within its namespace. Empty on other systems. */
  readonly namespace: string;
}

/** Identity of a process of this pid namespace, by default of this process. */
export function identityOf(pid = process.pid): ProcessIdentity {
  return { pid, startedAt: startOf(pid) ?? "", namespace: pidNamespace() };
}

/**
 * True while the process lives. A process of another pid namespace (a container that shares the temporary directory)
 * counts as alive: its state is not visible here, and the directory of a living process must not be removed.
 */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.namespace !== pidNamespace()) return true;
  return startOf(identity.pid) === identity.startedAt;
}

/** Start time of the process; undefined if there is no such process. */
function startOf(pid: number): string | undefined {
  try {
    if (process.platform !== "linux") {
      return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", stdio: "pipe" }).trim();
    }
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the command's name, may contain spaces and parentheses; later fields do not.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, startTime] = [fields[0], fields[19]];
    return state === "Z" ? undefined : startTime;
  } catch {
    return undefined;
  }
}

function pidNamespace(): string {
  try {
    return process.platform === "linux" ? readlinkSync("/proc/self/ns/pid") : "";
  } catch {
    return "";
  }
}
