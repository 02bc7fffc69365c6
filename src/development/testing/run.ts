/**
 * Test run of a process, identified by the process of the runner. Workers, and processes started for test files, find
 * the keeper of the run's servers by the identity of that process, without any configuration.
 */
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { HawserError } from "../../foundation/errors/index.js";
import { identityOf, type ProcessIdentity } from "../dev/index.js";

/** Variable with the pid of the runner, set by the global set-up for the workers. */
export const runVariable = "HAWSER_TEST_RUN";

/** Process whose end is the end of the run. */
export function ownerOfRun(): ProcessIdentity {
  return identityOf(runnerPid());
}

function runnerPid(): number {
  const env = process.env;
  const told = Number(env[runVariable]);
  if (Number.isSafeInteger(told) && told > 0) return told;
  // node:test starts a process for each file, which reports its results to its parent.
  if (env["NODE_TEST_CONTEXT"]?.startsWith("child")) return process.ppid;
  // In vitest and jest, workers are threads of the runner, or its children with a channel to it.
  const isWorker = env["VITEST_WORKER_ID"] !== undefined || env["JEST_WORKER_ID"] !== undefined;
  return isWorker && isMainThread && process.send !== undefined ? process.ppid : process.pid;
}

/** Socket and log of a run's keeper. */
export interface RunFiles {
  /** Unix socket; the process that binds it is the keeper. */
  readonly socket: string;
  readonly log: string;
}

/** Files of a run, in a directory that only this user can enter. @throws HawserError `dev_server_failed` */
export function filesOf(owner: ProcessIdentity): RunFiles {
  const directory = directoryOfRuns();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { uid, mode } = lstatSync(directory);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) {
    throw new HawserError(
      "dev_server_failed",
      `The directory ${directory} is accessible to other users. Remove it, or set TMPDIR to a directory of your own.`,
    );
  }
  const base = join(directory, nameOf(owner));
  return { socket: `${base}.sock`, log: `${base}.log` };
}

/** Removes the files of killed keepers. */
export function removeLeftovers(): void {
  const directory = directoryOfRuns();
  for (const file of readdirSync(directory)) {
    const [, name, pid] = /^((\d+)-\w+)\.(?:sock|log)$/.exec(file) ?? [];
    if (pid !== undefined && nameOf(identityOf(Number(pid))) !== name) rmSync(join(directory, file), { force: true });
  }
}

function directoryOfRuns(): string {
  return join(tmpdir(), `hawser-testing-${process.getuid?.() ?? 0}`);
}

/** Name of the files of a run. It is short, because the path of a socket is limited to about a hundred bytes. */
function nameOf({ pid, startedAt, namespace }: ProcessIdentity): string {
  return `${pid}-${createHash("sha256").update(`${startedAt} ${namespace}`).digest("hex").slice(0, 8)}`;
}
