/**
 * Cleanup after the owner of a dev stack has died: stops its servers and removes its temporary directory. The watchdog
 * cleans up right after the death. Each start cleans up for stacks whose watchdog could not, such as after a power
 * failure.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HawserError } from "../../foundation/errors/index.js";
import { startDetached } from "./detached.js";
import {
  isAlive,
  ownerOf,
  partsOf,
  type RunDirectory,
  removeDirectory,
  temporaryPrefix,
  temporaryRoots,
} from "./run-directory.js";
import { serverAccount } from "./server-process.js";

/** Time that a server has to end before it is killed. */
const stopTimeoutMs = 5_000;
/** Age below which a directory without an owner belongs to a process that is creating it. */
const ownerlessAgeMs = 60_000;

/** Process with its command line. */
interface RunningProcess {
  readonly pid: number;
  readonly uid: number;
  /** Arguments, each followed by a space. */
  readonly commandLine: string;
}

/**
 * Starts a watchdog for the directory (`watchdog.ts`) and resolves when it is watching. From then on, even a kill of
 * this process stops the servers and removes a temporary directory.
 *
 * @returns function that ends the watchdog, after the stack has been stopped
 * @throws HawserError `dev_server_failed` if the watchdog cannot be started
 */
export async function guardDirectory({ path, temporary }: RunDirectory): Promise<() => Promise<void>> {
  const args = temporary ? [path, "temporary"] : [path];
  const watchdog = await startDetached(new URL("../dev/watchdog.js", import.meta.url), args, {
    PATH: process.env["PATH"],
  });
  const hasEnded = () => watchdog.exitCode !== null || watchdog.signalCode !== null;
  if (hasEnded()) {
    const { exitCode } = watchdog;
    throw new HawserError("dev_server_failed", `The watchdog of the dev servers ended with status ${exitCode}.`);
  }
  return async () => {
    if (hasEnded()) return;
    watchdog.ref();
    watchdog.kill();
    await once(watchdog, "exit");
  };
}

/**
 * Stops the servers whose data is in the directory: SIGINT, then SIGKILL. They are identified by their command lines,
 * which contain the directory, because recorded pids could belong to other processes by now.
 */
export async function stopServersOf(directory: string): Promise<void> {
  const deadline = Date.now() + stopTimeoutMs;
  signalAll(serversOf(directory), "SIGINT");
  while (serversOf(directory).length > 0) {
    if (Date.now() > deadline) signalAll(serversOf(directory), "SIGKILL");
    await delay(20);
  }
}

/**
 * Stops the servers and removes the directory of each temporary stack whose owner is dead. Returns the paths. A directory that
 * cannot be removed, such as one with a mount in it, is left for the next sweep.
 */
export async function sweepLeftovers(): Promise<string[]> {
  const swept: string[] = [];
  for (const root of temporaryRoots()) {
    for (const name of readdirSync(root)) {
      const path = join(root, name);
      if (!name.startsWith(temporaryPrefix) || !isAbandoned(path)) continue;
      await stopServersOf(path);
      try {
        removeDirectory(path);
      } catch {
        continue;
      }
      swept.push(path);
    }
  }
  return swept;
}

/**
 * True if Hawser created the directory and its owner is dead. Other users can create names in a temporary directory.
 */
function isAbandoned(path: string): boolean {
  try {
    const stat = lstatSync(path);
    if (!stat.isDirectory() || stat.uid !== process.getuid?.()) return false;
    const owner = ownerOf(path);
    return owner === undefined ? Date.now() - stat.mtimeMs > ownerlessAgeMs : !isAlive(owner);
  } catch {
    // Another process is removing the directory.
    return false;
  }
}

/** Servers that this process may end: another user could run a program with these arguments for ever. */
function serversOf(directory: string): RunningProcess[] {
  const { postgresData, natsStore } = partsOf(directory);
  const users = [process.getuid?.(), serverAccount()?.uid];
  const dataArguments = [` -D ${postgresData} `, ` -sd ${natsStore} `];
  return runningProcesses().filter(
    ({ pid, uid, commandLine }) =>
      pid !== process.pid && users.includes(uid) && dataArguments.some((args) => commandLine.includes(args)),
  );
}

function signalAll(processes: readonly RunningProcess[], signal: NodeJS.Signals): void {
  for (const { pid } of processes) {
    try {
      process.kill(pid, signal);
    } catch {
      // The process ended between the listing and the signal.
    }
  }
}

function runningProcesses(): RunningProcess[] {
  if (process.platform !== "linux") return processesByPs();
  return readdirSync("/proc").flatMap((entry) => {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) return [];
    try {
      const { uid } = statSync(`/proc/${pid}`);
      return [{ pid, uid, commandLine: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ") }];
    } catch {
      return [];
    }
  });
}

/** Lists processes with ps, for systems without /proc. */
function processesByPs(): RunningProcess[] {
  const lines = execFileSync("ps", ["-axwwo", "pid=,uid=,args="], { encoding: "utf8" }).split("\n");
  return lines.map((line) => {
    const [, pid, uid, args] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
    return { pid: Number(pid), uid: Number(uid), commandLine: `${args ?? ""} ` };
  });
}
