/**
 * The processes that do the measured work, seen from the one that orders it. Requests and answers go over the IPC channel
 * of `fork`; see `serve-requests.ts` for the other end.
 *
 * The channel is also the lifeline: when it closes, because of {@link Worker.stop} or because this process is gone, the
 * worker ends in good order by itself.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { BenchFailure } from "./bench-failure.js";
import type { Answer, Request } from "./serve-requests.js";

/** How long a worker may take to end by itself. */
const stopTimeoutMs = 5_000;

/** How long an answer may take: longer than any that is under way, so that a worker that hangs is noticed. */
const answerTimeoutMs = 300_000;

interface Pending {
  readonly timer: NodeJS.Timeout;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** The requests that a worker understands: for each name its argument and result. */
export type Requests = { readonly [name: string]: (argument: never) => unknown };

/** How to start one. */
export interface WorkerOptions {
  /**
   * Node's flags. Default: those of this process, such as tsx, or --cpu-prof for whoever wants to see where the time
   * goes.
   */
  readonly execArgv?: readonly string[];
  /** Stops it when aborted, whatever it does: for requests that take long. */
  readonly signal?: AbortSignal;
}

/** A running worker. */
export class Worker<R extends Requests> {
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #lastId = 0;
  #end: Error | undefined;

  readonly #name: string;
  readonly #child: ChildProcess;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    child.on("message", (answer) => this.#answered(answer as Answer));
    child.on("error", (error) => this.#failed(error));
    this.#ended = once(child, "exit").then(([status, signal]) =>
      this.#failed(
        new BenchFailure(`the ${name} process has ended (${signal ?? `status ${status}`}); see its output above`),
      ),
    );
  }

  /** Starts a program, which calls `serveRequests`. What it prints goes to standard error. */
  static start<R extends Requests>(
    name: string,
    program: URL,
    { execArgv = process.execArgv, signal }: WorkerOptions = {},
  ): Worker<R> {
    const worker = new Worker<R>(name, fork(program, { execArgv: [...execArgv], stdio: ["ignore", 2, 2, "ipc"] }));
    const stop = (): void => void worker.stop();
    signal?.addEventListener("abort", stop);
    void worker.#ended.then(() => signal?.removeEventListener("abort", stop));
    return worker;
  }

  /** Asks for something. @throws what the worker threw, or that it has ended */
  request<N extends string & keyof R>(name: N, argument: Parameters<R[N]>[0]): Promise<Awaited<ReturnType<R[N]>>> {
    return new Promise((resolve, reject) => {
      if (this.#end !== undefined) {
        reject(this.#end);
        return;
      }
      const id = ++this.#lastId;
      const timer = setTimeout(() => {
        const seconds = answerTimeoutMs / 1000;
        this.#answered({ id, error: `it has not answered the request "${name}" within ${seconds} s` });
      }, answerTimeoutMs);
      this.#pending.set(id, { timer, resolve: resolve as Pending["resolve"], reject });
      const request: Request = { id, name, argument };
      this.#child.send(request);
    });
  }

  /** Ends it: by itself, or by force if that takes too long. */
  async stop(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    const force = setTimeout(() => this.#child.kill("SIGKILL"), stopTimeoutMs);
    await this.#ended;
    clearTimeout(force);
  }

  #answered({ id, result, error }: Answer): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error === undefined) pending.resolve(result);
    else pending.reject(new BenchFailure(`the ${this.#name} process: ${error}`));
  }

  #failed(error: Error): void {
    this.#end ??= error;
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#end);
    }
    this.#pending.clear();
  }
}
