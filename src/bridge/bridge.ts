/**
 * The bridge of one process: makes the parts, and passes on what each tells the others.
 *
 * Subscriptions, responders, the outbox and streams have a connection to NATS each, beside the gateway's, so that none holds
 * up another. One process of several leads: it runs the subscriptions, reads the streams and relays the outbox. All of them
 * answer requests.
 */
import { createHash } from "node:crypto";
import { setTimeout as unreferencedDelay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { notifyChannels, tables } from "../../generated/ts/rows/nats.js";
import { bridgeConstants, gatewayConstants, type ServeSettings } from "../../generated/ts/settings/nats.js";
import type { HawserError } from "../errors/index.js";
import { NatsConnector, type ServerChoice } from "../nats/index.js";
import { NatsOutbox, type NatsOutboxStats } from "../outbox/index.js";
import { DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { Deadline, delay, type Logger, RareLog, whenAborted } from "../runtime/index.js";
import { type Bindings, BindingWatch, type Responder } from "./bindings.js";
import { DeadLetterWriter, readRetries } from "./dead-letters.js";
import { BatchRunner, ExecutorLogin, ExecutorPool, PostgresRequestRunner, wordsOf } from "./executor/index.js";
import { Leadership } from "./leadership/index.js";
import { earliest } from "./message.js";
import { NatsPublisher } from "./nats-publisher.js";
import { Receiver } from "./receiver.js";
import { ResponderService, type ResponderServiceStats } from "./responders/index.js";
import { type PostgresRole, RoleNotices, RoleWatch, type ServerAddress } from "./role/index.js";
import { SavedMessages } from "./saved-messages.js";
import { type StreamCounts, Streams } from "./streams/index.js";
import { type SubscriptionCounts, Subscriptions } from "./subscriptions.js";

const { optionsPollMs } = gatewayConstants;

/** What a bridge is made with. */
export interface BridgeOptions {
  readonly databaseUrl: string | undefined;
  /** The login of the functions. Default: the one that `hawser init` has made. */
  readonly executorUrl: string | undefined;
  readonly settings: ServeSettings;
  readonly secretsDirectories: readonly string[];
  readonly choice: ServerChoice;
  readonly version: string;
  readonly logger: Logger;
  /** A batch was committed. */
  onBatch(messages: number, durationMs: number): void;
  /** The function of a responder was run, however it ended. */
  onRequest(responder: Pick<Responder, "id" | "subject" | "functionName">, durationMs: number): void;
}

/** What is counted, for metrics and health. */
export interface BridgeStats {
  readonly role: PostgresRole;
  /** The epoch in which this process leads; undefined: it does not. */
  readonly epoch: bigint | undefined;
  /** The epoch in which it led last; 0: it never has. */
  readonly lastEpoch: bigint;
  readonly subscriptions: Iterable<SubscriptionCounts>;
  readonly responders: ResponderServiceStats;
  readonly outbox: NatsOutboxStats;
  /** Subscriptions to streams, while this process leads. */
  readonly streams: Iterable<StreamCounts>;
  /** The memory of messages that are kept for a takeover. */
  readonly keptBytes: number;
  /** Messages discarded for lack of room while it led. */
  readonly discarded: number;
  /** Messages that it should have run at a takeover, and had not kept for lack of room. */
  readonly missing: number;
}

const identitySql = `SELECT current_database() AS database, l.user_name AS login FROM ${tables.executorLogin} AS l`;

const forgets = "saved messages of subscriptions that have ended are forgotten";

export class Bridge {
  readonly #options: BridgeOptions;
  readonly #session: PostgresSession;
  readonly #rareLog: RareLog;
  readonly #bindings: BindingWatch;
  readonly #roleWatch: RoleWatch;
  readonly #notices: RoleNotices;
  readonly #leadership: Leadership;
  /** The connections to NATS. */
  readonly connectors: Readonly<Record<"subscriptions" | "responders" | "outbox" | "streams", NatsConnector>>;
  readonly #login: ExecutorLogin;
  readonly #pools: { readonly subscriptions: ExecutorPool; readonly responders: ExecutorPool };
  readonly #subscriptions: Subscriptions;
  readonly #streams: Streams;
  readonly #saved: SavedMessages;
  readonly #outbox: NatsOutbox;
  readonly #receiver: Receiver;
  #isHandingOver = false;
  /** There are functions that the executor's login is for. */
  #hasFunctions = false;
  /** A session of the executor has been tried while there were. */
  #hasProbed = false;
  #isProbing = false;
  /** When leadership was last handed over because the executor's login is refused. */
  #gaveWayAt = Number.NEGATIVE_INFINITY;
  /** Subjects that the NATS server has just refused. */
  readonly #refused = new Set<string>();
  /** When the oldest message that could not be saved was received. */
  #unsavedSince: number | undefined;
  /** Identifies the last call of #listen: an earlier one does not go on. */
  #listening: symbol | undefined;
  #responderService: ResponderService | undefined;
  /** As the database has them; they answer only where it is a primary. */
  #responders: readonly Responder[] = [];
  #natsOptions: CompleteNatsServerOptions | undefined;
  #toldDiscarded = 0;
  #lastEpoch = 0n;
  /** Set when the process ends: since when it had received everything. */
  #receivedSince: number | undefined;
  /** When the connection to NATS was lost; undefined: it receives. */
  #silentSince: number | undefined;
  /** The subjects received when the connection was last lost, if this process led. */
  #cutSubjects: readonly string[] = [];
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
      onBindings: (bindings) => this.#take(bindings),
      onRead: () => {
        this.#tellDiscarded();
        void this.#probeExecutor();
      },
    });
    const connector = (name: string, usesLastMs: () => number): NatsConnector =>
      new NatsConnector({ name, secretsDirectories, choice, logger, natsWaitMs: settings.natsWaitMs, usesLastMs });
    this.connectors = {
      subscriptions: connector("hawser subscriptions", () => 0),
      // A request may wait for its turn as long as it may run.
      responders: connector(
        "hawser responders",
        () => 2 * this.#responderTimeoutMs + bridgeConstants.executorOverdueMs,
      ),
      outbox: connector("hawser outbox", () => 0),
      streams: connector("hawser streams", () => 0),
    };
    this.#outbox = new NatsOutbox({
      databaseUrl,
      connector: this.connectors.outbox,
      logger,
      publisher: (connector, tell) => new NatsPublisher(connector, tell),
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
      onRefused: () => this.#leadership.poke(),
      onRetried: () => this.#bindings.soon(),
      onDeadLettered: ({ subscription: { functionName, subject }, error: { code } }) => {
        this.#rareLog.warn("a message became a dead letter", `${functionName} on ${subject}: SQLSTATE ${code}`);
      },
      onHosted: (step, outcome) => this.#streams.settled(step, outcome),
      onBatch: (messages, durationMs) => options.onBatch(messages, durationMs),
      onNotSpilled: (error) => {
        this.#rareLog.warn("messages that there is no memory for cannot be saved now", wordsOf(error));
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
      onRefused: (pattern) => this.#refusedSoon(pattern),
      onCut: () => this.#cut(),
      onSameServer: () => this.#tellCut(),
      onSilent: () => void this.#fallSilent(),
      onReceiving: () => this.#receivesAgain(),
    });
    this.#notices = new RoleNotices({ connector: this.connectors.subscriptions, logger });
    this.#leadership = new Leadership({
      databaseUrl,
      logger,
      unfinished: () => {
        const { oldestAt, behind } = this.#subscriptions.unfinished;
        const ofAll = [oldestAt, this.#unsavedSince, this.#receiver.completeUntil, this.#silentSince];
        return { oldestAt: ofAll.reduce(earliest), behind };
      },
      // A process that is about to end does not become the leader.
      isReceiving: () => this.#receiver.isReceiving && this.#finished === undefined,
      canRun: () => !this.#login.attempts.isRefused,
      onSessionLost: () => this.#roleWatch.sessionLost(),
      completeSince: () => this.#subscriptions.kept.completeSince,
      receivedSince: () => this.#receivedSince ?? this.#subscriptions.kept.receivedSince,
      receivedUntil: () =>
        this.#silentSince ?? (this.#finished === undefined ? undefined : this.#receiver.completeUntil),
      onLeading: (epoch, { afterCleanEnd }) => this.#leads(epoch, afterCleanEnd),
      onDeposed: () => this.#follows(),
      onWaiting: (epoch) => logger.info({ epoch }, "another process leads the subscriptions"),
      onProgress: (progress) => {
        this.#subscriptions.kept.noteProgress(progress);
        void this.#handOver();
      },
    });
    this.#roleWatch = new RoleWatch({
      session: this.#leadership.session,
      logger,
      onRole: (role, address) => this.#found(role, address),
    });
    this.connectors.responders.on("connected", (connection) => void this.#responderService?.attach(connection));
    this.connectors.responders.on("lost", () => this.#responderService?.detach());
  }

  /**
   * Resolves when it has read what is subscribed, and knows whether it leads. NATS need not be there yet.
   *
   * @throws HawserError if the database cannot be asked; the reason of the signal
   */
  static async start(options: BridgeOptions, signal?: AbortSignal): Promise<Bridge> {
    const bridge = new Bridge(options);
    // Postgres may not answer for a while.
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

  /** The present counts. */
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
   * The sessions with Postgres that it needs, whether it leads or not: those that it keeps by the login of `hawser serve`, and
   * those of the executor.
   */
  get sessions(): readonly Pick<PostgresSession, "applicationName" | "attempts">[] {
    const executor = { applicationName: "hawser executor", attempts: this.#login.attempts };
    return [this.#session, this.#leadership.session, executor];
  }

  /** Takes the options of the NATS server; undefined: there are none. @param because why, unless no server is defined */
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
   * Resolves when the connections are there, with the options of the last `configure`, and when what is subscribed by now is
   * live in this process.
   *
   * @param always connects anew, also where nothing has changed
   * @throws HawserError if a connection cannot be made
   */
  async reload(always: boolean, signal: AbortSignal): Promise<void> {
    await Promise.all(
      Object.values(this.connectors).map((connector) =>
        always ? connector.reconnect(signal) : connector.ready(signal),
      ),
    );
    // A reading that began earlier may not see what the caller has committed.
    await this.#bindings.fresh();
    await Promise.all([this.#receiver.known(), this.#responderService?.configure(this.#answering)]);
  }

  /**
   * Receives nothing more: runs what it has received, answers what it was asked, and gives leadership to another process.
   * A further call waits for the first.
   *
   * @param deadlineMs how long functions may take
   */
  finish(deadlineMs: number): Promise<void> {
    this.#finished ??= this.#finish(deadlineMs);
    return this.#finished;
  }

  /**
   * Ends in good order: finishes, and closes what was opened.
   *
   * @param deadlineMs how long functions may take, and the NATS server to confirm their answers
   */
  stop(deadlineMs: number): Promise<void> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  async #start(): Promise<void> {
    const [identity] = await this.#session.query<{ database: string; login: string }>(identitySql);
    const { database, login } = identity!;
    const { settings, version, logger } = this.#options;
    this.#responderService = new ResponderService({
      ...bridgeConstants,
      ...settings,
      // The same for every process of the database, also after a failover.
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

  get #responderTimeoutMs(): number {
    return this.#natsOptions?.responder_timeout_ms ?? 0;
  }

  async #finish(deadlineMs: number): Promise<void> {
    const over = AbortSignal.timeout(deadlineMs);
    const deadline = new Deadline(deadlineMs);
    this.#bindings.stop();
    this.#roleWatch.stop();
    this.#streams.stop();
    const answered = this.#responderService?.stop(Math.min(deadlineMs, bridgeConstants.responderStopMs));
    await this.#receiver.stop(Math.min(deadlineMs, bridgeConstants.responderStopMs));
    const draining = AbortSignal.timeout(deadlineMs / bridgeConstants.stopDrainDivisor);
    await this.#subscriptions.drain(draining);
    await this.#subscriptions.stop(draining);
    await this.#save(over);
    await this.#outbox.stop(deadline.remainingMs);
    await this.#leadership.stop(Math.max(bridgeConstants.leaderReleaseMs, deadline.remainingMs));
    await answered;
  }

  async #stop(deadlineMs: number): Promise<void> {
    const deadline = new Deadline(deadlineMs);
    await this.finish(deadlineMs);
    // Ends a reading of the bindings, if there is one: it is of no use any more.
    await this.#session.close();
    await this.#bindings.ended();
    await this.#notices.stop();
    const leftMs = Math.max(gatewayConstants.stopReserveMs, deadline.remainingMs);
    await Promise.all(Object.values(this.connectors).map((connector) => connector.stop(leftMs)));
    await Promise.all(Object.values(this.#pools).map((pool) => pool.stop()));
    // What still runs is out of time.
    for (const pool of Object.values(this.#pools)) pool.destroy();
    this.#rareLog.end();
    this.#tellDiscarded();
  }

  /** Saves what it has not run, for the next leader. */
  async #save(deadline: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    // Another process runs what this one has kept, if there is another.
    const mayBeLast =
      this.#leadership.epoch === undefined && this.#roleWatch.role === "primary" && this.#subscriptions.kept.length > 0;
    const others = mayBeLast ? await this.#leadership.othersHave(deadline) : undefined;
    // The last progress that it writes is about all that it has received.
    this.#receivedSince = this.#subscriptions.kept.receivedSince;
    const unfinished = this.#subscriptions.leave(others);
    if (unfinished.length === 0) return;
    let saved = 0;
    let error: unknown;
    for (;;) {
      const more = await this.#saved.save(unfinished.slice(saved), deadline);
      saved += more.saved;
      error = more.error;
      if (saved === unfinished.length || deadline.aborted) break;
      logger.debug({ err: error }, "what was received and not run cannot be saved now; trying again");
      await delay(bridgeConstants.leaderHeartbeatMs, deadline);
    }
    if (saved > 0) {
      logger.info({ saved }, "saved messages that were received and not run: the next leader runs them");
      if (mayBeLast) await Promise.race([this.#announce(), whenAborted(deadline)]);
    }
    const lost = unfinished.slice(saved);
    if (lost.length === 0) return;
    this.#unsavedSince = lost[0]!.message.receivedAt;
    this.#subscriptions.discard(lost);
    const bySubject = new Map<string, number>();
    for (const { message } of lost) bySubject.set(message.subject, (bySubject.get(message.subject) ?? 0) + 1);
    logger.error(
      { err: error, lost: lost.length, bySubject: shown(bySubject) },
      "messages that were received could neither be run nor saved before the end: they are lost, unless another process has them",
    );
  }

  /** Saves what the leader has not received, for it to run: as when this process led, stood still, and was replaced. */
  async #handOver(): Promise<void> {
    const messages = this.#subscriptions.unknownToLeader;
    if (messages.length === 0 || this.#isHandingOver) return;
    this.#isHandingOver = true;
    const { saved, error } = await this.#saved.save(messages, AbortSignal.timeout(bridgeConstants.leaderExpiryMs));
    const { logger } = this.#options;
    if (saved > 0) {
      this.#subscriptions.handedOver(messages, saved);
      logger.info({ saved }, "saved messages that the leader has not received: it runs them");
      await this.#announce();
    }
    if (error !== undefined)
      logger.debug({ err: error }, "what the leader has not received cannot be saved now; trying again");
    this.#isHandingOver = false;
  }

  /** Tells the leader that there are more. Does not reject. */
  async #announce(): Promise<void> {
    await this.#saved
      .announce()
      .catch((err) => this.#options.logger.debug({ err }, "the leader was not told of them, and finds them by itself"));
  }

  #leads(epoch: bigint, afterCleanEnd: boolean): void {
    this.#lastEpoch = epoch;
    this.#outbox.lead();
    this.#subscriptions.take(afterCleanEnd);
    void this.#begin(epoch);
  }

  /** Runs what it has, once it is known what was saved. */
  async #begin(epoch: bigint): Promise<void> {
    const { logger } = this.#options;
    let saved: Awaited<ReturnType<SavedMessages["begin"]>> | undefined;
    while (saved === undefined) {
      saved = await this.#saved.begin().catch((err) => {
        logger.debug({ err }, "which messages were saved is not known yet");
        return undefined;
      });
      if (this.#leadership.epoch !== epoch || this.#finished !== undefined) return;
      if (saved === undefined) await unreferencedDelay(bridgeConstants.leaderHeartbeatMs, undefined, { ref: false });
    }
    const { ids, forgotten } = saved;
    if (ids.size > 0)
      logger.info({ subscriptions: ids.size }, "runs the messages that were saved at the end of a process");
    if (forgotten > 0) logger.info({ forgotten }, forgets);
    const { repeated, missing } = this.#subscriptions.lead(epoch, ids);
    this.#streams.lead(epoch);
    if (repeated > 0) logger.info({ repeated }, "runs the messages that the last leader may not have done");
    if (missing.size > 0) {
      logger.warn(
        { bySubject: shown(missing) },
        "messages that the last leader may not have done are missing: more came than --buffer has room for",
      );
    }
    this.#notices.lead(true);
    // The connection to NATS may have been lost while it took leadership.
    if (!this.#receiver.isReceiving) void this.#fallSilent();
    // Streams are read from then on, and dead letters may wait for a retry.
    this.#bindings.soon();
  }

  /** The connection is lost, and what the server had left for this process, unless another process has it. */
  #cut(): void {
    this.#cutSubjects = this.#leadership.epoch === undefined ? [] : this.#subscriptions.cut();
  }

  #tellCut(): void {
    const subjects = this.#cutSubjects;
    if (subjects.length === 0) return;
    this.#options.logger.error(
      { subjects: subjects.slice(0, 20), inAll: subjects.length },
      "the connection was lost while the NATS server lived on: messages came faster than this process reads (slow consumer), or " +
        "the network was at fault; what the server had left of these subjects is lost, unless another process has it",
    );
  }

  /** Others may receive what this process does not: it runs what it has, and gives leadership back. */
  async #fallSilent(): Promise<void> {
    this.#silentSince ??= this.#receiver.completeUntil;
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(bridgeConstants.silentDrainMs));
    await this.#leadership.stepDown(
      "the connection to NATS was lost, and others may receive what this process does not",
    );
    if (this.#receiver.isReceiving) this.#silentSince = undefined;
  }

  /**
   * Whether functions can be called: found out at first, and again while it is not so. Between that, each session that is opened
   * tells. Does not reject.
   */
  async #probeExecutor(): Promise<void> {
    const { attempts } = this.#login;
    if (!this.#hasFunctions) {
      attempts.succeeded();
      this.#hasProbed = false;
      return;
    }
    if (this.#isProbing || (this.#hasProbed && attempts.failure(0) === undefined)) return;
    this.#isProbing = true;
    await this.#pools.subscriptions.probe();
    this.#isProbing = false;
    this.#hasProbed = true;
  }

  /** This process could run the subscribed functions. */
  get canLead(): boolean {
    const isReady = this.#receiver.isReceiving && this.#finished === undefined && this.#roleWatch.role === "primary";
    return isReady && !this.#login.attempts.isRefused;
  }

  /** Hands leadership over where the executor's login is refused, and another process could lead. Does not reject. */
  async giveWay(): Promise<void> {
    const { attempts } = this.#login;
    const now = performance.now();
    if (this.#leadership.epoch === undefined || this.#finished !== undefined || !attempts.isRefused) return;
    // During a failover one attempt can reach another server than the bridge does.
    const refusedMs = Date.now() - attempts.failure(0)!.since.getTime();
    if (refusedMs < optionsPollMs || now - this.#gaveWayAt < bridgeConstants.handOverPauseMs) return;
    this.#gaveWayAt = now;
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(bridgeConstants.silentDrainMs));
    await this.#leadership.stepDown("the executor's login is refused here, and another process can run the functions");
  }

  #receivesAgain(): void {
    // While it leads, it is still going to give leadership back.
    if (this.#leadership.epoch === undefined) this.#silentSince = undefined;
    this.#subscriptions.receivesAgain(performance.now());
    this.#leadership.poke();
  }

  #follows(): void {
    this.#outbox.follow();
    this.#streams.follow();
    this.#subscriptions.follow();
    this.#notices.lead(false);
  }

  #found(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#notices.found(role, address);
    if (role === "primary") {
      this.#leadership.poke();
      this.#bindings.soon();
    }
    void this.#responderService?.configure(this.#answering);
  }

  /** None on a standby. Where Postgres does not answer, all: callers get an error. */
  get #answering(): readonly Responder[] {
    return this.#roleWatch.role === "standby" ? [] : this.#responders;
  }

  async #successor({ subject, wrapper }: Responder): Promise<Responder | undefined> {
    await this.#bindings.fresh();
    return this.#answering.find((one) => one.subject === subject && one.wrapper !== wrapper);
  }

  async #take({ subscriptions, responders, streams }: Bindings): Promise<void> {
    this.#responders = responders;
    this.#hasFunctions = subscriptions.length + responders.length + streams.length > 0;
    const ended = this.#subscriptions.configure(subscriptions);
    this.#listen();
    // Not awaited: its connection may not answer, and the subscriptions go on without.
    void this.#responderService?.configure(this.#answering);
    this.#subscriptions.wake();
    if (this.#leadership.epoch !== undefined) {
      this.#subscriptions.expectSaved(await this.#saved.present());
      const forgotten = ended.length === 0 ? 0 : await this.#saved.forget(ended);
      if (forgotten > 0) this.#options.logger.info({ forgotten }, forgets);
      await this.#streams.configure(streams);
      this.#subscriptions.retry(await readRetries(this.#session, this.#subscriptions.retrying));
    }
  }

  /** Refusals that come together are handled together, because each makes all subjects of its role be checked anew. */
  #refusedSoon(pattern: string): void {
    // Former receivers stay until the next #listen.
    this.#listening = undefined;
    this.#refused.add(pattern);
    if (this.#refused.size > 1) return;
    setImmediate(() => {
      this.#subscriptions.refused(this.#refused);
      this.#refused.clear();
      this.#listen();
    });
  }

  /** Subscribes at NATS. Where another subject takes over, the former one is left once the server knows the new one. */
  #listen(): void {
    const listening = (this.#listening = Symbol());
    this.#receiver.subscribe(this.#subscriptions.receivers);
    void this.#receiver.known().then(() => {
      if (this.#listening !== listening) return;
      this.#subscriptions.settleReceivers();
      this.#receiver.subscribe(this.#subscriptions.receivers);
    });
  }

  #tellDiscarded(): void {
    const { total, bySubject, other } = this.#subscriptions.context.discards;
    if (total === this.#toldDiscarded) return;
    const more = total - this.#toldDiscarded;
    this.#toldDiscarded = total;
    this.#options.logger.error(
      { discarded: more, inAll: total, bySubject: shown(bySubject), other },
      "messages were discarded: more came than functions could take, and than could be kept: in memory (--buffer), or in the " +
        "table of saved messages, which has a limit (--tune savedBytes) and can be written only so fast",
    );
  }
}

/** For the log, which is not to have lines of any length. */
function shown(bySubject: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...bySubject].slice(0, 20));
}
