/**
 * The pace at which a relay looks for new messages, and sleeps and wakes. It has no clock of its own.
 *
 * Asleep, a relay looks when those who enqueue notify it: once for each transaction, where few come. When some looks in a row
 * have found something it wakes: it looks every few milliseconds, and nobody notifies it, because commits that notify wait for each
 * other. When nothing was found for a while it sleeps, and a pause is as long as it has slept, up to a limit: who enqueued
 * before that was told to notify nobody, and is found after a time that grows no faster than the one that the transaction takes.
 * When all transactions have ended that were open as it fell asleep, everybody notifies it, and it looks only now and then.
 */

import type { OutboxConstants } from "../../generated/ts/settings/outbox.js";

/** Pauses of {@link LookPace}. */
export interface PaceSettings
  extends Pick<
    OutboxConstants,
    | "lookMs"
    | "manyLookMs"
    | "manyMessages"
    | "slowLookMs"
    | "idleLookMs"
    | "unnotifiedLookMs"
    | "awakeMs"
    | "busyLooks"
    | "dueCheckMs"
  > {
  /** Those who enqueue can notify: they are asked to while it is quiet. */
  readonly canBeNotified: boolean;
}

/** The messages of a later time, as a turn has seen them. */
export interface DueFound {
  /** How many messages were brought in. */
  readonly brought: number;
  /**
   * When the first one is due that the look has found, and, if due ones were brought in, of those that are left: of the clock
   * of Postgres, and in how many milliseconds.
   */
  readonly next: { readonly from: number; readonly inMs: number } | undefined;
}

export class LookPace {
  readonly #settings: PaceSettings;
  #foundAt = Number.NEGATIVE_INFINITY;
  /** Looks that have found something, each less than `awakeMs` after the one before. */
  #finds = 0;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;
  #wasNotified = true;
  #isQuiet = false;
  /** When it became quiet. */
  #quietAt = 0;
  /** What those who enqueue were last told; undefined: not known. */
  #isAsleep: boolean | undefined;
  /** The transactions that may have been told to notify nobody are older than this one; undefined: not known yet. */
  #notifiesFrom: bigint | undefined;
  /** No known message is due before `from`, of the clock of Postgres, and here not before `at`; undefined: none is known. */
  #due: { readonly from: number; readonly at: number } | undefined;

  /** @param isAsleep what those who enqueue were told by the relay before; undefined: not known */
  constructor(settings: PaceSettings, isAsleep: boolean | undefined) {
    this.#settings = settings;
    this.#isAsleep = isAsleep;
  }

  /** When the next look begins, or due messages are brought in. */
  get at(): number {
    return Math.min(this.lookAt, this.dueAt);
  }

  /** When the next look begins. */
  get lookAt(): number {
    return this.#wasNotified ? Number.NEGATIVE_INFINITY : this.#lookedAt + this.#pauseMs;
  }

  /** When due messages are brought in. */
  get dueAt(): number {
    return this.#due?.at ?? Number.POSITIVE_INFINITY;
  }

  /** Looks at once: somebody has enqueued, or there is more. */
  notified(): void {
    this.#wasNotified = true;
  }

  /**
   * Begins a look. What it tells those who enqueue has to come before what it reads: who has not seen that is seen by this
   * look, or by one of the next.
   *
   * @returns whether those who enqueue have to notify from now on; undefined: as before
   */
  beginLook(now: number): boolean | undefined {
    const { awakeMs, busyLooks, canBeNotified } = this.#settings;
    this.#wasNotified = false;
    this.#lookedAt = now;
    const isQuiet = this.#finds < busyLooks || now - this.#foundAt >= awakeMs;
    if (isQuiet && !this.#isQuiet) this.#quietAt = now;
    this.#isQuiet = isQuiet;
    const isAsleep = this.#isQuiet && canBeNotified;
    const asleep = isAsleep === this.#isAsleep ? undefined : isAsleep;
    this.#isAsleep = isAsleep;
    if (asleep !== undefined) this.#notifiesFrom = undefined;
    return asleep;
  }

  /**
   * Ends the look.
   *
   * @param found how many messages it has found
   * @param snapshot what it has read, as `xmin:xmax:xip,…`
   */
  endLook(now: number, found: number, snapshot: string): void {
    const { slowLookMs, idleLookMs, unnotifiedLookMs, canBeNotified } = this.#settings;
    const { awakeMs, manyMessages, manyLookMs } = this.#settings;
    const lookMs = found < manyMessages ? this.#settings.lookMs : manyLookMs;
    if (found > 0) {
      this.#finds = now - this.#foundAt < awakeMs ? this.#finds + 1 : 1;
      this.#foundAt = now;
    }
    this.#pauseMs = lookMs;
    if (!this.#isQuiet) return;
    const [oldestOpen, next] = snapshot.split(":", 2).map(BigInt) as [bigint, bigint];
    this.#notifiesFrom ??= next;
    const notifiedMs = oldestOpen >= this.#notifiesFrom ? idleLookMs : slowLookMs;
    const mostMs = canBeNotified ? notifiedMs : unnotifiedLookMs;
    this.#pauseMs = Math.max(lookMs, Math.min(mostMs, now - this.#quietAt));
  }

  /** The time, of the clock of Postgres, from which on messages may be due that a turn is to bring in now; undefined: none. */
  dueFrom(now: number): number | undefined {
    return this.dueAt <= now ? this.#due?.from : undefined;
  }

  /**
   * A turn has brought in what was due, or its look has found messages that are due later.
   *
   * @param asked what {@link dueFrom} was for this turn
   */
  endDue(now: number, asked: number | undefined, { brought, next }: DueFound): void {
    if (brought > 0) this.#wasNotified = true;
    // All that were known have been brought in, except for those that it tells of.
    const known = asked === undefined ? this.#due : undefined;
    if (next === undefined) this.#due = known;
    else {
      const at = now + Math.min(next.inMs, this.#settings.dueCheckMs);
      this.#due = { from: Math.min(known?.from ?? next.from, next.from), at: Math.min(known?.at ?? at, at) };
    }
  }
}
