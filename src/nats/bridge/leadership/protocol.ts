/**
 * State machine of leadership among several processes.
 *
 *     waiting ──released, or unchanged for `leaderExpiryMs`: takes the row──▶ taking ──raises the fence──▶ leading
 *        ▲  ▲                                                                   │                            │
 *        │  └──────────────another process has taken the row────────────────────┴────────────────────────────┘
 *     every process waits while Postgres is a standby                         at its end, a leader releases the row
 *
 * A leader that cannot reach Postgres does not know whether it is still the leader. For `leaderExpiryMs` it remains the
 * leader, unconfirmed: its batches cannot run, and when Postgres is back, the fence decides. After that, another
 * process may have become the leader, so this one is silent: it keeps its messages, as waiting processes do. If the row
 * is still its own when Postgres is back, it resumes.
 */
import { bridgeConstants } from "../../../../generated/ts/settings/nats.js";
import { Owner, type Ownership, type OwnershipState } from "../../../foundation/postgres/index.js";
import { type Clock, delay, type Logger } from "../../../foundation/runtime/index.js";
import {
  doneBefore,
  KnownProgress,
  type LeaderProgress,
  leaderTrustedHeartbeats,
  localTimeBefore,
  serverTimeAtLeast,
  serverTimeAtMost,
} from "./progress.js";
import type { ClockSample, LeadershipRow, LeadershipTable, Progress, Raised } from "./table.js";

/** Events of the protocol. Their handlers must not throw. */
export interface LeadershipEvents {
  /**
   * This process is the leader: it runs the messages that it has kept, then those that it receives.
   *
   * @param afterCleanEnd true if the previous leader has stopped gracefully
   */
  onLeading(epoch: bigint, options: { readonly afterCleanEnd: boolean }): void;
  /** This process is no longer the leader: batches of its epoch are refused. */
  onDeposed(reason: string): void;
  /** Another process is the leader. Called once per epoch. */
  onWaiting(epoch: bigint): void;
  /** Progress of the leader, after each read while another process is the leader; undefined if unknown. */
  onProgress(progress: LeaderProgress | undefined): void;
  /** Postgres did not answer, or answered with an error. The protocol tries again. */
  onProblem(cause: unknown): void;
}

/** Receive times of messages that are not done yet. */
export interface Unfinished {
  /**
   * Receive time of the oldest message, except those of the subscriptions in {@link behind}; undefined if all are done.
   */
  readonly oldestAt: number | undefined;
  /** Receive time of the oldest message of each subscription that makes no progress, by id. */
  readonly behind: ReadonlyMap<bigint, number>;
}

/** Reception and progress of this process, in times of its own clock. */
export interface LeadershipMessages {
  /** Messages that are not done yet. */
  unfinished(): Unfinished;
  /** Time since which this process has kept everything that the leader may not have done. */
  completeSince(): number;
  /** Time since which this process has received everything. */
  receivedSince(): number;
  /** Time until which this process received everything; undefined while it does. */
  receivedUntil(): number | undefined;
  /** True if this process receives. Otherwise it does not become the leader. */
  isReceiving(): boolean;
  /**
   * True if this process can call functions, as far as it knows. Otherwise all other processes may take the row first.
   */
  canRun(): boolean;
}

const { leaderHeartbeatMs, leaderExpiryMs } = bridgeConstants;
/** For this many heartbeats at most, a process that lacks messages lets others lead that lack fewer. */
const leaderCourtesyHeartbeats = 2;

/** Collaborators and limits of the protocol. */
export interface LeadershipProtocolOptions {
  readonly table: LeadershipTable;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Random id of this process in the table. */
  readonly owner: string;
  readonly messages: LeadershipMessages;
  readonly events: LeadershipEvents;
}

const unknownProgress: Progress = {
  progressAt: undefined,
  behind: new Map(),
  completeSince: undefined,
  completeUntil: undefined,
};

/** Messages kept by this process that other processes have too. */
export interface OthersHave {
  /**
   * Another process runs everything that was received before this time. Infinity if there is a leader; a finite time if
   * that leader has stopped receiving, too; -Infinity without a leader.
   */
  readonly until: number;
  /** True if the previous leader has stopped gracefully. */
  readonly afterCleanEnd: boolean;
}

const leaderExists: OthersHave = { until: Number.POSITIVE_INFINITY, afterCleanEnd: false };
const noLeader: OthersHave = { until: Number.NEGATIVE_INFINITY, afterCleanEnd: false };

export class LeadershipProtocol implements Ownership {
  protected readonly options: LeadershipProtocolOptions;
  protected watch = new LeaderWatch(leaderExpiryMs);
  protected known = new KnownProgress();
  #hasEnded = false;
  /** Ownership of this process while it is the leader, even while it is silent; otherwise undefined. */
  #leading: Owner<bigint> | undefined;
  /** True if Postgres has not confirmed leadership for so long that another process may be the leader. */
  #isSilent = false;
  /** Epoch with which this process may have taken the row without being the leader yet. */
  #taking: bigint | undefined;
  /** True if the row was released gracefully before this process last tried to take it. */
  #takesAfterCleanEnd = false;
  /** Sample of the current session, which converts times of this process to the server's. */
  #sample: ClockSample | undefined;
  /** True if another process was the leader since this one started. */
  #hasSeenLeader = false;
  /** Last epoch passed to onWaiting. */
  #reportedEpoch: bigint | undefined;
  #turn: Promise<void> | undefined;
  #isPoked = false;
  #cancelTimer: () => void = () => undefined;

  constructor(options: LeadershipProtocolOptions) {
    this.options = options;
  }

  /** Epoch of this process's leadership; undefined if it is not the leader. */
  get epoch(): bigint | undefined {
    return this.#isSilent ? undefined : this.#leading?.epoch;
  }

  /** `suspended`: Postgres has not confirmed leadership since the session was lost, or for too long. */
  get state(): OwnershipState {
    if (this.#hasEnded) return "released";
    return this.#leading?.state ?? "waiting";
  }

  get isWritable(): boolean {
    return this.epoch !== undefined;
  }

  /** Starts to read the row. Resolves when this process knows whether it is the leader; does not reject. */
  start(): Promise<void> {
    return this.#run();
  }

  /** Reads the row at once, because it may have changed. */
  poke(): void {
    this.#isPoked = true;
    if (this.#turn === undefined) this.#schedule(0);
  }

  /**
   * Suspends leadership and restarts the observation of the row: the server may have stopped, or may be another one
   * now.
   */
  sessionLost(): void {
    this.#leading?.enter("suspended");
    this.#sample = undefined;
    this.watch.restart();
    this.known.reset();
    if (this.#leading === undefined) this.options.events.onProgress(undefined);
  }

  /**
   * Releases leadership, but continues to read the row. Called if this process may lack messages that others have
   * received, or cannot run functions.
   */
  async stepDown(reason: string): Promise<void> {
    if (this.#leading === undefined) return;
    const { epoch } = this.#leading;
    const progress = this.progress();
    this.#depose(reason);
    await this.#releaseRow(epoch, progress);
    this.poke();
  }

  /** Ends the protocol. Releases leadership if this process has it, so that another process takes over at once. */
  async release(): Promise<void> {
    this.#hasEnded = true;
    this.#cancelTimer();
    await this.#turn;
    const epoch = this.#leading?.epoch ?? this.#taking;
    if (epoch === undefined) return;
    const progress = this.#leading === undefined ? unknownProgress : this.progress();
    this.#leading = undefined;
    await this.#releaseRow(epoch, progress);
  }

  /**
   * Finds out whether another process runs the messages that this one kept while it waited. Called at shutdown, when
   * this process no longer receives. Ends the protocol: the row is read no more afterwards.
   *
   * Waits for two new heartbeats of the leader, because the first may have been sent earlier, but no longer than a
   * waiting process would wait for the leader. Does not reject: when the signal is aborted, it returns what is known.
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
        if (isStandby === true) return leaderExists;
        this.#observe(row, sample);
        if (row.owner === undefined) return { until: Number.NEGATIVE_INFINITY, afterCleanEnd: true };
        // The row is our own, from an unfinished attempt to take it.
        if (row.owner === owner) return { ...noLeader, afterCleanEnd: this.#takesAfterCleanEnd };
        if (this.watch.unchangedMs >= leaderExpiryMs) return noLeader;
        if (row.epoch !== epoch) heartbeats.clear();
        epoch = row.epoch;
        // Before its first heartbeat, the row does not contain the time since which the new leader has received.
        if (row.beat > 0n) heartbeats.add(row.beat);
        if (heartbeats.size > leaderTrustedHeartbeats) {
          const { completeUntil } = row;
          return completeUntil === undefined
            ? leaderExists
            : { until: localTimeBefore(sample, completeUntil), afterCleanEnd: false };
        }
      } catch (cause) {
        events.onProblem(cause);
        if (clock.now() - asked > leaderExpiryMs) break;
      }
      await delay(leaderHeartbeatMs / 10, undefined, clock);
    }
    return this.#hasSeenLeader ? leaderExists : noLeader;
  }

  /** Server time before which all received messages are done. */
  protected progressAt(sample: ClockSample, oldestAt: number): number {
    return serverTimeAtLeast(sample, oldestAt);
  }

  /** Progress for the other processes. */
  protected progress(): Progress {
    // A silent leader runs nothing, and keeps all its unfinished messages.
    const sample = this.#isSilent ? undefined : this.#sample;
    if (sample === undefined) return unknownProgress;
    const { clock, messages } = this.options;
    // The clock must be read first: messages received after that are not done.
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

  /** Time for which a row must be unchanged before this process may take it. */
  protected quietMs(row: LeadershipRow, toldDoneBefore: number | undefined): number {
    const { owner, messages } = this.options;
    // If the row is our own, the answer to an attempt was lost. A process that cannot run functions does not resume it.
    if (row.owner === owner && messages.canRun()) return 0;
    const forLeaderMs = row.owner === undefined ? 0 : leaderExpiryMs;
    // A process that lacks unfinished messages waits longer, so that a process that lacks fewer takes the row first.
    // That process may have seen the last heartbeat a whole interval later, so the longest wait is two intervals. The
    // factor is large because processes that are equally suitable lack very little. A process that has just started has
    // received the least, so an older one takes a released row first.
    if (!this.#hasSeenLeader) return row.owner === undefined && row.epoch > 0n ? leaderHeartbeatMs : forLeaderMs;
    // A leader that has told nothing is taken to be no further behind than this.
    const allDoneBefore = toldDoneBefore ?? this.watch.firstSeenAt - leaderExpiryMs;
    const courtesyMs = Math.max(0, 10 * (messages.completeSince() - allDoneBefore));
    if (row.owner !== undefined)
      return forLeaderMs + Math.min(leaderCourtesyHeartbeats * leaderHeartbeatMs, courtesyMs);
    // The row was released, perhaps because all processes lost NATS: the first one to receive again takes it first.
    const lateMs = Math.min(leaderExpiryMs, Math.max(0, messages.completeSince() - this.watch.firstSeenAt));
    return Math.min(leaderHeartbeatMs + lateMs, courtesyMs);
  }

  /** Additional wait of a process that cannot call functions: it becomes the leader only if no other process does. */
  protected get extraQuietMs(): number {
    return this.options.messages.canRun() ? 0 : leaderExpiryMs;
  }

  /** Raises the fence. @returns undefined if another process is the leader */
  protected async raiseFence(epoch: bigint): Promise<Raised | undefined> {
    const { table, logger } = this.options;
    for (let loggedProblem = ""; ; ) {
      const raised = await table.raise(epoch);
      if (raised === undefined || raised.isRaised || this.#hasEnded) return raised;
      const { isRefused, ended, foreign } = await table.endHolders(epoch);
      if (ended > 0) logger.warn({ sessions: ended }, "ended sessions that still ran functions of the previous leader");
      const problem = isRefused ? "this login may not end them; run hawser init again" : JSON.stringify(foreign);
      if ((isRefused || foreign.length > 0) && problem !== loggedProblem) {
        logger.warn({ problem, foreign }, "cannot become the leader yet: waiting for sessions that hold the fence");
        loggedProblem = problem;
      }
    }
  }

  #run(): Promise<void> {
    this.#cancelTimer();
    this.#isPoked = false;
    this.#turn ??= this.#runTurn().then((pauseMs) => {
      this.#turn = undefined;
      this.#schedule(this.#isPoked ? 0 : pauseMs);
    });
    return this.#turn;
  }

  #schedule(delayMs: number): void {
    this.#cancelTimer();
    if (this.#hasEnded) return;
    this.#cancelTimer = this.options.clock.setTimeout(() => void this.#run(), delayMs);
  }

  /** @returns pause until the next turn */
  async #runTurn(): Promise<number> {
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
        const reason = `Postgres has not answered for ${leaderExpiryMs} ms, and another process may be the leader`;
        this.options.logger.warn(
          { epoch: this.#leading.epoch, reason },
          "may no longer be the leader of the subscriptions",
        );
        events.onDeposed(reason);
      }
    }
    // The duration of the turn is part of the pause, so that heartbeats are not late; but some pause always remains.
    return pauseMs === 0 ? 0 : Math.max(Math.min(pauseMs, 10), pauseMs - (clock.now() - beganAt));
  }

  async #heartbeat(leading: Owner<bigint>): Promise<number> {
    const { epoch } = leading;
    const sample = await this.options.table.heartbeat(epoch, this.progress());
    if (this.#leading !== leading) return 0;
    if (sample !== undefined) {
      leading.confirm();
      this.#sample = sample;
      if (this.#isSilent) {
        this.#isSilent = false;
        this.options.logger.info({ epoch }, "is still the leader of the subscriptions");
        this.options.events.onLeading(epoch, { afterCleanEnd: false });
      }
      return leaderHeartbeatMs;
    }
    this.#depose("another process is the leader, or a failover has lost the fence");
    return 0;
  }

  async #inspect(): Promise<number> {
    const { table, clock, owner, events, messages } = this.options;
    const seen = await table.read();
    if (this.#hasEnded) return leaderHeartbeatMs;
    const { row } = seen;
    if (seen.isStandby === true) {
      // Progress from a standby is usable: the row is replicated, and its server's clock is close to the primary's.
      this.watch.restart();
      events.onProgress(this.known.update(row, seen.clock));
      return leaderHeartbeatMs;
    }
    this.#sample = seen.clock;
    this.#observe(row, seen.clock);
    const isOthers = row.owner !== undefined && row.owner !== owner;
    // For the order in which processes take the row, a guess is better than none.
    const progress = this.known.supposed(row, seen.clock);
    const quietMs = this.quietMs(row, progress && doneBefore(progress)) + this.extraQuietMs;
    const mayTake = messages.isReceiving();
    if (mayTake && this.watch.unchangedMs >= quietMs) return await this.#take(row);
    if (isOthers && this.#reportedEpoch !== row.epoch) {
      this.#reportedEpoch = row.epoch;
      events.onWaiting(row.epoch);
    }
    if (!mayTake) return leaderHeartbeatMs;
    return Math.min(leaderHeartbeatMs, Math.max(1, quietMs - (clock.now() - this.watch.firstSeenAt) + 1));
  }

  #observe(row: LeadershipRow, sample: ClockSample): void {
    this.watch.add(row, sample);
    if (row.owner !== undefined && row.owner !== this.options.owner) this.#hasSeenLeader = true;
    this.options.events.onProgress(this.known.update(row, sample));
  }

  async #take(row: LeadershipRow): Promise<number> {
    const { table, owner, events, logger, clock } = this.options;
    const beganAt = clock.now();
    this.#taking = undefined;
    // If the row is our own, from an unfinished attempt, it no longer shows how the previous leader ended.
    if (row.owner !== owner) this.#takesAfterCleanEnd = row.owner === undefined;
    const epoch = await table.take(row);
    // Another process was faster, or the leader sent a heartbeat.
    if (epoch === undefined) return 1;
    this.#taking = epoch;
    const raised = await this.raiseFence(epoch);
    if (this.#hasEnded) return leaderHeartbeatMs;
    if (raised?.isRaised !== true) return 1;
    this.#taking = undefined;
    this.#leading = new Owner(epoch, { now: () => clock.now(), expiryMs: leaderExpiryMs });
    this.#sample = raised.clock;
    this.#reportedEpoch = undefined;
    const tookMs = Math.round(clock.now() - beganAt);
    const afterCleanEnd = this.#takesAfterCleanEnd;
    this.#takesAfterCleanEnd = false;
    logger.info({ epoch, owner, after: row.epoch, tookMs }, "became the leader of the subscriptions");
    events.onLeading(epoch, { afterCleanEnd });
    return leaderHeartbeatMs;
  }

  async #releaseRow(epoch: bigint, progress: Progress): Promise<void> {
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
    this.known.reset();
    this.options.logger.warn({ epoch, reason }, "is no longer the leader of the subscriptions");
    if (!wasSilent) this.options.events.onDeposed(reason);
  }
}

/**
 * Measures for how long the leader's row has been unchanged, as a waiting process observes it.
 *
 * Only reads of this process count, by its own clock and without a gap: while Postgres restarted, or this process was
 * suspended, the leader may have been healthy.
 */
export class LeaderWatch {
  #row: LeadershipRow | undefined;
  #firstHeardAt = 0;
  #lastSentAt = 0;
  #lastHeardAt = 0;

  readonly #maxGapMs: number;

  /** @param maxGapMs longest gap between two reads of one observation */
  constructor(maxGapMs: number) {
    this.#maxGapMs = maxGapMs;
  }

  /** Adds a read of the row, which happened at some time from `sentAt` to `heardAt`. */
  add(row: LeadershipRow, { sentAt, heardAt }: { readonly sentAt: number; readonly heardAt: number }): void {
    const before = this.#row;
    const isUnchanged = before?.epoch === row.epoch && before.beat === row.beat;
    if (!isUnchanged || heardAt - this.#lastHeardAt > this.#maxGapMs) this.#firstHeardAt = heardAt;
    this.#row = row;
    this.#lastSentAt = sentAt;
    this.#lastHeardAt = heardAt;
  }

  /** Discards earlier reads, because the session was lost. */
  restart(): void {
    this.#row = undefined;
  }

  /** Time for which the row has certainly not changed. */
  get unchangedMs(): number {
    return this.#row === undefined ? 0 : Math.max(0, this.#lastSentAt - this.#firstHeardAt);
  }

  /** Time at which the row was first read in its current state; 0 if never. */
  get firstSeenAt(): number {
    return this.#row === undefined ? 0 : this.#firstHeardAt;
  }
}
