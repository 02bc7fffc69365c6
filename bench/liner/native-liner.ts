/**
 * liner itself, where it was built: a program that is told to run a cycle and says how long it took.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";
import { BenchFailure } from "../bench-failure.js";

/** The variable that names the program, made from `native/`. */
export const programVariable = "HAWSER_BENCH_LINER";

/** How long it may take to end by itself. */
const stopTimeoutMs = 5_000;

/** The running program. */
export class NativeLiner {
  readonly #lines: Interface;
  readonly #ended: Promise<[status: number | null, signal: NodeJS.Signals | null]>;

  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! });
    this.#ended = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
    this.#ended.catch(() => undefined);
    // A program that has ended takes no orders; that it has ended is found out below.
    child.stdin!.on("error", () => undefined);
  }

  /** Starts it. */
  static start(program: string, databaseUrl: string, messages: number, payloadBytes: number): NativeLiner {
    const args = [databaseUrl, String(messages), String(payloadBytes)];
    return new NativeLiner(spawn(program, args, { stdio: ["pipe", "pipe", 2] }));
  }

  /** Runs a cycle. @returns ms */
  async cycle(): Promise<number> {
    const line = once(this.#lines, "line");
    this.#child.stdin!.write("\n");
    const ended = this.#ended.then(
      ([status, signal]) => {
        throw new BenchFailure(`liner has ended (${signal ?? `status ${status}`}); see its output above`);
      },
      (cause) => {
        throw new BenchFailure(`liner cannot be started from ${programVariable}`, { cause });
      },
    );
    const [text] = (await Promise.race([line, ended])) as [string];
    return Number(text);
  }

  async stop(): Promise<void> {
    this.#child.stdin!.end();
    const force = setTimeout(() => this.#child.kill("SIGKILL"), stopTimeoutMs);
    await this.#ended.catch(() => undefined);
    clearTimeout(force);
  }
}
