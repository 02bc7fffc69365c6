/** Times of the statements that a page sends, by its own connections. */
import { existsSync, readFileSync } from "node:fs";
import pg from "pg";
import { vi } from "vitest";

/** Sum of the statements of a window. */
export interface StatementTimes {
  readonly statements: number;
  /** From sending to the answer. */
  readonly ms: number;
  /** Processor time of the server processes, where the system says it; unlike `ms` it does not grow with what else the machine does. */
  readonly cpuMs: number | undefined;
}

/** Watches the statements of connections, of which it can be told that new ones do not count. */
export class StatementWatch implements Disposable {
  readonly #clients = new Set<pg.Client>();
  readonly #spy;
  /** Connections count that send their first statement while this is true; default: true. */
  isOpen = true;
  #statements = 0;
  #ms = 0;
  #cpuMs = 0;

  constructor() {
    const prototype = pg.Client.prototype as unknown as { query: (...args: unknown[]) => unknown };
    const { query } = prototype;
    const watch = this;
    this.#spy = vi.spyOn(prototype, "query").mockImplementation(function (this: unknown, ...args: unknown[]) {
      const end = watch.#begin(this as pg.Client);
      const callback = args.at(-1);
      if (typeof callback === "function") {
        args[args.length - 1] = (...results: unknown[]) => {
          end();
          callback(...results);
        };
      }
      const result = query.apply(this, args);
      if (result instanceof Promise) result.then(end, end);
      return result;
    });
  }

  /** Ends a window, and begins the next one. */
  next(): StatementTimes {
    const [statements, ms, cpuMs] = [this.#statements, this.#ms, this.#cpuMs];
    [this.#statements, this.#ms, this.#cpuMs] = [0, 0, 0];
    return { statements, ms, cpuMs: hasProcessTimes ? cpuMs : undefined };
  }

  [Symbol.dispose](): void {
    this.#spy.mockRestore();
  }

  #begin(client: pg.Client): () => void {
    if (this.isOpen) this.#clients.add(client);
    if (!this.#clients.has(client)) return () => undefined;
    const { processID } = client as unknown as { readonly processID: number };
    const [begunAt, cpuAt] = [performance.now(), processMs(processID)];
    return () => {
      this.#statements += 1;
      this.#ms += performance.now() - begunAt;
      this.#cpuMs += processMs(processID) - cpuAt;
    };
  }
}

const hasProcessTimes = existsSync("/proc/self/schedstat");

/** Processor time that a process of this machine has taken. */
function processMs(pid: number): number {
  const path = `/proc/${pid}/schedstat`;
  return existsSync(path) ? Number(readFileSync(path, "utf8").split(" ")[0]) / 1e6 : 0;
}
