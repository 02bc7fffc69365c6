/**
 * Poll intervals of a relay, which sleeps and wakes. It has no clock of its own.
 *
 * An idle relay sleeps: it polls when an enqueueing transaction notifies it, once per transaction. After several
 * successful polls in a row it wakes: it polls every few milliseconds and asks for no notifications, because commits
 * with NOTIFY serialise. When nothing was found for a while, it falls asleep again. Transactions that started before
 * that moment do not notify. So the poll interval grows with the time asleep, up to a limit: a message of such a
 * transaction is found after a delay that is proportional to the transaction's duration. Once all transactions that
 * were open when it fell asleep have ended, every transaction notifies, and the relay polls rarely.
 */

import { outboxConstants } from "../../../generated/ts/settings/outbox.js";

/** Settings of {@link PollPace} by default. */
export const paceDefaults = {
  /** Maximum poll interval while a transaction is open that may have been told not to notify. */
  slowPollMs: outboxConstants.slowPollMs as number,
  /** Interval between polls of a relay for new messages while some arrive. */
  pollMs: 1,
  /** Poll interval after a poll that found at least `manyMessages`: each poll takes processor time from enqueueing transactions. */
  manyPollMs: 3,
  /** See `manyPollMs`. */
  manyMessages: 4,
  /**
   * Maximum poll interval when every enqueueing transaction notifies the relay. If the relay's backend stands
   * still, it receives none: this interval and the time limit of a poll together are less than 10 seconds.
   */
  idlePollMs: 4_000,
  /** Maximum poll interval on a server with prepared transactions, which cannot notify. */
  unnotifiedPollMs: 20,
  /** Time without a message after which the relay asks for notifications and polls less and less often. */
  awakeMs: 30,
  /**
   * Number of successful polls, each within `awakeMs` of the previous one, after which the relay polls every `pollMs`
   * without notifications.
   */
  busyPolls: 4,
  /** Maximum time that a relay waits for a due message without asking Postgres again, whose clock may be changed. */
  dueCheckMs: 10_000,
};

/** Settings of {@link PollPace}. */
export interface PaceSettings extends Readonly<typeof paceDefaults> {
  /** True if enqueueing transactions can notify. They are asked to while the relay sleeps. */
  readonly canBeNotified: boolean;
}

/** Lower bounds of the due times of scheduled messages, by role, in ms of the Postgres clock. Other roles have none. */
export type DueTimes = ReadonlyMap<string, number>;

/** Scheduled messages, as of a turn. */
export interface DueFound {
  /** Number of due messages moved to the outbox. */
  readonly moved: number;
  /**
   * Due times of the scheduled messages that the poll has found and, if due messages were moved, of those that remain.
   * `inMs` is the delay until the earliest one.
   */
  readonly next: { readonly from: DueTimes; readonly inMs: number } | undefined;
}

export class PollPace {
  readonly #settings: PaceSettings;
  #foundAt = Number.NEGATIVE_INFINITY;
  /** Number of successful polls, each within `awakeMs` of the previous one. */
  #finds = 0;
  #polledAt = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;
  #wasNotified = true;
  #isQuiet = false;
  /** Start of the current period without successful polls. */
  #quietAt = 0;
  /** State last announced to enqueueing transactions; undefined if unknown. */
  #isAsleep: boolean | undefined;
  /** Lowest id of transactions that certainly notify; undefined if not known yet. */
  #notifiesFrom: bigint | undefined;
  /** Due times of the known scheduled messages; `at` is the earliest one by the local clock. Undefined if none is known. */
  #due: { readonly from: DueTimes; readonly at: number } | undefined;

  /** @param isAsleep state announced by the previous relay; undefined if unknown */
  constructor(settings: PaceSettings, isAsleep: boolean | undefined) {
    this.#settings = settings;
    this.#isAsleep = isAsleep;
  }

  /** Time of the next poll or of the next move of due messages. */
  get at(): number {
    return Math.min(this.pollAt, this.dueAt);
  }

  /** Time of the next poll. */
  get pollAt(): number {
    return this.#wasNotified ? Number.NEGATIVE_INFINITY : this.#polledAt + this.#pauseMs;
  }

  /** Time at which due messages are moved. */
  get dueAt(): number {
    return this.#due?.at ?? Number.POSITIVE_INFINITY;
  }

  /** Makes the next poll due at once: a message was enqueued, or more are left. */
  notified(): void {
    this.#wasNotified = true;
  }

  /**
   * Starts a poll. The returned state must be written before the poll reads: a transaction that does not see the new
   * state is then seen by this poll or by a later one.
   *
   * @returns true if enqueueing transactions must notify from now on; undefined if unchanged
   */
  startPoll(now: number): boolean | undefined {
    const { awakeMs, busyPolls, canBeNotified } = this.#settings;
    this.#wasNotified = false;
    this.#polledAt = now;
    const isQuiet = this.#finds < busyPolls || now - this.#foundAt >= awakeMs;
    if (isQuiet && !this.#isQuiet) this.#quietAt = now;
    this.#isQuiet = isQuiet;
    const isAsleep = this.#isQuiet && canBeNotified;
    const asleep = isAsleep === this.#isAsleep ? undefined : isAsleep;
    this.#isAsleep = isAsleep;
    if (asleep !== undefined) this.#notifiesFrom = undefined;
    return asleep;
  }

  /**
   * Ends a poll.
   *
   * @param found number of messages found
   * @param snapshot snapshot of the poll, as `xmin:xmax:xip,…`
   */
  endPoll(now: number, found: number, snapshot: string): void {
    const { slowPollMs, idlePollMs, unnotifiedPollMs, canBeNotified } = this.#settings;
    const { awakeMs, manyMessages, manyPollMs } = this.#settings;
    const pollMs = found < manyMessages ? this.#settings.pollMs : manyPollMs;
    if (found > 0) {
      this.#finds = now - this.#foundAt < awakeMs ? this.#finds + 1 : 1;
      this.#foundAt = now;
    }
    this.#pauseMs = pollMs;
    if (!this.#isQuiet) return;
    const [oldestOpen, next] = snapshot.split(":", 2).map(BigInt) as [bigint, bigint];
    this.#notifiesFrom ??= next;
    const notifiedMs = oldestOpen >= this.#notifiesFrom ? idlePollMs : slowPollMs;
    const mostMs = canBeNotified ? notifiedMs : unnotifiedPollMs;
    this.#pauseMs = Math.max(pollMs, Math.min(mostMs, now - this.#quietAt));
  }

  /** Due times from which the next turn must move messages; undefined if none is due. */
  dueFrom(now: number): DueTimes | undefined {
    return this.dueAt <= now ? this.#due?.from : undefined;
  }

  /**
   * Records the scheduled messages of a turn.
   *
   * @param asked result of {@link dueFrom} for this turn
   */
  endDue(now: number, asked: DueTimes | undefined, { moved, next }: DueFound): void {
    if (moved > 0) this.#wasNotified = true;
    // The turn has moved all known due messages, and reports the remaining ones.
    const known = asked === undefined ? this.#due : undefined;
    if (next === undefined) this.#due = known;
    else {
      const at = now + Math.min(next.inMs, this.#settings.dueCheckMs);
      const times = known === undefined ? next.from : earliest([...known.from, ...next.from]);
      this.#due = { from: times, at: Math.min(known?.at ?? at, at) };
    }
  }
}

/** Returns the earliest time of each role. */
export function earliest(times: Iterable<readonly [role: string, ms: number]>): DueTimes {
  const all = new Map<string, number>();
  for (const [role, ms] of times) all.set(role, Math.min(all.get(role) ?? ms, ms));
  return all;
}
