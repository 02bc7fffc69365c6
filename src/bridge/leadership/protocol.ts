/**
 * Which of several processes leads.
 *
 *     waiting ──free, or silent for `leaderExpiryMs`: the row is taken──▶ taking ──the fence is raised──▶ leading
 *        ▲  ▲                                                             │                               │
 *        │  └──────────────another one has taken the row──────────────────┴───────────────────────────────┘
 *     on a standby everybody waits                                          ended: leadership is given back
 *
 * A leader that cannot reach Postgres does not know whether it still leads. For `leaderExpiryMs` it remains the leader,
 * unconfirmed: its batches cannot run, and when Postgres is back, the fence decides. After that another process may lead: it
 * is silent, and keeps what it has, like those that wait. If the row is still its own when Postgres is back, it goes on.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { Owner, type Ownership, type OwnershipState } from "../../postgres/index.js";
import { type Clock, delay, type Logger } from "../../runtime/index.js";
import {
  doneBefore,
  KnownProgress,
  type LeaderProgress,
  serverTimeAtLeast,
  serverTimeAtMost,
  surelyBefore,
} from "./progress.js";
import type { ClockSample, LeadershipRow, LeadershipTable, Progress, Raised } from "./table.js";

/** Events of the protocol. Their handlers must not throw. */
export interface LeadershipEvents {
  /**
   * This process leads from now on: it runs what it has kept, and then what it receives.
   *
   * @param afterCleanEnd the previous leader has stopped gracefully
   */
  onLeading(epoch: bigint, options: { readonly afterCleanEnd: boolean }): void;
  /** This process leads no longer: batches of its epoch are refused. */
  onDeposed(reason: string): void;
  /** Another process leads. Called once for each epoch. */
  onWaiting(epoch: bigint): void;
  /**
   * While another process leads, after each reading: what that one has done; undefined: not known.
   */
  onProgress(progress: LeaderProgress | undefined): void;
  /** Postgres did not answer, or answered with an error. The protocol tries again. */
  onProblem(cause: unknown): void;
}

/** Times at which messages were received that are not done yet. */
export interface Unfinished {
  /** Time of the oldest message, except those of the subscriptions in {@link behind}; undefined: all are done. */
  readonly oldestAt: number | undefined;
  /** Time of the oldest message of each subscription that stands still, by its number. */
  readonly behind: ReadonlyMap<bigint, number>;
}

/** Messages that this process has received and done, by its clock. */
export interface LeadershipMessages {
  /** Messages that are not done yet. */
  unfinished(): Unfinished;
  /** Time since which this process keeps everything that the leader may not have done. */
  completeSince(): number;
  /** Time since which this process has received everything. */
  receivedSince(): number;
  /** Time until which this process received everything; undefined: it still does. */
  receivedUntil(): number | undefined;
  /** True if this process receives now. A process that does not receive does not lead. */
  isReceiving(): boolean;
  /** True if this process can call functions, as far as it knows. One that cannot lets all others go first. */
  canRun(): boolean;
}

const { leaderHeartbeatMs, leaderExpiryMs, leaderCourtesyHeartbeats, leaderTrustedHeartbeats } = bridgeConstants;

/** Collaborators and limits of the protocol. */
export interface LeadershipProtocolOptions {
  readonly table: LeadershipTable;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The random id of this process, by which the table knows it. */
  readonly owner: string;
  readonly messages: LeadershipMessages;
  readonly events: LeadershipEvents;
}

const nothingKnown: Progress = {
  progressAt: undefined,
  behind: new Map(),
  completeSince: undefined,
  completeUntil: undefined,
};

/** Messages that other processes have of those that this one keeps. */
export interface OthersHave {
  /** Another process runs what was received before this: Infinity where one leads, -Infinity where none does. */
  readonly until: number;
  /** True if the last leader has stopped gracefully. */
  readonly afterCleanEnd: boolean;
}

const someoneLeads: OthersHave = { until: Number.POSITIVE_INFINITY, afterCleanEnd: false };
const nobodyLeads: OthersHave = { until: Number.NEGATIVE_INFINITY, afterCleanEnd: false };

export class LeadershipProtocol implements Ownership {
  protected readonly options: LeadershipProtocolOptions;
  protected watch = new LeaderWatch(leaderExpiryMs);
  protected known = new KnownProgress();
  #hasEnded = false;
  /** As leader, also while it is silent. */
  #leading: Owner<bigint> | undefined;
  /** Postgres has not confirmed it for so long that another process may lead. */
  #isSilent = false;
  /** The epoch in which it may have taken the row, and does not lead yet. */
  #taking: bigint | undefined;
  /** The last attempt to take the row, while this process does not lead: the leader before has ended in good order. */
  #takesAfterCleanEnd = false;
  /** Of the present session; maps its times to the server's. */
  #sample: ClockSample | undefined;
  /** Another process has led since this one began. */
  #hasSeenLeader = false;
  /** The last epoch that onWaiting was called for. */
  #toldWaiting: bigint | undefined;
  #turn: Promise<void> | undefined;
  #isPoked = false;
  #cancelTimer: () => void = () => undefined;

  constructor(options: LeadershipProtocolOptions) {
    this.options = options;
  }

  /** The epoch in which this process leads. */
  get epoch(): bigint | undefined {
    return this.#isSilent ? undefined : this.#leading?.epoch;
  }

  /** `suspended`: Postgres has not said that it still leads since the session was lost, or for too long. */
  get state(): OwnershipState {
    if (this.#hasEnded) return "released";
    return this.#leading?.state ?? "waiting";
  }

  get isWritable(): boolean {
    return this.epoch !== undefined;
  }

  /** Reads the row now, and from then on. Resolves when it leads, or knows that it does not; does not reject. */
  start(): Promise<void> {
    return this.#run();
  }

  /** Something may have changed: reads the row at once. */
  poke(): void {
    this.#isPoked = true;
    if (this.#turn === undefined) this.#later(0);
  }

  /** The session was lost: the server may have stood still, or may be another one. */
  sessionLost(): void {
    this.#leading?.enter("suspended");
    this.#sample = undefined;
    this.watch.restart();
    this.known.forget();
    if (this.#leading === undefined) this.options.events.onProgress(undefined);
  }

  /** Gives leadership back and goes on reading the row: another process may have received what this one has not. */
  async stepDown(reason: string): Promise<void> {
    if (this.#leading === undefined) return;
    const { epoch } = this.#leading;
    const progress = this.progress();
    this.#depose(reason);
    await this.#giveBack(epoch, progress);
    this.poke();
  }

  /** Ends it. Leadership, if it is ours, is given back, so that another process takes it at once. */
  async release(): Promise<void> {
    this.#hasEnded = true;
    this.#cancelTimer();
    await this.#turn;
    const epoch = this.#leading?.epoch ?? this.#taking;
    if (epoch === undefined) return;
    const progress = this.#leading === undefined ? nothingKnown : this.progress();
    this.#leading = undefined;
    await this.#giveBack(epoch, progress);
  }

  /**
   * Whether another process runs what this one has kept while it waited. For a process that ends: it receives nothing any more,
   * and stops reading the row by itself.
   *
   * Takes until two new heartbeats of the leader were seen, because the first may have been on its way before, or as long as
   * others would wait for the leader. Does not reject: where the time is over before, what was known before counts.
   */
  async othersHave(signal: AbortSignal): Promise<OthersHave> {
    const { table, clock, owner, events } = this.options;
    this.#hasEnded = true;
    this.#cancelTimer();
    await this.#turn;
    const asked = clock.now();
    let epoch: bigint | undefined;
    const heartbeats = new Set<bigint>();
    while (!signal.aborted) {
      try {
        const { row, clock: sample, isStandby } = await table.read();
        if (isStandby === true) return someoneLeads;
        this.#saw(row, sample);
        if (row.owner === undefined) return { until: Number.NEGATIVE_INFINITY, afterCleanEnd: true };
        // Its own, from an attempt that did not end.
        if (row.owner === owner) return { ...nobodyLeads, afterCleanEnd: this.#takesAfterCleanEnd };
        if (this.watch.unchangedMs >= leaderExpiryMs) return nobodyLeads;
        if (row.epoch !== epoch) heartbeats.clear();
        epoch = row.epoch;
        // Before its first heartbeat it is not known since when it receives.
        if (row.beat > 0n) heartbeats.add(row.beat);
        if (heartbeats.size > leaderTrustedHeartbeats) {
          const { completeUntil } = row;
          return completeUntil === undefined
            ? someoneLeads
            : { until: surelyBefore(sample, completeUntil), afterCleanEnd: false };
        }
      } catch (cause) {
        events.onProblem(cause);
        if (clock.now() - asked > leaderExpiryMs) break;
      }
      await delay(leaderHeartbeatMs / 10, undefined, clock);
    }
    return this.#hasSeenLeader ? someoneLeads : nobodyLeads;
  }

  /** What was received before is done, by the server's clock. */
  protected progressAt(sample: ClockSample, oldestAt: number): number {
    return serverTimeAtLeast(sample, oldestAt);
  }

  /** What the others are told. */
  protected progress(): Progress {
    // While it is silent it does nothing, and has everything that it has not done.
    const sample = this.#isSilent ? undefined : this.#sample;
    if (sample === undefined) return nothingKnown;
    const { clock, messages } = this.options;
    // Read the clock first: what is received after this moment is not done.
    const now = clock.now();
    const { oldestAt, behind } = messages.unfinished();
    const receivedUntil = messages.receivedUntil();
    return {
      progressAt: this.progressAt(sample, oldestAt ?? now),
      behind: new Map([...behind].map(([id, at]) => [id, this.progressAt(sample, at)])),
      completeSince: serverTimeAtMost(sample, messages.receivedSince()),
      completeUntil: receivedUntil === undefined ? undefined : serverTimeAtLeast(sample, receivedUntil),
    };
  }

  /** How long a row must be unchanged before it may be taken. */
  protected quietMs(row: LeadershipRow, allDoneBefore: number | undefined): number {
    const { owner, messages } = this.options;
    // Our own, from an attempt whose answer was lost; or one that is being given back because functions cannot be called.
    if (row.owner === owner && messages.canRun()) return 0;
    const forLeaderMs = row.owner === undefined ? 0 : leaderExpiryMs;
    // A process that lacks messages that are not done lets others go first that lack fewer. Those may have seen the last
    // heartbeat a whole interval later, so it waits up to two. The factor is large, because processes that are equally good
    // lack little. A process that has just started has received the least: an older one takes what was given back.
    if (!this.#hasSeenLeader) return row.owner === undefined && row.epoch > 0n ? leaderHeartbeatMs : forLeaderMs;
    const lackedMs = allDoneBefore === undefined ? leaderHeartbeatMs : messages.completeSince() - allDoneBefore;
    const courtesyMs = Math.max(0, 10 * lackedMs);
    if (row.owner !== undefined)
      return forLeaderMs + Math.min(leaderCourtesyHeartbeats * leaderHeartbeatMs, courtesyMs);
    // Given back, perhaps because all of them lost NATS: the process that received first again goes first.
    const lateMs = Math.min(leaderExpiryMs, Math.max(0, messages.completeSince() - this.watch.firstSeenAt));
    return Math.min(leaderHeartbeatMs + lateMs, courtesyMs);
  }

  /** For how much longer than `quietMs` that is: a process that cannot call functions leads only if no other one does. */
  protected get reluctanceMs(): number {
    return this.options.messages.canRun() ? 0 : leaderExpiryMs;
  }

  /** Raises the fence. @returns undefined if another process leads */
  protected async raiseFence(epoch: bigint): Promise<Raised | undefined> {
    const { table, logger } = this.options;
    for (let told = ""; ; ) {
      const raised = await table.raise(epoch);
      if (raised === undefined || raised.isRaised || this.#hasEnded) return raised;
      const { isRefused, ended, foreign } = await table.endHolders(epoch);
      if (ended > 0) logger.warn({ sessions: ended }, "ended sessions in which functions of the last leader still ran");
      const problem = isRefused ? "its login may not end them: run hawser init again" : JSON.stringify(foreign);
      if ((isRefused || foreign.length > 0) && problem !== told) {
        logger.warn({ problem, foreign }, "sessions keep this process from leading, and it waits for their end");
        told = problem;
      }
    }
  }

  #run(): Promise<void> {
    this.#cancelTimer();
    this.#isPoked = false;
    this.#turn ??= this.#once().then((pauseMs) => {
      this.#turn = undefined;
      this.#later(this.#isPoked ? 0 : pauseMs);
    });
    return this.#turn;
  }

  #later(delayMs: number): void {
    this.#cancelTimer();
    if (this.#hasEnded) return;
    this.#cancelTimer = this.options.clock.setTimeout(() => void this.#run(), delayMs);
  }

  /** @returns the pause after it */
  async #once(): Promise<number> {
    const { clock, events } = this.options;
    const beganAt = clock.now();
    let pauseMs: number = leaderHeartbeatMs;
    try {
      pauseMs = this.#leading === undefined ? await this.#inspect() : await this.#heartbeat(this.#leading);
    } catch (cause) {
      events.onProblem(cause);
      if (this.#leading?.isWritable === false && !this.#isSilent) {
        this.#isSilent = true;
        this.#leading.enter("suspended");
        const reason = `Postgres has not answered for ${leaderExpiryMs} ms, and another process may lead`;
        this.options.logger.warn({ epoch: this.#leading.epoch, reason }, "may not lead the subscriptions any more");
        events.onDeposed(reason);
      }
    }
    // What it took itself is part of the pause, so that heartbeats do not come late; but never without any.
    return pauseMs === 0 ? 0 : Math.max(Math.min(pauseMs, 10), pauseMs - (clock.now() - beganAt));
  }

  async #heartbeat(leading: Owner<bigint>): Promise<number> {
    const { epoch } = leading;
    const heard = await this.options.table.heartbeat(epoch, this.progress());
    if (this.#leading !== leading) return 0;
    if (heard !== undefined) {
      leading.confirm();
      this.#sample = heard;
      if (this.#isSilent) {
        this.#isSilent = false;
        this.options.logger.info({ epoch }, "still leads the subscriptions");
        this.options.events.onLeading(epoch, { afterCleanEnd: false });
      }
      return leaderHeartbeatMs;
    }
    this.#depose("another process leads, or a failover has lost its fence");
    return 0;
  }

  async #inspect(): Promise<number> {
    const { table, clock, owner, events, messages } = this.options;
    const seen = await table.read();
    if (this.#hasEnded) return leaderHeartbeatMs;
    const { row } = seen;
    if (seen.isStandby === true) {
      // What the leader beside the primary has done is known here, too, by a clock that is near to the primary's.
      this.watch.restart();
      events.onProgress(this.known.see(row, seen.clock));
      return leaderHeartbeatMs;
    }
    this.#sample = seen.clock;
    const progress = this.#saw(row, seen.clock);
    const isOthers = row.owner !== undefined && row.owner !== owner;
    const quietMs = this.quietMs(row, progress && doneBefore(progress)) + this.reluctanceMs;
    const mayTake = messages.isReceiving();
    if (mayTake && this.watch.unchangedMs >= quietMs) return await this.#take(row);
    if (isOthers && this.#toldWaiting !== row.epoch) {
      this.#toldWaiting = row.epoch;
      events.onWaiting(row.epoch);
    }
    if (!mayTake) return leaderHeartbeatMs;
    return Math.min(leaderHeartbeatMs, Math.max(1, quietMs - this.watch.sinceFirst(clock.now()) + 1));
  }

  #saw(row: LeadershipRow, sample: ClockSample): LeaderProgress | undefined {
    this.watch.see(row, sample);
    const progress = this.known.see(row, sample);
    if (row.owner !== undefined && row.owner !== this.options.owner) this.#hasSeenLeader = true;
    this.options.events.onProgress(progress);
    return progress;
  }

  async #take(row: LeadershipRow): Promise<number> {
    const { table, owner, events, logger, clock } = this.options;
    const beganAt = clock.now();
    this.#taking = undefined;
    // Where the row is its own, from an attempt that did not end, the row no longer tells how the leader before ended.
    if (row.owner !== owner) this.#takesAfterCleanEnd = row.owner === undefined;
    const epoch = await table.take(row);
    // Another process was faster, or the leader lives.
    if (epoch === undefined) return 1;
    this.#taking = epoch;
    const raised = await this.raiseFence(epoch);
    if (this.#hasEnded) return leaderHeartbeatMs;
    if (raised?.isRaised !== true) return 1;
    this.#taking = undefined;
    this.#leading = new Owner(epoch, { now: () => clock.now(), expiryMs: leaderExpiryMs });
    this.#sample = raised.clock;
    this.#toldWaiting = undefined;
    const tookMs = Math.round(clock.now() - beganAt);
    const afterCleanEnd = this.#takesAfterCleanEnd;
    this.#takesAfterCleanEnd = false;
    logger.info({ epoch, owner, after: row.epoch, tookMs }, "leads the subscriptions");
    events.onLeading(epoch, { afterCleanEnd });
    return leaderHeartbeatMs;
  }

  async #giveBack(epoch: bigint, progress: Progress): Promise<void> {
    try {
      await this.options.table.release(epoch, progress);
    } catch (cause) {
      this.options.events.onProblem(cause);
    }
  }

  #depose(reason: string): void {
    if (this.#leading === undefined) return;
    const { epoch } = this.#leading;
    const wasSilent = this.#isSilent;
    this.#leading = undefined;
    this.#isSilent = false;
    this.#hasSeenLeader = true;
    this.watch.restart();
    this.known.forget();
    this.options.logger.warn({ epoch, reason }, "leads the subscriptions no more");
    if (!wasSilent) this.options.events.onDeposed(reason);
  }
}

/**
 * How long the leader's row has been unchanged, as a process that waits has seen it.
 *
 * Only what it read itself counts, by its own clock, and without a gap: while Postgres restarted, or this process stood still,
 * the leader may have been well.
 */
export class LeaderWatch {
  #row: LeadershipRow | undefined;
  #firstHeardAt = 0;
  #lastSentAt = 0;
  #lastHeardAt = 0;

  readonly #maxGapMs: number;

  /** @param maxGapMs two readings that are further apart than this are not one observation */
  constructor(maxGapMs: number) {
    this.#maxGapMs = maxGapMs;
  }

  /** The row was read at some time between `sentAt` and `heardAt`. */
  see(row: LeadershipRow, { sentAt, heardAt }: { readonly sentAt: number; readonly heardAt: number }): void {
    const before = this.#row;
    const isUnchanged = before?.epoch === row.epoch && before.beat === row.beat;
    if (!isUnchanged || heardAt - this.#lastHeardAt > this.#maxGapMs) this.#firstHeardAt = heardAt;
    this.#row = row;
    this.#lastSentAt = sentAt;
    this.#lastHeardAt = heardAt;
  }

  /** The session was lost: what was seen before says nothing any more. */
  restart(): void {
    this.#row = undefined;
  }

  /** For how long the row has surely not changed. */
  get unchangedMs(): number {
    return this.#row === undefined ? 0 : Math.max(0, this.#lastSentAt - this.#firstHeardAt);
  }

  /** When the row was first seen as it is; 0: never. */
  get firstSeenAt(): number {
    return this.#row === undefined ? 0 : this.#firstHeardAt;
  }

  /** How long ago the row was first seen as it is. */
  sinceFirst(now: number): number {
    return this.#row === undefined ? 0 : now - this.#firstHeardAt;
  }
}
