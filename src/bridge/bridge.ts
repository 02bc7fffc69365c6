/**
 * The bridge of one process: creates its parts and passes events between them.
 *
 * Subscriptions, responders, the outbox and streams each have their own connection to NATS, besides the gateway's, so
 * that none of them delays another. One process is the leader: it runs the subscriptions, reads the streams and relays
 * the outbox. Every process answers requests.
 */

import { createHash } from "node:crypto";
import { setTimeout as unreferencedDelay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { notifyChannels, tables } from "../../generated/ts/rows/nats.js";
import { bridgeConstants, type ServeSettings } from "../../generated/ts/settings/nats.js";
import type { HawserError } from "../errors/index.js";
import { optionsPollMs } from "../installation/index.js";
import { NatsConnector, type ServerChoice } from "../nats/index.js";
import { NatsOutbox, type NatsOutboxStats } from "../outbox/index.js";
import { DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { Deadline, delay, type Logger, RareLog, stopReserveMs, whenAborted } from "../runtime/index.js";
import { explainServeRefusal } from "../store/index.js";
import { type Bindings, BindingWatch, type Responder } from "./bindings.js";
import { DeadLetterWriter, readRetries } from "./dead-letters.js";
import {
  BatchRunner,
  ExecutorLogin,
  ExecutorPool,
  errorText,
  executorOverdueMs,
  PostgresRequestRunner,
} from "./executor/index.js";
import { Leadership } from "./leadership/index.js";
import { earliest } from "./message.js";
import { NatsPublisher } from "./nats-publisher.js";
import { Receiver } from "./receiver.js";
import { ResponderService, type ResponderServiceStats, requestQueueDefaults } from "./responders/index.js";
import { type PostgresRole, RoleNotices, RoleWatch, type ServerAddress } from "./role/index.js";
import { SavedMessages } from "./saved-messages.js";
import { type StreamCounts, Streams } from "./streams/index.js";
import { type SubscriptionCounts, Subscriptions } from "./subscriptions.js";

/** Time for which a leader that no longer receives runs its messages before it releases leadership. */
const silentDrainMs = 1_000;
/** Time for which a graceful stop waits for the functions of responders. */
const responderStopMs = 3_000;
/** Time limit for Postgres to record the release of leadership, at a stop that has exceeded its deadline. */
const leaderReleaseMs = 500;
/** Minimum time for which a leader whose executor login is refused keeps leadership before it releases it once more. */
export const handOverPauseMs = 60_000;
/**
 * The part of the time for a stop, as a divisor, in which what was received is still run; in the rest of it what is left is
 * saved.
 */
const stopDrainDivisor = 2;

/** Database, settings and callbacks of a {@link Bridge}. */
export interface BridgeOptions {
  readonly databaseUrl: string | undefined;
  /** URL with the login that runs the functions. Default: the login that `hawser init` created. */
  readonly executorUrl: string | undefined;
  readonly settings: ServeSettings;
  readonly secretsDirectories: readonly string[];
  readonly choice: ServerChoice;
  readonly version: string;
  readonly logger: Logger;
  /** Called after each committed batch. */
  onBatch(messages: number, durationMs: number): void;
  /** Called after each run of a responder function, successful or not. */
  onRequest(responder: Pick<Responder, "id" | "subject" | "functionName">, durationMs: number): void;
}

/** Counts for metrics and health checks. */
export interface BridgeStats {
  readonly role: PostgresRole;
  /** Epoch of the current leadership; undefined if this process is not the leader. */
  readonly epoch: bigint | undefined;
  /** Epoch of the last leadership of this process; 0 if it never was the leader. */
  readonly lastEpoch: bigint;
  readonly subscriptions: Iterable<SubscriptionCounts>;
  readonly responders: ResponderServiceStats;
  readonly outbox: NatsOutboxStats;
  /** Counts of stream subscriptions; empty unless this process is the leader. */
  readonly streams: Iterable<StreamCounts>;
  /** Memory used by messages that are kept for a takeover. */
  readonly keptBytes: number;
  /** Messages discarded for lack of memory while this process was the leader. */
  readonly discarded: number;
  /** Messages that this process should have run after a takeover but had not kept, for lack of memory. */
  readonly missing: number;
}

const identitySql = `SELECT current_database() AS database, l.user_name AS login FROM ${tables.executorLogin} AS l`;

const deletedSavedText = "deleted the saved messages of subscriptions that have ended";

export class Bridge {
  readonly #options: BridgeOptions;
  readonly #session: PostgresSession;
  readonly #rareLog: RareLog;
  readonly #bindings: BindingWatch;
  readonly #roleWatch: RoleWatch;
  readonly #notices: RoleNotices;
  readonly #leadership: Leadership;
  /** Connections to NATS, one for each part. */
  readonly connectors: Readonly<Record<"subscriptions" | "responders" | "outbox" | "streams", NatsConnector>>;
  readonly #login: ExecutorLogin;
  readonly #pools: { readonly subscriptions: ExecutorPool; readonly responders: ExecutorPool };
  readonly #subscriptions: Subscriptions;
  readonly #streams: Streams;
  readonly #saved: SavedMessages;
  readonly #outbox: NatsOutbox;
  readonly #receiver: Receiver;
  #isSavingUnknown = false;
  /** True if at least one function is bound, so that the executor's login is needed. */
  #hasFunctions = false;
  /** True after the first attempt to open an executor session since functions were bound. */
  #hasTriedExecutor = false;
  #isProbing = false;
  /** Time of the last hand-over of leadership that was caused by a refused executor login. */
  #yieldedAt = Number.NEGATIVE_INFINITY;
  /** Subjects that the NATS server refused, until the next turn of the event loop handles them together. */
  readonly #refused = new Set<string>();
  /** Receive time of the oldest message that could not be saved. */
  #unsavedSince: number | undefined;
  /** Identifies the last call of {@link #syncReceiver}. Earlier calls stop when they see another value. */
  #syncing: symbol | undefined;
  #responderService: ResponderService | undefined;
  /** All responders in the database. They answer only where Postgres is a primary. */
  #responders: readonly Responder[] = [];
  #natsOptions: CompleteNatsServerOptions | undefined;
  #loggedDiscarded = 0;
  #lastEpoch = 0n;
  /** Set at shutdown: start of the period for which this process has received everything. */
  #receivedSince: number | undefined;
  /** Time at which the connection to NATS was lost; undefined while it is up. */
  #incompleteSince: number | undefined;
  /** Subjects that were subscribed when the connection was last lost; empty unless this process was the leader. */
  #lostSubjects: readonly string[] = [];
  #finished: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(options: BridgeOptions) {
    this.#options = options;
    const { databaseUrl, executorUrl, settings, secretsDirectories, choice, logger } = options;
    this.#rareLog = new RareLog(logger, "subscriptions");
    this.#session = new PostgresSession({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      applicationName: "hawser serve: bridge",
      channels: [notifyChannels.natsHandler],
      queryTimeoutMs: optionsPollMs * 2,
      onNotification: () => this.#bindings.soon(),
      onDown: () => this.#bindings.soon(),
    });
    this.#bindings = new BindingWatch({
      session: this.#session,
      logger,
      onBindings: (bindings) => this.#applyBindings(bindings),
      onRead: () => {
        this.#logDiscarded();
        void this.#probeExecutor();
      },
    });
    const connector = (name: string, usesLastMs: () => number): NatsConnector =>
      new NatsConnector({ name, secretsDirectories, choice, logger, natsWaitMs: settings.natsWaitMs, usesLastMs });
    this.connectors = {
      subscriptions: connector("hawser subscriptions", () => 0),
      // The time limit of a request applies twice: to its wait in the queue, and to its run.
      responders: connector("hawser responders", () => 2 * this.#responderTimeoutMs + executorOverdueMs),
      outbox: connector("hawser outbox", () => 0),
      streams: connector("hawser streams", () => 0),
    };
    this.#outbox = new NatsOutbox({
      databaseUrl,
      connector: this.connectors.outbox,
      logger,
      publisher: (connector, logProblem) => new NatsPublisher(connector, logProblem),
      settings,
    });
    this.#saved = new SavedMessages(this.#session, settings.savedBytes);
    const login = new ExecutorLogin({ databaseUrl, executorUrl, session: this.#session });
    this.#login = login;
    const pool = (limit: number): ExecutorPool => new ExecutorPool({ login, limit, logger });
    this.#pools = {
      subscriptions: pool(settings.subscriberSessions),
      responders: pool(settings.responderSessions),
    };
    this.#subscriptions = new Subscriptions({
      runner: new BatchRunner({
        pool: this.#pools.subscriptions,
        timeoutMs: settings.subscriberTimeoutMs,
        logger,
        rareLog: this.#rareLog,
      }),
      deadLetters: new DeadLetterWriter(this.#session, this.#rareLog),
      saved: this.#saved,
      settings,
      onFenced: () => this.#leadership.poke(),
      onRetried: () => this.#bindings.soon(),
      onDeadLettered: ({ subscription: { functionName, subject }, error: { code } }) => {
        this.#rareLog.warn("a message became a dead letter", `${functionName} on ${subject}: SQLSTATE ${code}`);
      },
      onStreamStep: (step, outcome) => this.#streams.onStep(step, outcome),
      onBatch: (messages, durationMs) => options.onBatch(messages, durationMs),
      onSpillFailed: (error) => {
        this.#rareLog.warn("cannot save messages for which there is no memory", errorText(error));
      },
    });
    this.#streams = new Streams({
      session: this.#session,
      connector: this.connectors.streams,
      subscriptions: () => this.#subscriptions,
      logger,
    });
    this.#receiver = new Receiver({
      connector: this.connectors.subscriptions,
      logger,
      onMessage: (pattern, message) => this.#subscriptions.deliver(pattern, message),
      onRefused: (pattern) => this.#onSubscriptionRefused(pattern),
      onConnectionLost: () => this.#onConnectionLost(),
      onSameServerAgain: () => this.#logLostSubjects(),
      onIncomplete: () => void this.#stepDownWithoutNats(),
      onComplete: () => this.#onComplete(),
    });
    this.#notices = new RoleNotices({ connector: this.connectors.subscriptions, logger });
    this.#leadership = new Leadership({
      databaseUrl,
      logger,
      unfinished: () => {
        const { oldestAt, behind } = this.#subscriptions.unfinished;
        const times = [oldestAt, this.#unsavedSince, this.#receiver.completeUntil, this.#incompleteSince];
        return { oldestAt: times.reduce(earliest), behind };
      },
      // A process that is shutting down must not become the leader.
      isReceiving: () => this.#receiver.isReceiving && this.#finished === undefined,
      canRun: () => !this.#login.attempts.isRefused,
      onSessionLost: () => this.#roleWatch.sessionLost(),
      completeSince: () => this.#subscriptions.kept.completeSince,
      receivedSince: () => this.#receivedSince ?? this.#subscriptions.kept.receivedSince,
      receivedUntil: () =>
        this.#incompleteSince ?? (this.#finished === undefined ? undefined : this.#receiver.completeUntil),
      onLeading: (epoch, { afterCleanEnd }) => this.#onLeading(epoch, afterCleanEnd),
      onDeposed: () => this.#onDeposed(),
      onWaiting: (epoch) => logger.info({ epoch }, "another process is the leader of the subscriptions"),
      onProgress: (progress) => {
        this.#subscriptions.kept.noteProgress(progress);
        void this.#saveUnknownToLeader();
      },
    });
    this.#roleWatch = new RoleWatch({
      session: this.#leadership.session,
      logger,
      onRole: (role, address) => this.#onRole(role, address),
    });
    this.connectors.responders.on("connected", (connection) => void this.#responderService?.attach(connection));
    this.connectors.responders.on("lost", () => this.#responderService?.detach());
  }

  /**
   * Starts a bridge. Resolves when it has read the bindings and knows whether it is the leader. Does not wait for NATS.
   *
   * @throws HawserError `store_failed` if the database does not answer; the reason of the signal if it is aborted
   */
  static async start(options: BridgeOptions, signal?: AbortSignal): Promise<Bridge> {
    const bridge = new Bridge(options);
    // Closes the session, so that a query that Postgres does not answer rejects at once.
    const end = (): void => void bridge.stop(0);
    signal?.addEventListener("abort", end);
    try {
      signal?.throwIfAborted();
      await bridge.#start();
      signal?.throwIfAborted();
      return bridge;
    } catch (error) {
      await bridge.stop(0);
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", end);
    }
  }

  get stats(): BridgeStats {
    return {
      role: this.#roleWatch.role,
      epoch: this.#leadership.epoch,
      lastEpoch: this.#lastEpoch,
      subscriptions: this.#subscriptions.counts(),
      responders: this.#responderService?.stats() ?? { responders: [], running: 0 },
      outbox: this.#outbox.stats,
      streams: this.#streams.counts(),
      keptBytes: this.#subscriptions.kept.bytes,
      discarded: this.#subscriptions.context.discards.total,
      missing: this.#subscriptions.missing,
    };
  }

  /**
   * Sessions with Postgres that this process needs, leader or not: two with the login of `hawser serve`, and those of
   * the executor.
   */
  get sessions(): readonly Pick<PostgresSession, "applicationName" | "attempts">[] {
    const executor = { applicationName: "hawser executor", attempts: this.#login.attempts };
    return [this.#session, this.#leadership.session, executor];
  }

  /**
   * Applies the options of the NATS server; undefined if there are none.
   *
   * @param because error that explains why there are no options; undefined if the database defines no NATS server
   */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    this.#natsOptions = options;
    for (const connector of Object.values(this.connectors)) connector.configure(options, because);
    if (options === undefined) {
      this.#receiver.detach();
      this.#responderService?.detach();
    }
    this.#notices.configure(options);
  }

  /**
   * Resolves when the connections with the options of the last `configure` are up, and all current subscriptions are
   * active in this process.
   *
   * @param always reconnects even if nothing has changed
   * @throws HawserError if a connection fails
   */
  async reload(always: boolean, signal: AbortSignal): Promise<void> {
    await Promise.all(
      Object.values(this.connectors).map((connector) =>
        always ? connector.reconnect(signal) : connector.ready(signal),
      ),
    );
    // A read that started earlier may not see the caller's commit.
    await this.#bindings.fresh();
    await Promise.all([this.#receiver.confirmed(), this.#responderService?.configure(this.#activeResponders)]);
  }

  /**
   * Stops receiving, runs the messages that were received, answers the requests that were accepted, and releases
   * leadership. Further calls return the promise of the first.
   *
   * @param deadlineMs time limit for running functions
   */
  finish(deadlineMs: number): Promise<void> {
    this.#finished ??= this.#finish(deadlineMs);
    return this.#finished;
  }

  /**
   * Graceful shutdown: {@link finish}, then closes all sessions and connections.
   *
   * @param deadlineMs time limit for running functions, and for the NATS server to confirm their answers
   */
  stop(deadlineMs: number): Promise<void> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  async #start(): Promise<void> {
    const { database, login } = await this.#readIdentity();
    const { settings, version, logger } = this.#options;
    this.#responderService = new ResponderService({
      ...requestQueueDefaults,
      ...settings,
      // Identical in every process of the database, also after a failover.
      database: createHash("sha256").update(`${login}/${database}`).digest("hex").slice(0, 16),
      version,
      metadata: { database },
      runner: new PostgresRequestRunner({
        pool: this.#pools.responders,
        timeoutMs: () => this.#responderTimeoutMs,
        successor: (responder) => this.#successor(responder),
        logger,
      }),
      logger,
      responderTimeoutMs: () => this.#responderTimeoutMs,
      use: (connection) => this.connectors.responders.use(connection),
      onRun: (responder, durationMs) => this.#options.onRequest(responder, durationMs),
    });
    await this.#bindings.run();
    await this.#roleWatch.run();
    await this.#leadership.start();
  }

  async #readIdentity(): Promise<{ readonly database: string; readonly login: string }> {
    try {
      const [identity] = await this.#session.query<{ database: string; login: string }>(identitySql);
      return identity!;
    } catch (cause) {
      throw await explainServeRefusal(this.#session, "read the login of subscribed functions", cause);
    }
  }

  get #responderTimeoutMs(): number {
    return this.#natsOptions?.responder_timeout_ms ?? 0;
  }

  async #finish(deadlineMs: number): Promise<void> {
    const over = AbortSignal.timeout(deadlineMs);
    const deadline = new Deadline(deadlineMs);
    this.#bindings.stop();
    this.#roleWatch.stop();
    this.#streams.stop();
    const answered = this.#responderService?.stop(Math.min(deadlineMs, responderStopMs));
    await this.#receiver.stop(Math.min(deadlineMs, responderStopMs));
    const draining = AbortSignal.timeout(deadlineMs / stopDrainDivisor);
    await this.#subscriptions.drain(draining);
    await this.#subscriptions.stop(draining);
    await this.#save(over);
    await this.#outbox.stop(deadline.remainingMs);
    await this.#leadership.stop(Math.max(leaderReleaseMs, deadline.remainingMs));
    await answered;
  }

  async #stop(deadlineMs: number): Promise<void> {
    const deadline = new Deadline(deadlineMs);
    await this.finish(deadlineMs);
    // Cancels a read of the bindings that may be running: nothing uses its result any more.
    await this.#session.close();
    await this.#bindings.ended();
    await this.#notices.stop();
    const leftMs = Math.max(stopReserveMs, deadline.remainingMs);
    await Promise.all(Object.values(this.connectors).map((connector) => connector.stop(leftMs)));
    await Promise.all(Object.values(this.#pools).map((pool) => pool.stop()));
    // Functions that still run have exceeded the deadline.
    for (const pool of Object.values(this.#pools)) pool.destroy();
    this.#rareLog.end();
    this.#logDiscarded();
  }

  /** Saves the messages that were received and not run; the next leader runs them. */
  async #save(deadline: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    // A follower's messages need no saving if another process has received them too.
    const mayBeLast =
      this.#leadership.epoch === undefined && this.#roleWatch.role === "primary" && this.#subscriptions.kept.length > 0;
    const others = mayBeLast ? await this.#leadership.othersHave(deadline) : undefined;
    // The last progress that this process writes must cover everything that it has received.
    this.#receivedSince = this.#subscriptions.kept.receivedSince;
    const unfinished = this.#subscriptions.takeUnfinished(others);
    if (unfinished.length === 0) return;
    let saved = 0;
    let error: unknown;
    for (;;) {
      const more = await this.#saved.save(unfinished.slice(saved), deadline);
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
    const { saved, error } = await this.#saved.save(messages, AbortSignal.timeout(bridgeConstants.leaderExpiryMs));
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
    await this.#saved
      .notifyLeader()
      .catch((err) =>
        this.#options.logger.debug(
          { err },
          "cannot notify the leader of saved messages; it finds them at its next poll",
        ),
      );
  }

  #onLeading(epoch: bigint, afterCleanEnd: boolean): void {
    this.#lastEpoch = epoch;
    this.#outbox.lead();
    this.#subscriptions.startTakeover(afterCleanEnd);
    void this.#startLeading(epoch);
  }

  /** Starts to run messages as the leader, once the table of saved messages has been read. */
  async #startLeading(epoch: bigint): Promise<void> {
    const { logger } = this.#options;
    let saved: Awaited<ReturnType<SavedMessages["startLeading"]>> | undefined;
    while (saved === undefined) {
      saved = await this.#saved.startLeading().catch((err) => {
        logger.debug({ err }, "cannot read which messages were saved; trying again");
        return undefined;
      });
      if (this.#leadership.epoch !== epoch || this.#finished !== undefined) return;
      if (saved === undefined) await unreferencedDelay(bridgeConstants.leaderHeartbeatMs, undefined, { ref: false });
    }
    const { ids, deleted } = saved;
    if (ids.size > 0) logger.info({ subscriptions: ids.size }, "running messages that other processes saved");
    if (deleted > 0) logger.info({ deleted }, deletedSavedText);
    const { repeated, missing } = this.#subscriptions.lead(epoch, ids);
    this.#streams.startLeading(epoch);
    if (repeated > 0) logger.info({ repeated }, "running messages that the previous leader may not have finished");
    if (missing.size > 0) {
      logger.warn(
        { bySubject: firstEntries(missing) },
        "some messages that the previous leader may not have finished are missing: they did not fit into --buffer",
      );
    }
    this.#notices.setLeading(true);
    // The connection to NATS may have been lost during the takeover.
    if (!this.#receiver.isReceiving) void this.#stepDownWithoutNats();
    // Reads the stream bindings, which only the leader uses, and the dead letters that wait for a retry.
    this.#bindings.soon();
  }

  /**
   * Records the subjects of a leader that has lost its connection. Messages that the server had not yet sent over that
   * connection are lost unless another process has received them.
   */
  #onConnectionLost(): void {
    this.#lostSubjects = this.#leadership.epoch === undefined ? [] : this.#subscriptions.countLostConnection();
  }

  #logLostSubjects(): void {
    const subjects = this.#lostSubjects;
    if (subjects.length === 0) return;
    this.#options.logger.error(
      { subjects: subjects.slice(0, 20), inAll: subjects.length },
      "lost the connection to a NATS server that kept running: messages arrived faster than this process reads (slow consumer), or " +
        "the network failed; messages of these subjects in transit are lost unless another process has received them",
    );
  }

  /**
   * Releases leadership after the connection to NATS was lost: runs the received messages, then lets a process that
   * still receives take over.
   */
  async #stepDownWithoutNats(): Promise<void> {
    this.#incompleteSince ??= this.#receiver.completeUntil;
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(silentDrainMs));
    await this.#leadership.stepDown("the connection to NATS was lost, and another process may still receive messages");
    if (this.#receiver.isReceiving) this.#incompleteSince = undefined;
  }

  /**
   * Opens an executor session to find out whether functions can be called: once after functions were bound, and again
   * while the login fails. After a success, the pool records the result of each session that it opens. Does not reject.
   */
  async #probeExecutor(): Promise<void> {
    const { attempts } = this.#login;
    if (!this.#hasFunctions) {
      attempts.succeeded();
      this.#hasTriedExecutor = false;
      return;
    }
    if (this.#isProbing || (this.#hasTriedExecutor && attempts.failure(0) === undefined)) return;
    this.#isProbing = true;
    await this.#pools.subscriptions.probe();
    this.#isProbing = false;
    this.#hasTriedExecutor = true;
  }

  /** True if this process could be the leader and run the subscribed functions. */
  get canLead(): boolean {
    const isReady = this.#receiver.isReceiving && this.#finished === undefined && this.#roleWatch.role === "primary";
    return isReady && !this.#login.attempts.isRefused;
  }

  /** Releases leadership if the executor's login is refused here and another process could lead. Does not reject. */
  async yieldLeadership(): Promise<void> {
    const { attempts } = this.#login;
    const now = performance.now();
    if (this.#leadership.epoch === undefined || this.#finished !== undefined || !attempts.isRefused) return;
    // During a failover, one attempt can reach a different server than the bridge's session does, and be refused there.
    const refusedMs = Date.now() - attempts.failure(0)!.since.getTime();
    if (refusedMs < optionsPollMs || now - this.#yieldedAt < handOverPauseMs) return;
    this.#yieldedAt = now;
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(silentDrainMs));
    await this.#leadership.stepDown("the executor's login is refused here, and another process can run the functions");
  }

  #onComplete(): void {
    // A leader keeps `#incompleteSince` until it has released leadership: its progress must not cover the gap.
    if (this.#leadership.epoch === undefined) this.#incompleteSince = undefined;
    this.#subscriptions.noteGap(performance.now());
    this.#leadership.poke();
  }

  #onDeposed(): void {
    this.#outbox.follow();
    this.#streams.stopLeading();
    this.#subscriptions.stopLeading();
    this.#notices.setLeading(false);
  }

  #onRole(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#notices.setRole(role, address);
    if (role === "primary") {
      this.#leadership.poke();
      this.#bindings.soon();
    }
    void this.#responderService?.configure(this.#activeResponders);
  }

  /**
   * Responders that this process serves: none on a standby. If Postgres does not answer, the process serves all of
   * them, so that requesters get an error at once.
   */
  get #activeResponders(): readonly Responder[] {
    return this.#roleWatch.role === "standby" ? [] : this.#responders;
  }

  async #successor({ subject, wrapper }: Responder): Promise<Responder | undefined> {
    await this.#bindings.fresh();
    return this.#activeResponders.find((each) => each.subject === subject && each.wrapper !== wrapper);
  }

  async #applyBindings({ subscriptions, responders, streams, saved, hasRetries }: Bindings): Promise<void> {
    this.#responders = responders;
    this.#hasFunctions = subscriptions.length + responders.length + streams.length > 0;
    const ended = this.#subscriptions.configure(subscriptions);
    this.#syncReceiver();
    // Not awaited: the responders' connection may hang, and the subscriptions must not wait for it.
    void this.#responderService?.configure(this.#activeResponders);
    this.#subscriptions.wake();
    if (this.#leadership.epoch !== undefined) {
      await this.#saved.countOf(saved);
      this.#subscriptions.expectSaved(saved);
      const deleted = ended.length === 0 ? 0 : await this.#saved.deleteOf(ended);
      if (deleted > 0) this.#options.logger.info({ deleted }, deletedSavedText);
      await this.#streams.configure(streams);
      if (hasRetries) this.#subscriptions.retry(await readRetries(this.#session, this.#subscriptions.retrying));
    }
  }

  /**
   * Handles all refusals of one turn of the event loop together, because each handling computes the receivers of a
   * whole role again.
   */
  #onSubscriptionRefused(pattern: string): void {
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
   * Subscribes to all receivers at NATS. A receiver that was replaced is unsubscribed only after the server has
   * processed the new subscriptions.
   */
  #syncReceiver(): void {
    const call = (this.#syncing = Symbol());
    this.#receiver.subscribe(this.#subscriptions.receivers);
    void this.#receiver.confirmed().then(() => {
      if (this.#syncing !== call) return;
      this.#subscriptions.removeFormerReceivers();
      this.#receiver.subscribe(this.#subscriptions.receivers);
    });
  }

  #logDiscarded(): void {
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
}

/** First 20 entries, to limit the length of a log line. */
function firstEntries(bySubject: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...bySubject].slice(0, 20));
}
