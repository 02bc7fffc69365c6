/**
 * Watch of a worker of the queue that has nothing to take: those who enqueue notify it. Transactions that were open when it
 * began may not, so it polls until they have ended; then the worker's beats tell of what no notification told.
 */
import type { Clock } from "../../../foundation/runtime/index.js";
import { type Answer, type Given, ignoredReply, type StatementName, type TermStatements } from "./statements.js";

/** Intervals of polls while transactions are open that may not notify. */
const leastPollMs = 10;
const slowPollMs = 1_000;
/** Interval of polls on a server with prepared transactions, which cannot notify. */
const unnotifiedPollMs = 20;

export class EnqueueWatch {
  readonly #statements: TermStatements;
  readonly #clock: Clock;
  readonly #look: () => void;
  /** Topics of which those who enqueue notify; undefined while they do not. */
  #topics: readonly string[] | undefined;
  #cancelPoll: (() => void) | undefined;

  /** @param look looks at all messages */
  constructor(statements: TermStatements, clock: Clock, look: () => void) {
    this.#statements = statements;
    this.#clock = clock;
    this.#look = look;
  }

  /** True while those who enqueue notify. */
  get isOn(): boolean {
    return this.#topics !== undefined;
  }

  begin(ofTopics: readonly string[]): void {
    const topics = [...ofTopics];
    this.#topics = topics;
    this.#ask("waitFor", [topics], ({ waits, horizon }) => {
      this.#look();
      this.#pollAfter(leastPollMs, waits ? horizon : undefined);
    });
  }

  end(): void {
    const topics = this.#topics;
    if (topics === undefined) return;
    this.#topics = undefined;
    this.#cancelPoll?.();
    const { session } = this.#statements;
    if (session.isUp) session.send("stopWaiting", [topics], ignoredReply);
  }

  /** @param horizon transactions below it may not notify; undefined if none does */
  #pollAfter(ms: number, horizon: bigint | undefined): void {
    this.#cancelPoll = this.#clock.setTimeout(() => {
      this.#look();
      if (horizon === undefined) return this.#pollAfter(unnotifiedPollMs, undefined);
      this.#ask("hasPassed", [horizon], (hasPassed) => {
        if (hasPassed) this.#look();
        else this.#pollAfter(Math.min(ms * 2, slowPollMs), horizon);
      });
    }, ms);
  }

  /** The answer counts only while the watch goes on. */
  #ask<Name extends StatementName>(name: Name, given: Given<Name>, onAnswer: (answer: Answer<Name>) => void): void {
    const topics = this.#topics;
    this.#statements.send(name, given, (answer) => {
      if (topics === this.#topics) onAnswer(answer);
    });
  }
}
