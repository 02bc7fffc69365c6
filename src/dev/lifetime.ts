/**
 * The time of a stack from the start of its servers to their end.
 */
import type { Guard } from "./guard.js";
import { giveUp, type RunDirectory } from "./run-directory.js";
import type { ServerProcess } from "./server-process.js";

/** How the servers are to stop. */
export interface StopOptions {
  /** Without ending their work in order: Postgres recovers at its next start. Default false. */
  readonly immediately?: boolean | undefined;
}

/** Watches the servers while they run and ends them together. */
export class Lifetime {
  /** Resolves when everything has stopped; rejects with `dev_server_failed` if a server ends by itself. */
  readonly closed: Promise<void>;
  #stopping: Promise<void> | undefined;
  #close!: () => void;

  constructor(
    readonly processes: readonly ServerProcess[],
    readonly directory: RunDirectory | undefined,
    readonly guard: Guard | undefined,
  ) {
    this.closed = new Promise<void>((resolve, reject) => {
      this.#close = resolve;
      for (const each of processes) {
        void each.ended.then(() => {
          if (this.#stopping === undefined) reject(each.endedEarly());
        });
      }
    });
    // Not everybody asks; a failure that nobody asks about must not end the process.
    this.closed.catch(() => undefined);
  }

  /** Stops the servers, then the directory and the watchdog go. A further call can only hurry the first one. */
  stop({ immediately = false }: StopOptions = {}): Promise<void> {
    const ending = this.processes.map((each) => each.stop({ immediately }));
    this.#stopping ??= Promise.all(ending).then(() => this.#clearUp());
    return this.#stopping;
  }

  async #clearUp(): Promise<void> {
    if (this.directory !== undefined) giveUp(this.directory);
    // Last: until here it would do what we may not come to.
    await this.guard?.release();
    this.#close();
  }
}
