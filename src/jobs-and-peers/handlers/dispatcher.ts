/** Scheduler of handlers: channels with messages run in turn, and at most `concurrency` handlers run in parallel. */

import { oncePerTurn } from "../../foundation/runtime/index.js";
import { ConcurrencyLimit } from "./limits/concurrency-limit.js";

/** Time slice of a turn in ms, after which the event loop can process other events. */
export const timeSliceMs = 5;

/** Source of messages or requests that runs in turns. */
export interface SlicedWork {
  run(): void;
}

export class Dispatcher {
  readonly #woken = new Set<SlicedWork | ConcurrencyLimit>();
  #running = 0;
  readonly #runSoon: () => void;

  readonly #concurrency: number;

  /** @param soon makes of a task a function that runs it once, a moment later, however often it is called until then */
  constructor(concurrency: number, soon: (task: () => void) => () => void = oncePerTurn) {
    this.#concurrency = concurrency;
    this.#runSoon = soon(() => this.#run());
  }

  /** Schedules a run of a source, or of all waiters of a limit. */
  wake(turn: SlicedWork | ConcurrencyLimit): void {
    this.#woken.add(turn);
    if (this.free > 0) this.#runSoon();
  }

  /** True if a source waits for its turn. */
  get hasWoken(): boolean {
    return this.#woken.size > 0;
  }

  /** Number of further handlers that can start now. */
  get free(): number {
    return Math.max(0, this.#concurrency - this.#running);
  }

  /** Reserves a slot for one handler. @returns false if all slots are taken */
  takeSlot(): boolean {
    if (this.#running >= this.#concurrency) return false;
    this.#running += 1;
    return true;
  }

  /** Releases the slot of a handler that has ended. */
  freeSlot(): void {
    this.#running -= 1;
    if (this.#woken.size > 0 && this.free > 0) this.#runSoon();
  }

  #run(): void {
    const turns = [...this.#woken];
    this.#woken.clear();
    for (const turn of turns) {
      if (!(turn instanceof ConcurrencyLimit)) turn.run();
      else if (!turn.runWaiters(() => this.free > 0)) this.wake(turn);
    }
  }
}
