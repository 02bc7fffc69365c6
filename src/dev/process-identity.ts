/**
 * Which process is it, and is it still there? A pid alone is not an answer: pids are used again.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, readlinkSync } from "node:fs";

/** A process, told apart from every later one with the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, in whatever form the system tells it; only ever compared for equality. */
  readonly startedAt: string;
  /** The pid namespace (Linux), since a pid means nothing outside of its own. Empty elsewhere. */
  readonly namespace: string;
}

/** The identity of this process. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startedAt: startOf(process.pid) ?? "", namespace: pidNamespace() };
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
