/**
 * Beats of a worker of the queue: it says that it goes on, one statement at a time. The answer tells what has changed: notifications
 * may be lost, and anybody can send them, so they only bring the next beat forward.
 */
import { DeadlineTimer } from "../../../foundation/runtime/index.js";
import { polls } from "../../handlers/polls.js";
import type { WorkerEffects } from "./effects.js";
import type { Answer, TermStatements } from "./statements.js";

/** Minimum number of beats of a worker within the time after which it counts as gone. */
const beatsPerLease = 4;
/** Least time until it looks whether another worker goes on: with what a statement has said of its lease, and with a notification. */
const [leastLookMs, leastLeaseMs] = [100, 1_000];

/** Answer to a beat. */
export type Beat = Answer<"extend">;

/** Part of a term that the beats need. */
export interface BeatingTerm {
  /**
   * `isWatching`: true while those who enqueue notify: the worker looks for messages of which no notification told. `isUnderWay`: true
   * while a take is not answered.
   */
  readonly takes: { readonly isWatching: boolean; readonly isUnderWay: boolean };
  /** True if the worker has neither messages nor rows to end. */
  readonly isIdle: boolean;
  /** Topics that the worker says that it serves. */
  readonly served: readonly string[];
  /** Report of the handlers that run. Null: none runs. */
  readonly running: string | null;
  /**
   * Follows the answer to a beat.
   *
   * @param asked topics that the worker served when it asked
   * @param settingsChanged true if settings of topics had changed before
   */
  follow(beat: Beat, asked: readonly string[], settingsChanged: boolean): void;
}

export class Beats {
  /** True for one worker of the database, which reports what all share. */
  isFirst = false;
  #isUnderWay = false;
  /** True if the next beat follows when the one under way is answered: it may not tell what has happened since. */
  #isAskedAgain = false;
  /** True if settings of topics have changed since the last beat. */
  #settingsChanged = false;
  /** True if others know that the worker has no messages. What it takes ends that. */
  #isResting = false;
  /** True if a take was under way at the last beat, or has been answered since. */
  #hasTaken = true;
  readonly #timer: DeadlineTimer;
  readonly #term: BeatingTerm;
  readonly #statements: TermStatements;
  readonly #effects: WorkerEffects;
  /** Interval while the worker has messages. */
  readonly #intervalMs: number;

  constructor(term: BeatingTerm, statements: TermStatements, effects: WorkerEffects) {
    this.#term = term;
    this.#statements = statements;
    this.#effects = effects;
    this.#intervalMs = Math.min(effects.leaseMs / beatsPerLease, polls.everyMs);
    this.#timer = new DeadlineTimer(() => this.now(), effects.clock);
  }

  /** Interval of the next beats. */
  get everyMs(): number {
    return this.#isResting ? (this.#effects.idleBeatMs ?? this.#intervalMs) : this.#intervalMs;
  }

  /** Beats now, for what the answer tells. */
  now(): void {
    if (this.#isUnderWay) this.#isAskedAgain = true;
    else this.#send();
  }

  /** Beats now, as settings of topics have changed. */
  settingsChanged(): void {
    this.#settingsChanged = true;
    this.now();
  }

  /** Beats when the lease of another worker ends, in so many ms: if that worker has sent no beat by then, this beat ends it. */
  othersLease(leaseMs: number): void {
    this.#in(Math.max(leaseMs, leastLeaseMs));
  }

  /** Also of an idle worker: what it was woken for may be another one's, or due later. */
  onTaken(hasMessages: boolean): void {
    this.#hasTaken = true;
    if (hasMessages) this.#isResting = false;
    this.#in(this.#intervalMs);
  }

  stop(): void {
    this.#timer.stop();
  }

  /** Beats in so many ms, or sooner. */
  #in(ms: number): void {
    this.#timer.arm(this.#effects.clock.now() + ms);
  }

  #send(): void {
    const term = this.#term;
    const { served } = term;
    const settingsChanged = this.#settingsChanged;
    this.#isUnderWay = true;
    this.#isAskedAgain = this.#settingsChanged = false;
    this.#timer.stop();
    this.#rest();
    const { worker } = this.#statements;
    this.#statements.send("extend", [worker, term.takes.isWatching, term.running], (beat) => {
      this.#isUnderWay = false;
      this.isFirst = beat.isFirst;
      term.follow(beat, served, settingsChanged);
      if (this.#isAskedAgain) return this.now();
      this.#in(this.everyMs);
      if (beat.leaseEndsInMs !== null) this.#in(Math.max(Number(beat.leaseEndsInMs), leastLookMs));
    });
  }

  /** Tells others that the worker has no messages, if it had none since the last beat: it needs no lease then. */
  #rest(): void {
    const hadTaken = this.#hasTaken;
    const { takes, isIdle } = this.#term;
    this.#hasTaken = takes.isUnderWay;
    const mayRest = this.#effects.idleBeatMs !== undefined && !this.#isResting;
    if (!mayRest || hadTaken || takes.isUnderWay || !isIdle) return;
    this.#isResting = true;
    this.#statements.send("rest", [this.#statements.worker]);
  }
}
