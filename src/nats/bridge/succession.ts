/**
 * Succession: which messages this process runs, keeps or saves, as leadership, the connection to NATS and the role of
 * Postgres change.
 *
 *     follows: keeps messages ──onLeading──▶ takes over: reads what was saved ──▶ leads: runs messages ──▶ stops: saves
 *        ▲                                        │                                 │                      the rest
 *        └────────────────onDeposed───────────────┴────────onDeposed, stepDown──────┘
 *
 * A leader steps down when it may miss messages because it has lost NATS, or when the executor's login is refused: it
 * runs what it has received, and keeps the rest for the next leader.
 */

import { setTimeout as unreferencedDelay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { Deadline, delay, type Logger, whenAborted } from "../../foundation/runtime/index.js";
import { optionsPollMs } from "../../operating/installation/index.js";
import type { NatsConnector } from "../connections/index.js";
import type { NatsOutbox } from "../outbox/index.js";
import type { Bindings, BindingWatch } from "./bindings.js";
import type { ExecutorLogin } from "./executor/index.js";
import { type Candidate, type LeaderProgress, Leadership, type Unfinished } from "./leadership/index.js";
import { earliest, type InboundMessage } from "./message.js";
import { Receiver, type ReceiverEvents } from "./receiver.js";
import { type PostgresRole, RoleNotices, RoleWatch, type ServerAddress } from "./role/index.js";
import type { SavedMessages } from "./saved-messages.js";
import type { Streams } from "./streams/index.js";
import type { Subscriptions } from "./subscriptions.js";

/** Time for which a leader that no longer receives runs its messages before it releases leadership. */
const silentDrainMs = 1_000;
/** Time limit for the NATS server to end the subscriptions at a graceful stop. */
const receiverStopMs = 3_000;
/** Time limit for Postgres to record the release of leadership, at a stop that has exceeded its deadline. */
const leaderReleaseMs = 500;
/** Minimum time for which a leader whose executor login is refused keeps leadership before it releases it once more. */
export const handOverPauseMs = 60_000;
/**
 * The part of the time for a stop, as a divisor, in which what was received is still run; in the rest of it what is left is
 * saved.
 */
const stopDrainDivisor = 2;

const deletedSavedText = "deleted the saved messages of subscriptions that have ended";

/** Collaborators of {@link Succession}. */
export interface SuccessionOptions {
  readonly databaseUrl: string | undefined;
  /** Connector of the subscriptions. */
  readonly connector: NatsConnector;
  readonly bindings: BindingWatch;
  readonly login: ExecutorLogin;
  readonly subscriptions: Subscriptions;
  readonly saved: SavedMessages;
  readonly streams: Streams;
  readonly outbox: NatsOutbox;
  readonly logger: Logger;
  /** The role of Postgres has changed. */
  onRole(): void;
}

export class Succession implements Candidate, ReceiverEvents {
  readonly #options: SuccessionOptions;
  readonly #subscriptions: Subscriptions;
  readonly receiver: Receiver;
  readonly leadership: Leadership;
  readonly roleWatch: RoleWatch;
  readonly #notices: RoleNotices;
  /** Epoch of the last leadership of this process; 0 if it never was the leader. */
  lastEpoch = 0n;
  #isSavingUnknown = false;
  /** Time of the last hand-over of leadership that was caused by a refused executor login. */
  #yieldedAt = Number.NEGATIVE_INFINITY;
  /** Subjects that the NATS server refused, until the next turn of the event loop handles them together. */
  readonly #refused = new Set<string>();
  /** Receive time of the oldest message that could not be saved. */
  #unsavedSince: number | undefined;
  /** Identifies the last call of {@link #syncReceiver}. Earlier calls stop when they see another value. */
  #syncing: symbol | undefined;
  #loggedDiscarded = 0;
  /** Set at shutdown: start of the period for which this process has received everything. */
  #receivedSince: number | undefined;
  /** Time at which the connection to NATS was lost; undefined while it is up. */
  #incompleteSince: number | undefined;
  /** Subjects that were subscribed when the connection was last lost; empty unless this process was the leader. */
  #lostSubjects: readonly string[] = [];
  #isStopping = false;

  constructor(options: SuccessionOptions) {
    this.#options = options;
    const { databaseUrl, connector, logger } = options;
    this.#subscriptions = options.subscriptions;
    this.receiver = new Receiver({ connector, logger, events: this });
    this.leadership = new Leadership({ databaseUrl, logger, candidate: this });
    this.#notices = new RoleNotices({ connector, logger });
    this.roleWatch = new RoleWatch({
      session: this.leadership.session,
      logger,
      onRole: (role, address) => this.#onRole(role, address),
    });
  }

  /** Resolves when the role of Postgres is known, and whether this process is the leader. */
  async start(): Promise<void> {
    await this.roleWatch.run();
    await this.leadership.start();
  }

  /** True if this process could be the leader and run the subscribed functions. */
  get canLead(): boolean {
    return this.isReceiving() && this.roleWatch.role === "primary" && this.canRun();
  }

  /** Applies the options of the NATS server; undefined if there are none. Follows the connector's `configure`. */
  setNatsOptions(options: CompleteNatsServerOptions | undefined): void {
    if (options === undefined) this.receiver.detach();
    this.#notices.configure(options);
  }

  /** Applies the current bindings. @throws errors of the session */
  async configure(bound: Omit<Bindings, "responders">): Promise<void> {
    const { subscriptions, streams } = bound;
    const { saved, logger } = this.#options;
    const ended = this.#subscriptions.configure(subscriptions);
    this.#syncReceiver();
    this.#subscriptions.wake();
    if (this.leadership.epoch === undefined) return;
    await saved.countOf(bound.saved);
    this.#subscriptions.expectSaved(bound.saved);
    const deleted = ended.length === 0 ? 0 : await saved.deleteOf(ended);
    if (deleted > 0) logger.info({ deleted }, deletedSavedText);
    await this.#options.streams.configure(streams);
  }

  /** Releases leadership if the executor's login is refused here and another process could lead. Does not reject. */
  async yieldLeadership(): Promise<void> {
    const { attempts } = this.#options.login;
    const now = performance.now();
    if (this.leadership.epoch === undefined || this.#isStopping || !attempts.isRefused) return;
    // During a failover, one attempt can reach a different server than the bridge's session does, and be refused there.
    const refusedMs = Date.now() - attempts.failure(0)!.since.getTime();
    if (refusedMs < optionsPollMs || now - this.#yieldedAt < handOverPauseMs) return;
    this.#yieldedAt = now;
    await this.#stepDown("the executor's login is refused here, and another process can run the functions");
  }

  /**
   * Stops receiving, runs the messages that were received, saves what is left, and releases leadership.
   *
   * @param deadlineMs time limit for running functions
   */
  async stop(deadlineMs: number): Promise<void> {
    this.#isStopping = true;
    const over = AbortSignal.timeout(deadlineMs);
    const deadline = new Deadline(deadlineMs);
    this.roleWatch.stop();
    this.#options.streams.stop();
    await this.receiver.stop(Math.min(deadlineMs, receiverStopMs));
    const draining = AbortSignal.timeout(deadlineMs / stopDrainDivisor);
    await this.#subscriptions.drain(draining);
    await this.#subscriptions.stop(draining);
    await this.#save(over);
    await this.#options.outbox.stop(deadline.remainingMs);
    await this.leadership.stop(Math.max(leaderReleaseMs, deadline.remainingMs));
    await this.#notices.stop();
  }

  /** Logs messages that were discarded since the last call. */
  logDiscarded(): void {
    const { total, bySubject, other } = this.#subscriptions.context.discards;
    if (total === this.#loggedDiscarded) return;
    const more = total - this.#loggedDiscarded;
    this.#loggedDiscarded = total;
    this.#options.logger.error(
      { discarded: more, inAll: total, bySubject: firstEntries(bySubject), other },
      "discarded messages that arrived faster than the functions handle them: memory is full (--buffer), and so is the table of " +
        "saved messages (--tune savedBytes), or it cannot be written fast enough",
    );
  }

  // Candidate: what other processes learn of this one.

  unfinished(): Unfinished {
    const { oldestAt, behind } = this.#subscriptions.unfinished;
    const times = [oldestAt, this.#unsavedSince, this.receiver.completeUntil, this.#incompleteSince];
    return { oldestAt: times.reduce(earliest), behind };
  }

  completeSince(): number {
    return this.#subscriptions.kept.completeSince;
  }

  receivedSince(): number {
    return this.#receivedSince ?? this.#subscriptions.kept.receivedSince;
  }

  receivedUntil(): number | undefined {
    return this.#incompleteSince ?? (this.#isStopping ? this.receiver.completeUntil : undefined);
  }

  isReceiving(): boolean {
    // A process that is shutting down must not become the leader.
    return this.receiver.isReceiving && !this.#isStopping;
  }

  canRun(): boolean {
    return !this.#options.login.attempts.isRefused;
  }

  // Candidate: changes of leadership.

  onLeading(epoch: bigint, { afterCleanEnd }: { readonly afterCleanEnd: boolean }): void {
    this.lastEpoch = epoch;
    this.#options.outbox.lead();
    this.#subscriptions.startTakeover(afterCleanEnd);
    void this.#startLeading(epoch);
  }

  onDeposed(): void {
    this.#options.outbox.follow();
    this.#options.streams.stopLeading();
    this.#subscriptions.stopLeading();
    this.#notices.setLeading(false);
  }

  onWaiting(epoch: bigint): void {
    this.#options.logger.info({ epoch }, "another process is the leader of the subscriptions");
  }

  onProgress(progress: LeaderProgress | undefined): void {
    this.#subscriptions.kept.noteProgress(progress);
    void this.#saveUnknownToLeader();
  }

  onSessionLost(): void {
    this.roleWatch.sessionLost();
  }

  // Events of the receiver.

  onMessage(pattern: string, message: InboundMessage): void {
    this.#subscriptions.deliver(pattern, message);
  }

  /**
   * Handles all refusals of one turn of the event loop together, because each handling computes the receivers of a
   * whole role again.
   */
  onRefused(pattern: string): void {
    // Former receivers must stay until the next call of #syncReceiver, so the running call is stopped.
    this.#syncing = undefined;
    this.#refused.add(pattern);
    if (this.#refused.size > 1) return;
    setImmediate(() => {
      this.#subscriptions.addRefused(this.#refused);
      this.#refused.clear();
      this.#syncReceiver();
    });
  }

  /**
   * Records the subjects of a leader that has lost its connection. Messages that the server had not yet sent over that
   * connection are lost unless another process has received them.
   */
  onConnectionLost(): void {
    this.#lostSubjects = this.leadership.epoch === undefined ? [] : this.#subscriptions.countLostConnection();
  }

  onSameServerAgain(): void {
    const subjects = this.#lostSubjects;
    if (subjects.length === 0) return;
    this.#options.logger.error(
      { subjects: subjects.slice(0, 20), inAll: subjects.length },
      "lost the connection to a NATS server that kept running: messages arrived faster than this process reads (slow consumer), or " +
        "the network failed; messages of these subjects in transit are lost unless another process has received them",
    );
  }

  onIncomplete(): void {
    void this.#stepDownWithoutNats();
  }

  onComplete(): void {
    // A leader keeps `#incompleteSince` until it has released leadership: its progress must not cover the gap.
    if (this.leadership.epoch === undefined) this.#incompleteSince = undefined;
    this.#subscriptions.noteGap(performance.now());
    this.leadership.poke();
  }

  #onRole(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#notices.setRole(role, address);
    if (role === "primary") {
      this.leadership.poke();
      this.#options.bindings.soon();
    }
    this.#options.onRole();
  }

  /** Starts to run messages as the leader, once the table of saved messages has been read. */
  async #startLeading(epoch: bigint): Promise<void> {
    const { saved, streams, bindings, logger } = this.#options;
    let found: Awaited<ReturnType<SavedMessages["startLeading"]>> | undefined;
    while (found === undefined) {
      found = await saved.startLeading().catch((err) => {
        logger.debug({ err }, "cannot read which messages were saved; trying again");
        return undefined;
      });
      if (this.leadership.epoch !== epoch || this.#isStopping) return;
      if (found === undefined) await unreferencedDelay(bridgeConstants.leaderHeartbeatMs, undefined, { ref: false });
    }
    const { ids, deleted } = found;
    if (ids.size > 0) logger.info({ subscriptions: ids.size }, "running messages that other processes saved");
    if (deleted > 0) logger.info({ deleted }, deletedSavedText);
    const { repeated, missing } = this.#subscriptions.lead(epoch, ids, () => this.leadership.poke());
    streams.startLeading(epoch);
    if (repeated > 0) logger.info({ repeated }, "running messages that the previous leader may not have finished");
    if (missing.size > 0) {
      logger.warn(
        { bySubject: firstEntries(missing) },
        "some messages that the previous leader may not have finished are missing: they did not fit into --buffer",
      );
    }
    this.#notices.setLeading(true);
    // The connection to NATS may have been lost during the takeover.
    if (!this.receiver.isReceiving) void this.#stepDownWithoutNats();
    // Reads the stream bindings, which only the leader uses.
    bindings.soon();
  }

  /** Releases leadership after the connection to NATS was lost. */
  async #stepDownWithoutNats(): Promise<void> {
    this.#incompleteSince ??= this.receiver.completeUntil;
    await this.#stepDown("the connection to NATS was lost, and another process may still receive messages");
    if (this.receiver.isReceiving) this.#incompleteSince = undefined;
  }

  /** Runs the received messages, then lets another process take over. */
  async #stepDown(reason: string): Promise<void> {
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(silentDrainMs));
    await this.leadership.stepDown(reason);
  }

  /** Saves the messages that were received and not run; the next leader runs them. */
  async #save(deadline: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    // A follower's messages need no saving if another process has received them too.
    const mayBeLast =
      this.leadership.epoch === undefined && this.roleWatch.role === "primary" && this.#subscriptions.kept.length > 0;
    const others = mayBeLast ? await this.leadership.othersHave(deadline) : undefined;
    // The last progress that this process writes must cover everything that it has received.
    this.#receivedSince = this.#subscriptions.kept.receivedSince;
    const unfinished = this.#subscriptions.takeUnfinished(others);
    if (unfinished.length === 0) return;
    let saved = 0;
    let error: unknown;
    for (;;) {
      const more = await this.#options.saved.save(unfinished.slice(saved), deadline);
      saved += more.saved;
      error = more.error;
      if (saved === unfinished.length || deadline.aborted) break;
      logger.debug({ err: error }, "cannot save messages that were received and not run; trying again");
      await delay(bridgeConstants.leaderHeartbeatMs, deadline);
    }
    if (saved > 0) {
      logger.info({ saved }, "saved messages that were received and not run; the next leader runs them");
      if (mayBeLast) await Promise.race([this.#notifyLeader(), whenAborted(deadline)]);
    }
    const lost = unfinished.slice(saved);
    if (lost.length === 0) return;
    this.#unsavedSince = lost[0]!.message.receivedAt;
    this.#subscriptions.discard(lost);
    const bySubject = new Map<string, number>();
    for (const { message } of lost) bySubject.set(message.subject, (bySubject.get(message.subject) ?? 0) + 1);
    logger.error(
      { err: error, lost: lost.length, bySubject: firstEntries(bySubject) },
      "messages that were received could neither be run nor saved before the deadline; they are lost unless another process has received them",
    );
  }

  /**
   * Saves messages that the leader has not received, so that it runs them. Needed after this process was suspended and
   * replaced as the leader.
   */
  async #saveUnknownToLeader(): Promise<void> {
    const messages = this.#subscriptions.unknownToLeader;
    if (messages.length === 0 || this.#isSavingUnknown) return;
    this.#isSavingUnknown = true;
    const inTime = AbortSignal.timeout(bridgeConstants.leaderExpiryMs);
    const { saved, error } = await this.#options.saved.save(messages, inTime);
    const { logger } = this.#options;
    if (saved > 0) {
      this.#subscriptions.forgetSaved(messages, saved);
      logger.info({ saved }, "saved messages that the leader has not received; the leader runs them");
      await this.#notifyLeader();
    }
    if (error !== undefined)
      logger.debug({ err: error }, "cannot save messages that the leader has not received; trying again");
    this.#isSavingUnknown = false;
  }

  /** Notifies the leader of new saved messages. Does not reject. */
  async #notifyLeader(): Promise<void> {
    const { saved, logger } = this.#options;
    const text = "cannot notify the leader of saved messages; it finds them at its next poll";
    await saved.notifyLeader().catch((err) => logger.debug({ err }, text));
  }

  /**
   * Subscribes to all receivers at NATS. A receiver that was replaced is unsubscribed only after the server has
   * processed the new subscriptions.
   */
  #syncReceiver(): void {
    const call = (this.#syncing = Symbol());
    this.receiver.subscribe(this.#subscriptions.receivers);
    void this.receiver.confirmed().then(() => {
      if (this.#syncing !== call) return;
      this.#subscriptions.removeFormerReceivers();
      this.receiver.subscribe(this.#subscriptions.receivers);
    });
  }
}

/** First 20 entries, to limit the length of a log line. */
function firstEntries(bySubject: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...bySubject].slice(0, 20));
}
