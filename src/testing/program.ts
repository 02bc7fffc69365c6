/**
 * The user's own programs as processes of a test, with faults at the moments that matter: between the end of a handler and
 * the commit that says so.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import { type Faults, faultsVariable } from "./faults.js";

/** How a program is started. */
export interface ProgramOptions extends Faults {
  /** Variables that are added to those of this process; undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Default: that of this process. */
  readonly cwd?: string | undefined;
}

/** How a program ended. */
interface ProgramEnd {
  /** Null if a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running program. */
export interface TestProgram extends AsyncDisposable {
  readonly pid: number;
  /** What it has written so far, to standard output and standard error. */
  readonly output: string;
  /** Resolves when it has ended and its output was read. */
  readonly ended: Promise<ProgramEnd>;
  /** SIGTERM; SIGKILL to it and all that it has started when that takes longer than ten seconds. */
  stop(): Promise<ProgramEnd>;
  /** SIGKILL, to it and all that it has started. */
  kill(): Promise<ProgramEnd>;
}

const stopTimeoutMs = 10_000;

const known = namesOf<ProgramOptions>({ env: true, cwd: true, twice: true, killAfterHandler: true });

/** @throws HawserError `invalid_argument`; `startup_failed` if there is no such program */
export async function startProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<TestProgram> {
  const problem = unknownOption(options, "a program", known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
  const { env = {}, cwd, twice = false, killAfterHandler } = options;
  if (killAfterHandler !== undefined && !(Number.isSafeInteger(killAfterHandler) && killAfterHandler > 0)) {
    throw new HawserError("invalid_argument", `killAfterHandler ${killAfterHandler}: must be a whole number from 1 on`);
  }
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env, ...faultsEnv({ twice, killAfterHandler }, env) },
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own, to be killed as a whole.
    detached: true,
  });
  try {
    await once(child, "spawn");
  } catch (cause) {
    throw new HawserError("startup_failed", `${command} could not be started: ${(cause as Error).message}`, { cause });
  }
  return new RunningProgram(child);
}

/** Node loads the faults before the program, also where a program in between starts it. */
function faultsEnv(faults: Faults, env: NonNullable<ProgramOptions["env"]>): Record<string, string> {
  if (!faults.twice && faults.killAfterHandler === undefined) return {};
  const preload = new URL("./faults-preload.js", import.meta.url).href;
  const before = "NODE_OPTIONS" in env ? env["NODE_OPTIONS"] : process.env["NODE_OPTIONS"];
  return {
    NODE_OPTIONS: `${before === undefined ? "" : `${before} `}--import=${JSON.stringify(preload)}`,
    [faultsVariable]: JSON.stringify(faults),
  };
}

class RunningProgram implements TestProgram {
  readonly pid: number;
  readonly ended: Promise<ProgramEnd>;
  readonly #child: ChildProcess;
  #output = "";
  #end: ProgramEnd | undefined;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid!;
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
      });
    }
    this.ended = once(child, "close").then(([status, signal]) => {
      this.#end = { status, signal } as ProgramEnd;
      return this.#end;
    });
  }

  get output(): string {
    return this.#output;
  }

  async stop(): Promise<ProgramEnd> {
    if (this.#end !== undefined) return this.#end;
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => void this.kill(), stopTimeoutMs);
    const end = await this.ended;
    clearTimeout(timer);
    return end;
  }

  kill(): Promise<ProgramEnd> {
    if (this.#end === undefined) {
      try {
        process.kill(-this.pid, "SIGKILL");
      } catch {
        // The group has ended, and its output is still being read.
      }
    }
    return this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
