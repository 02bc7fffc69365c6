/**
 * The processes that do the measured work. Both ends are here: {@link Worker} is one of them as the process sees it that
 * gives the orders; {@link serveRequests} is what the worker's program calls. Requests and answers go over the IPC channel
 * of `fork`.
 *
 * The channel also tells the worker when to end: when it closes, because of {@link Worker.stop} or because the ordering
 * process is gone, the worker ends in good order by itself.
 */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { BenchFailure } from "./suite.js";

/** Time that a worker has to exit by itself, and the part of it for its own cleanup. */
const stopTimeoutMs = 5_000;
const closeTimeoutMs = 3_000;

/** Time limit for an answer, longer than any request takes, so that a hanging worker is noticed. */
const answerTimeoutMs = 600_000;

interface Request {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

/** `error`, in words and with its stack, if the request failed. */
interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

interface Pending {
  readonly timer: NodeJS.Timeout;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** The requests that a worker understands: for each name its argument and result. */
export type Requests = { readonly [name: string]: (argument: never) => unknown };

/** Checkout, program and flags of a worker. */
export interface WorkerOptions {
  /** The checkout whose Hawser it uses: see {@link measuredModule}. Default: this one. */
  readonly source?: string;
  /** The program `node`. Default: that of this process. */
  readonly node?: string;
  /** Node's flags, for a program that runs as it is. Default: it runs compiled, with those of this process but for tsx. */
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

  /** Starts a program, which calls {@link serveRequests}. What it prints goes to standard error. */
  static start<R extends Requests>(
    name: string,
    program: URL,
    { source, node = process.execPath, execArgv, signal }: WorkerOptions = {},
  ): Worker<R> {
    const file = execArgv === undefined ? compiledFile(program.href.slice(thisCheckout.length), thisCheckout) : program;
    const worker = new Worker<R>(
      name,
      fork(file, source === undefined ? [] : [source], {
        execPath: node,
        execArgv: [...(execArgv ?? process.execArgv.filter((each) => each !== "--import" && each !== "tsx"))],
        stdio: ["ignore", 2, 2, "ipc"],
      }),
    );
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

/**
 * Answers requests until the channel closes; then calls `close` and ends the process.
 *
 * Ctrl-C in a terminal reaches the whole process group; here it is left to the process that started this one, which then
 * closes the channel.
 */
export function serveRequests(requests: Requests, close: () => Promise<void>): void {
  for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.on("message", (message) => void answer(message as Request, requests));
  process.on("disconnect", () => {
    setTimeout(() => process.exit(1), closeTimeoutMs).unref();
    close().then(
      () => process.exit(0),
      (error) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
}

async function answer({ id, name, argument }: Request, requests: Requests): Promise<void> {
  let answer: Answer;
  try {
    const handle = requests[name];
    if (handle === undefined) throw new Error(`it does not know the request "${name}"`);
    answer = { id, result: await handle(argument as never) };
  } catch (error) {
    answer = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  // The channel may be closing; then nothing waits for the answer, and that it cannot be sent is no error.
  if (process.connected) process.send?.(answer, () => undefined);
}

/** Folder of the compiled files, relative to a checkout. */
export const compiledFolder = "dist-bench/";

/** The folder of this checkout, as a URL; a worker runs compiled. */
export const thisCheckout = new URL("..", import.meta.url).href.replace(new RegExp(`${compiledFolder}$`), "");

function compiledFile(path: string, checkout: string): URL {
  return new URL(path.replace(/ts$/, "js"), new URL(compiledFolder, checkout));
}

/** In a worker: the checkout whose Hawser it uses. */
export const measuredCheckout = process.argv[2] ?? thisCheckout;

/** In a worker: the folder of its compiled files, as a URL that ends with `/`. */
export const measuredFolder = (): string => new URL(compiledFolder, measuredCheckout).href;

/**
 * In a worker: imports a module of that checkout, which may be of a time before `src` had wings. `M` is its type here, where both
 * checkouts have the same interface.
 */
export async function measuredModule<M>(path: string): Promise<M> {
  const file = compiledFile(path, measuredCheckout);
  const withoutWing = compiledFile(path.replace(/^src\/[^/]+/, "src"), measuredCheckout);
  return (await import((existsSync(file) ? file : withoutWing).href)) as M;
}

/**
 * The system's monotonic clock, in ms: the same in all processes of a machine (CLOCK_MONOTONIC; `performance.now` begins
 * anew in each), so that one process can say when something began and another when it ended.
 */
export function systemMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Processors' time of this process since `process.cpuUsage` gave `before`. */
export function cpuSecondsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}
