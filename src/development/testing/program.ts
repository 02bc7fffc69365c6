/**
 * Users' programs as processes of a test, with faults at the critical moments: between the end of a handler and the
 * commit that records it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { checkOptionNames, HawserError, invalidArgument, namesOf } from "../../foundation/errors/index.js";
import { type Faults, faultsVariable } from "./faults.js";

/** Options of starting a program. */
export interface ProgramOptions extends Faults {
  /** Variables added to the environment of this process and those of the stack; undefined removes one. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Working directory; by default the one of this process. */
  readonly cwd?: string | undefined;
}

/** Exit of a program. */
interface ProgramEnd {
  /** Exit status; null if a signal ended the program. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface TestProgram extends AsyncDisposable {
  readonly pid: number;
  /** Output so far, from standard output and standard error. */
  readonly output: string;
  /** Resolves when the program has ended and its output has been read. */
  readonly ended: Promise<ProgramEnd>;
  /** Sends SIGTERM, and SIGKILL to the process group if that takes longer than ten seconds. */
  stop(): Promise<ProgramEnd>;
  /** Sends SIGKILL to the process group. */
  kill(): Promise<ProgramEnd>;
}

const stopTimeoutMs = 10_000;

const known = namesOf<ProgramOptions>({ env: true, cwd: true, twice: true, killAfterHandler: true });

/**
 * @param surroundings variables that replace those of this process, before those of the options; undefined removes one
 * @throws HawserError `invalid_argument`; `startup_failed` if there is no such program
 */
export async function startProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions,
  surroundings: ProgramOptions["env"],
): Promise<TestProgram> {
  checkOptionNames(options, "a program", known);
  const { cwd, twice = false, killAfterHandler } = options;
  const env = { NODE_TEST_CONTEXT: undefined, ...surroundings, ...options.env };
  if (killAfterHandler !== undefined && !(Number.isSafeInteger(killAfterHandler) && killAfterHandler > 0)) {
    throw invalidArgument(`killAfterHandler ${killAfterHandler}: must be an integer of at least 1`);
  }
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env, ...faultsEnv({ twice, killAfterHandler }, env) },
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own, so that all of its processes can be killed.
    detached: true,
  });
  try {
    await once(child, "spawn");
  } catch (cause) {
    throw new HawserError("startup_failed", `${command} could not be started: ${(cause as Error).message}`, { cause });
  }
  return new RunningProgram(child);
}

/** Environment that makes Node.js load the faults before the program, even if another program starts it. */
function faultsEnv(faults: Faults, env: NonNullable<ProgramOptions["env"]>): Record<string, string> {
  if (!faults.twice && faults.killAfterHandler === undefined) return {};
  const preload = new URL("../testing/faults-preload.js", import.meta.url).href;
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
        // The group has ended; its output may still be unread.
      }
    }
    return this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
