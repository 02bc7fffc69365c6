/**
 * Performs a pattern: a process for each participant, which wait for each other where the pattern says so.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("program.ts", import.meta.url));

/** How long a participant may take to end after it was asked to. */
const killAfterMs = 5_000;

export interface Performance {
  readonly pattern: string;
  readonly participants: readonly string[];
  readonly databaseUrl: string;
  /** The time between two cycles. */
  readonly intervalMs: number;
  /** Ends it before its time. */
  readonly signal: AbortSignal;
}

/** Resolves when all participants have ended with status 0. @throws when one fails; the others are ended then */
export async function perform({ pattern, participants, databaseUrl, intervalMs, signal }: Performance): Promise<void> {
  const failed = new AbortController();
  const ending = AbortSignal.any([signal, failed.signal]);
  ending.throwIfAborted();
  const children = participants.map((name) => {
    const child = fork(program, [pattern, name, String(intervalMs)], {
      env: { ...process.env, HAWSER_DATABASE_URL: databaseUrl },
    });
    return { name, child };
  });
  meet(children);
  ending.addEventListener("abort", () => {
    for (const { child } of children) end(child);
  });
  const ends = children.map(async ({ name, child }) => {
    try {
      await ended(name, child);
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  });
  await Promise.allSettled(ends);
  ending.throwIfAborted();
}

/** Tells everybody to go on whenever everybody has arrived. */
function meet(children: readonly { readonly name: string; readonly child: ChildProcess }[]): void {
  let arrived = 0;
  for (const { child } of children) {
    child.on("message", (hasDone: string) => {
      arrived += 1;
      if (arrived < children.length) return;
      arrived = 0;
      for (const { child: each } of children) each.send(hasDone);
    });
  }
}

async function ended(name: string, child: ChildProcess): Promise<void> {
  const end = await new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status, signal) => resolve((status ?? signal) as number | NodeJS.Signals));
  });
  if (end !== 0) throw new Error(`${name} ended with ${end} instead of 0`);
}

function end(child: ChildProcess): void {
  child.kill("SIGTERM");
  const killing = setTimeout(() => child.kill("SIGKILL"), killAfterMs);
  child.once("exit", () => clearTimeout(killing));
}
