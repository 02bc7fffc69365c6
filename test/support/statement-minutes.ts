/**
 * Minutes in which no time passes but what the test lets pass, from timer to timer: for how many statements a process runs
 * while nothing happens. The speed of the machine does not count, as each statement is answered before the next timer fires.
 */
import pg from "pg";
import { onTestFinished, vi } from "vitest";

/** Turns of the event loop without a statement after which the work of a timer is done. */
const quietTurns = 5;

class Timer {
  real: NodeJS.Timeout | undefined;
  isRef = true;

  constructor(
    readonly callback: () => void,
    public at: number,
    readonly everyMs: number | undefined,
  ) {}

  ref = (): this => this.setRef(true);
  unref = (): this => this.setRef(false);
  hasRef = (): boolean => this.isRef;

  private setRef(isRef: boolean): this {
    this.isRef = isRef;
    if (isRef) this.real?.ref();
    else this.real?.unref();
    return this;
  }
}

/** Made before what it counts is started; disposed of before that is stopped. */
export class StatementMinutes implements Disposable {
  readonly #setReal = globalThis.setTimeout;
  readonly #clearReal = globalThis.clearTimeout;
  readonly #realNow = performance.now.bind(performance);
  readonly #timers = new Set<Timer>();
  /** Time by which this is ahead of the clock, while that goes on. */
  #aheadMs = 0;
  /** Time that stands still; undefined while it goes on. */
  #heldAt: number | undefined;
  #pending = 0;
  #statements = 0;

  constructor() {
    const { prototype } = pg.Client as unknown as {
      prototype: Record<"query" | "connect", (...args: unknown[]) => unknown>;
    };
    const set = (callback: (...args: unknown[]) => void, ms = 0, args: unknown[] = [], everyMs?: number): Timer =>
      this.#set(new Timer(() => callback(...args), this.#now + Math.max(1, ms), everyMs));
    const clear = (timer: unknown): void =>
      timer instanceof Timer ? this.#clear(timer) : this.#clearReal(timer as never);
    const spies = [
      vi.spyOn(performance, "now").mockImplementation(() => this.#now),
      vi
        .spyOn(globalThis, "setTimeout")
        .mockImplementation(((callback: () => void, ms?: number, ...args: unknown[]) =>
          set(callback, ms, args)) as never),
      vi
        .spyOn(globalThis, "setInterval")
        .mockImplementation(((callback: () => void, ms = 1, ...args: unknown[]) =>
          set(callback, ms, args, ms)) as never),
      vi.spyOn(globalThis, "clearTimeout").mockImplementation(clear),
      vi.spyOn(globalThis, "clearInterval").mockImplementation(clear),
      ...(["query", "connect"] as const).map((name) => {
        const real = prototype[name];
        const minutes = this;
        return vi.spyOn(prototype, name).mockImplementation(function (this: unknown, ...args: unknown[]) {
          if (name === "query") minutes.#statements += 1;
          return minutes.#followed(args, () => real.apply(this, args));
        });
      }),
    ];
    onTestFinished(() => {
      for (const spy of spies) spy.mockRestore();
      // The rest are of what outlives the test, as the pool of the files of a worker: the real clearTimeout() does not know them.
      for (const timer of this.#timers) this.#clear(timer);
    });
  }

  /** Lets a minute pass. @returns the number of statements that were run in it */
  async next(): Promise<number> {
    this.#hold();
    await this.#settled();
    this.#statements = 0;
    const until = this.#now + 60_000;
    for (;;) {
      let first: Timer | undefined;
      for (const timer of this.#timers) if (first === undefined || timer.at < first.at) first = timer;
      if (first === undefined || first.at > until) break;
      this.#heldAt = Math.max(this.#now, first.at);
      if (first.everyMs === undefined) this.#timers.delete(first);
      else first.at += Math.max(1, first.everyMs);
      first.callback();
      await this.#settled();
    }
    this.#heldAt = until;
    return this.#statements;
  }

  /** Lets time go on. */
  [Symbol.dispose](): void {
    if (this.#heldAt === undefined) return;
    this.#aheadMs = this.#heldAt - this.#realNow();
    this.#heldAt = undefined;
    for (const timer of this.#timers) this.#set(timer);
  }

  get #now(): number {
    return this.#heldAt ?? this.#realNow() + this.#aheadMs;
  }

  #hold(): void {
    if (this.#heldAt !== undefined) return;
    this.#heldAt = this.#now;
    for (const timer of this.#timers) this.#clearReal(timer.real);
  }

  #set(timer: Timer): Timer {
    this.#timers.add(timer);
    if (this.#heldAt !== undefined) return timer;
    const real = this.#setReal(() => {
      if (!this.#timers.delete(timer)) return;
      if (timer.everyMs !== undefined) {
        timer.at += timer.everyMs;
        this.#set(timer);
      }
      timer.callback();
    }, timer.at - this.#now);
    timer.real = timer.isRef ? real : real.unref();
    return timer;
  }

  #clear(timer: Timer): void {
    this.#timers.delete(timer);
    this.#clearReal(timer.real);
  }

  /** Counts a call as pending until it is answered. */
  #followed(args: unknown[], call: () => unknown): unknown {
    this.#pending += 1;
    let isPending = true;
    const end = (): void => {
      if (isPending) this.#pending -= 1;
      isPending = false;
    };
    const callback = args.at(-1);
    if (typeof callback === "function") {
      args[args.length - 1] = (...results: unknown[]) => {
        end();
        callback(...results);
      };
    }
    const result = call();
    if (result instanceof Promise) result.then(end, end);
    else if (typeof callback !== "function") end();
    return result;
  }

  /** Resolves when no statement is to be answered, and none follows. */
  async #settled(): Promise<void> {
    for (let turns = 0; turns < quietTurns; turns = this.#pending === 0 ? turns + 1 : 0)
      await new Promise((resolve) => setImmediate(resolve));
  }
}
