/**
 * The directory of one dev stack: data, logs and who owns it.
 *
 * Without a name it is a temporary one, removed when the stack stops. A named one is kept, so that the next start finds
 * the data again. Either way a file in it names the process that owns it.
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
import { HawserError } from "../errors/index.js";
import { writePrivate } from "../files/index.js";
import { type Account, mayEnter } from "./server-process.js";

/** What the names of temporary directories begin with. */
export const temporaryPrefix = "hawser-dev-";

const markFile = "hawser-dev.json";

/** Where a stack keeps what it has on disk. */
export interface RunDirectory {
  readonly path: string;
  /** Removed when the stack stops. */
  readonly temporary: boolean;
  /** Postgres's data directory. */
  readonly postgresData: string;
  /** The store of nats-server. */
  readonly natsStore: string;
}

/** The contents of the file that marks a directory as ours. */
interface Mark {
  /** The process that uses the directory now. */
  readonly owner?: ProcessIdentity;
}

/** The places of a run directory's parts. */
export function partsOf(path: string): Pick<RunDirectory, "postgresData" | "natsStore"> {
  return { postgresData: join(path, "postgres"), natsStore: join(path, "nats") };
}

/** The directories that may hold temporary run directories. */
export function temporaryRoots(): string[] {
  return [...new Set([tmpdir(), "/tmp", "/var/tmp"])].filter((root) => existsSync(root));
}

/** Makes a temporary run directory and takes it. */
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
 * Takes the named directory, making it where it does not exist. Throws `dev_server_failed` if a living process has it,
 * or if it holds something that no dev stack left there.
 */
export function openNamed(directory: string, account: Account | undefined): RunDirectory {
  const path = resolve(directory);
  mkdirSync(path, { recursive: true });
  const mark = readMark(path);
  if (mark === undefined && readdirSync(path).length > 0) {
    throw new HawserError(
      "dev_server_failed",
      `The directory ${path} is not empty, and no dev stack has made it. Name a new or an empty directory.`,
    );
  }
  if (mark?.owner !== undefined && isAlive(mark.owner)) {
    throw new HawserError(
      "dev_server_failed",
      `The directory ${path} is used by the dev stack of process ${mark.owner.pid}. Stop that one or name another.`,
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

/** Gives the directory up: removes a temporary one, leaves a named one for the next start. */
export function giveUp(directory: RunDirectory): void {
  if (directory.temporary) removeDirectory(directory.path);
  else writeMark(directory.path, {});
}

/** Removes a directory with everything in it. */
export function removeDirectory(path: string): void {
  // Retried, because a server that was just killed may still have been writing a file.
  rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}

/** The owner a directory names: undefined if it has none, or if the directory is not marked as ours. */
export function ownerOf(path: string): ProcessIdentity | undefined {
  return readMark(path)?.owner;
}

function take(path: string, account: Account | undefined): void {
  // Postgres's account must be able to pass through; the data directory itself is its own, and closed to others.
  if (account !== undefined) chownSync(path, process.getuid!(), account.gid);
  chmodSync(path, account === undefined ? 0o700 : 0o710);
  writeMark(path, { owner: identityOf() });
}

function writeMark(path: string, mark: Mark): void {
  // Renamed into place: a reader never sees half a file.
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

/** A process, told apart from every later one with the same pid: pids are used again. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, in whatever form the system tells it; only ever compared for equality. */
  readonly startedAt: string;
  /** The pid namespace (Linux), since a pid means nothing outside of its own. Empty elsewhere. */
  readonly namespace: string;
}

/** The identity of a process of this pid namespace, by default of this one. */
export function identityOf(pid = process.pid): ProcessIdentity {
  return { pid, startedAt: startOf(pid) ?? "", namespace: pidNamespace() };
}

/**
 * True while the process lives. A process of another pid namespace (a container that shares our temporary directory)
 * counts as alive: from here nobody can tell, and taking its directory away would be the worse mistake.
 */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.namespace !== pidNamespace()) return true;
  return startOf(identity.pid) === identity.startedAt;
}

/** When the process started, or undefined if there is none. */
function startOf(pid: number): string | undefined {
  try {
    if (process.platform !== "linux") {
      return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", stdio: "pipe" }).trim();
    }
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the command's name, may hold spaces and parentheses; the fields after it do not.
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
