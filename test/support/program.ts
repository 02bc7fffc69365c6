/**
 * Programs of this project as processes of their own, as users start them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { nodeCommand, projectDirectory } from "./built-programs.js";

export { projectDirectory };

/** Settings of a program's process. */
export interface ProgramOptions {
  /** Variables to add to the environment; undefined takes one out. */
  readonly env?: Record<string, string | undefined>;
  readonly uid?: number;
  readonly gid?: number;
  readonly cwd?: string;
  /** Standard input: a pipe that stays open (default), or /dev/null. */
  readonly stdin?: "pipe" | "ignore";
  /** A process group of its own, as each job of a shell in a terminal has. */
  readonly ownGroup?: boolean;
}

/** A running program. */
export interface Program {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Resolves with its first line on standard output; rejects with what it wrote to standard error if it ends before. */
  readonly firstLine: Promise<string>;
  /** Resolves when it has ended and its output was read. */
  readonly ended: Promise<ProgramEnd>;
}

/** End of a program: exit status or signal, and output. */
interface ProgramEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts a TypeScript program of the project, given relative to its root: of `src/` and `test/` as it was compiled. */
export function startProgram(script: string, args: readonly string[] = [], options: ProgramOptions = {}): Program {
  const [node, ...program] = nodeCommand(script);
  return startCommand(node!, [...program, ...args], options);
}

/** Starts any program. */
export function startCommand(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
  const child = spawn(command, args, {
    cwd: options.cwd ?? projectDirectory,
    env: withoutUndefined({ ...process.env, ...options.env }),
    stdio: [options.stdin ?? "pipe", "pipe", "pipe"],
    detached: options.ownGroup ?? false,
    ...(options.uid !== undefined && { uid: options.uid }),
    ...(options.gid !== undefined && { gid: options.gid }),
  });
  const closed = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
  const stdout = text(child.stdout!);
  const stderr = text(child.stderr!);
  const ended = Promise.all([closed, stdout, stderr]).then(([[status, signal], out, err]) => {
    return { status, signal, stdout: out, stderr: err };
  });
  let seen = "";
  const firstLine = new Promise<string>((resolve, reject) => {
    child.stdout!.on("data", (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.includes("\n")) resolve(seen.slice(0, seen.indexOf("\n")));
    });
    ended.then((end) => reject(new Error(`It ended (${end.status ?? end.signal}) and said:\n${end.stderr}`)), reject);
  });
  // Tests that do not read the line must not fail because of it.
  firstLine.catch(() => undefined);
  return { child, pid: child.pid!, firstLine, ended };
}

function withoutUndefined(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined)) as Record<string, string>;
}
