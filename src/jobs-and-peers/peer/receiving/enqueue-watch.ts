/**
 * Watch of a worker of the queue that has nothing to take: those who enqueue notify it. Transactions that were open when it
 * began may not, so it polls until they have ended; then the worker's beats tell of what no notification told.
 */
import type { HandlingContext } from "../../handlers/handling-context.js";

/** Intervals of polls while transactions are open that may not notify. */
const leastPollMs = 10;
const slowPollMs = 1_000;
/** Interval of polls on a server with prepared transactions, which cannot notify. */
const unnotifiedPollMs = 20;

interface Watcher {
  readonly queue: HandlingContext["store"]["queue"];
  /** Looks at all messages. */
  look(): void;
  /** Calls `onAnswer` if the worker goes on then. */
  onAnswer<Answer>(query: Promise<Answer>, onAnswer: (answer: Answer) => void): void;
}

export class EnqueueWatch {
  readonly #watcher: Watcher;
  /** Topics of which those who enqueue notify; undefined while they do not. */
  #topics: readonly string[] | undefined;
  #poll: NodeJS.Timeout | undefined;

  constructor(watcher: Watcher) {
    this.#watcher = watcher;
  }

  /** True while those who enqueue notify. */
  get isOn(): boolean {
    return this.#topics !== undefined;
  }

  begin(ofTopics: readonly string[]): void {
    const topics = [...ofTopics];
    this.#topics = topics;
    this.#ask(this.#watcher.queue.waitFor(topics), ({ waits, horizon }) => {
      this.#watcher.look();
      this.#pollAfter(leastPollMs, waits ? horizon : undefined);
    });
  }

  end(): void {
    const topics = this.#topics;
    if (topics === undefined) return;
    this.#topics = undefined;
    clearTimeout(this.#poll);
    const { queue } = this.#watcher;
    if (queue.isUp) queue.stopWaiting(topics).catch(() => undefined);
  }

  /** @param horizon transactions below it may not notify; undefined if none does */
  #pollAfter(ms: number, horizon: bigint | undefined): void {
    const { queue, look } = this.#watcher;
    this.#poll = setTimeout(() => {
      look();
      if (horizon === undefined) return this.#pollAfter(unnotifiedPollMs, undefined);
      this.#ask(queue.hasPassed(horizon), (hasPassed) => {
        if (hasPassed) look();
        else this.#pollAfter(Math.min(ms * 2, slowPollMs), horizon);
      });
    }, ms);
  }

  /** The answer counts only while the watch goes on. */
  #ask<Answer>(query: Promise<Answer>, onAnswer: (answer: Answer) => void): void {
    const topics = this.#topics;
    this.#watcher.onAnswer(query, (answer) => {
      if (topics === this.#topics) onAnswer(answer);
    });
  }
}
