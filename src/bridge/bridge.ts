/**
 * From NATS to SQL: messages and requests run the functions that are subscribed, or registered to answer.
 *
 * Three connections to NATS lead apart what must not hold up each other: the gateway's, one for subscriptions, one for
 * responders. One process of several leads the subscriptions; all of them answer requests.
 */
import { createHash } from "node:crypto";
import { setTimeout as unreferencedDelay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { notifyChannels, tables } from "../../generated/ts/rows/nats.js";
import { bridgeConstants, gatewayConstants, type ServeSettings } from "../../generated/ts/settings/nats.js";
import type { HawserError } from "../errors/index.js";
import { NatsConnector, type ServerChoice } from "../nats/index.js";
import { DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { Deadline, delay, type Logger, RareLog, whenAborted } from "../runtime/index.js";
import { type Bindings, BindingWatch, type Responder } from "./bindings.js";
import { DeadLetterWriter, readRetries } from "./dead-letters.js";
import { BatchRunner, ExecutorLogin, ExecutorPool, PostgresRequestRunner, wordsOf } from "./executor/index.js";
import { Leadership } from "./leadership/index.js";
import { earliest } from "./message.js";
import { Receiver } from "./receiver.js";
import { ResponderService, type ResponderServiceStats } from "./responders/index.js";
import { type PostgresRole, RoleNotices, RoleWatch, type ServerAddress } from "./role/index.js";
import { SavedMessages } from "./saved-messages.js";
import { type SubscriptionCounts, Subscriptions } from "./subscriptions.js";

const { optionsPollMs } = gatewayConstants;

/** How it is made. */
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

/** What is counted. */
export interface BridgeStats {
  readonly role: PostgresRole;
  /** In which it leads. */
  readonly epoch: bigint | undefined;
  /** In which it has led last; 0: it has not. */
  readonly lastEpoch: bigint;
  readonly subscriptions: Iterable<SubscriptionCounts>;
  readonly responders: ResponderServiceStats;
  /** What is kept for a takeover. */
  readonly keptBytes: number;
  /** Messages that there was no room for while it led. */
  readonly discarded: number;
  /** Messages that it would have run at a takeover, and that there was no room for. */
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
  readonly #connectors: { readonly subscriptions: NatsConnector; readonly responders: NatsConnector };
  readonly #pools: { readonly subscriptions: ExecutorPool; readonly responders: ExecutorPool };
  readonly #subscriptions: Subscriptions;
  readonly #saved: SavedMessages;
  readonly #receiver: Receiver;
  #isHandingOver = false;
  /** The NATS server has just refused these. */
  readonly #refused = new Set<string>();
  /** When the oldest message was received that could not be saved. */
  #unsavedSince: number | undefined;
  /** Of the last time that it was said what is received. */
  #listening: symbol | undefined;
  #responderService: ResponderService | undefined;
  /** As the database has them; they answer where it is a primary. */
  #responders: readonly Responder[] = [];
  #natsOptions: CompleteNatsServerOptions | undefined;
  #toldDiscarded = 0;
  #lastEpoch = 0n;
  /** Since when it received everything, as it was when it ended. */
  #receivedSince: number | undefined;
  /** When it ceased to receive; undefined: it receives. */
  #silentSince: number | undefined;
  /** Those that were received here when the connection was last lost, if this process led. */
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
      onRead: () => this.#tellDiscarded(),
    });
    const connector = (name: string, usesLastMs: () => number): NatsConnector =>
      new NatsConnector({ name, secretsDirectories, choice, logger, natsWaitMs: settings.natsWaitMs, usesLastMs });
    this.#connectors = {
      subscriptions: connector("hawser subscriptions", () => 0),
      // A request may wait for its turn as long as it may run.
      responders: connector(
        "hawser responders",
        () => 2 * this.#responderTimeoutMs + bridgeConstants.executorOverdueMs,
      ),
    };
    this.#saved = new SavedMessages(this.#session, settings.savedBytes);
    const login = new ExecutorLogin({ databaseUrl, executorUrl, session: this.#session });
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
      sessions: settings.subscriberSessions,
      timeoutMs: settings.subscriberTimeoutMs,
      bufferBytes: settings.bufferBytes,
      takeoverBufferMs: settings.takeoverBufferMs,
      onRefused: () => this.#leadership.poke(),
      onRetried: () => this.#bindings.soon(),
      onDeadLettered: ({ subscription: { functionName, subject }, error: { code } }) => {
        this.#rareLog.warn("a message became a dead letter", `${functionName} on ${subject}: SQLSTATE ${code}`);
      },
      onBatch: (messages, durationMs) => options.onBatch(messages, durationMs),
      onNotSpilled: (error) => {
        this.#rareLog.warn("messages that there is no memory for cannot be saved now", wordsOf(error));
      },
    });
    this.#receiver = new Receiver({
      connector: this.#connectors.subscriptions,
      logger,
      onMessage: (pattern, message) => this.#subscriptions.deliver(pattern, message),
      onRefused: (pattern) => this.#refusedSoon(pattern),
      onCut: () => this.#cut(),
      onSameServer: () => this.#tellCut(),
      onSilent: () => void this.#fallSilent(),
      onReceiving: () => this.#receivesAgain(),
    });
    this.#notices = new RoleNotices({ connector: this.#connectors.subscriptions, logger });
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
      completeSince: () => this.#subscriptions.completeSince,
      receivedSince: () => this.#receivedSince ?? this.#subscriptions.receivedSince,
      receivedUntil: () =>
        this.#silentSince ?? (this.#finished === undefined ? undefined : this.#receiver.completeUntil),
      onLeading: (epoch, { afterCleanEnd }) => this.#leads(epoch, afterCleanEnd),
      onDeposed: () => this.#follows(),
      onWaiting: (epoch) => logger.info({ epoch }, "another process leads the subscriptions"),
      onProgress: (progress) => {
        this.#subscriptions.noteProgress(progress);
        void this.#handOver();
      },
    });
    this.#roleWatch = new RoleWatch({ databaseUrl, logger, onRole: (role, address) => this.#found(role, address) });
    this.#connectors.responders.on("connected", (connection) => void this.#responderService?.attach(connection));
    this.#connectors.responders.on("lost", () => this.#responderService?.detach());
  }

  /**
   * Resolves when it has read what is subscribed, and knows whether it leads. NATS need not be there yet.
   *
   * @throws HawserError if the database cannot be asked; the reason of the signal
   */
  static async start(options: BridgeOptions, signal?: AbortSignal): Promise<Bridge> {
    const bridge = new Bridge(options);
    // Postgres may keep us waiting.
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

  /** What is counted now. */
  get stats(): BridgeStats {
    return {
      role: this.#roleWatch.role,
      epoch: this.#leadership.epoch,
      lastEpoch: this.#lastEpoch,
      subscriptions: this.#subscriptions.counts(),
      responders: this.#responderService?.stats() ?? { responders: [], running: 0 },
      keptBytes: this.#subscriptions.bufferBytes,
      discarded: this.#subscriptions.discarded.total,
      missing: this.#subscriptions.missing,
    };
  }

  /** The connections to NATS. */
  get connectors(): { readonly subscriptions: NatsConnector; readonly responders: NatsConnector } {
    return this.#connectors;
  }

  /** Takes the options of the NATS server; undefined: none is defined. @param because why, if it is not that */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    this.#natsOptions = options;
    for (const connector of Object.values(this.#connectors)) connector.configure(options, because);
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
   * @throws NatsError why one is not there
   */
  async reload(always: boolean, signal: AbortSignal): Promise<void> {
    await Promise.all(
      Object.values(this.#connectors).map((connector) =>
        always ? connector.reconnect(signal) : connector.ready(signal),
      ),
    );
    // It is to see what the caller has committed.
    await this.#bindings.fresh();
    await Promise.all([this.#receiver.known(), this.#responderService?.configure(this.#answering)]);
  }

  /**
   * Receives nothing more: runs what it has received, answers what it was asked, and gives leadership to another process.
   * A further call waits for the first.
   *
   * @param deadlineMs how long functions may take for it
   */
  finish(deadlineMs: number): Promise<void> {
    this.#finished ??= this.#finish(deadlineMs);
    return this.#finished;
  }

  /**
   * Ends in good order: finishes, and closes what was opened.
   *
   * @param deadlineMs also how long the NATS server may take to say that it has the answers
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
      maxConcurrent: settings.responderSessions,
      maxQueuedPerResponder: bridgeConstants.maxQueuedRequests,
      maxQueuedBytesPerResponder: bridgeConstants.maxQueuedRequestBytes,
      responderTimeoutMs: () => this.#responderTimeoutMs,
      use: (connection) => this.#connectors.responders.use(connection),
      onRun: (responder, durationMs) => this.#options.onRequest(responder, durationMs),
    });
    await this.#bindings.run();
    await this.#roleWatch.start();
    if (this.#roleWatch.role === "primary") await this.#leadership.start();
  }

  get #responderTimeoutMs(): number {
    return this.#natsOptions?.responder_timeout_ms ?? 0;
  }

  async #finish(deadlineMs: number): Promise<void> {
    const over = AbortSignal.timeout(deadlineMs);
    const deadline = new Deadline(deadlineMs);
    this.#bindings.stop();
    await this.#roleWatch.stop();
    const answered = this.#responderService?.stop(Math.min(deadlineMs, bridgeConstants.responderStopMs));
    await this.#receiver.stop(Math.min(deadlineMs, bridgeConstants.responderStopMs));
    const draining = AbortSignal.timeout(deadlineMs / bridgeConstants.stopDrainDivisor);
    await this.#subscriptions.drain(draining);
    await this.#subscriptions.stop(draining);
    await this.#save(over);
    await this.#leadership.stop(Math.max(bridgeConstants.leaderReleaseMs, deadline.remainingMs));
    await answered;
  }

  async #stop(deadlineMs: number): Promise<void> {
    const deadline = new Deadline(deadlineMs);
    await this.finish(deadlineMs);
    // What is being read is of no use any more.
    await this.#session.close();
    await this.#bindings.ended();
    await this.#notices.stop();
    const leftMs = Math.max(gatewayConstants.stopReserveMs, deadline.remainingMs);
    await Promise.all(Object.values(this.#connectors).map((connector) => connector.stop(leftMs)));
    await Promise.all(Object.values(this.#pools).map((pool) => pool.stop()));
    // What still runs has had its time.
    for (const pool of Object.values(this.#pools)) pool.destroy();
    this.#rareLog.end();
    this.#tellDiscarded();
  }

  /** Saves what it has not run, for the next leader. */
  async #save(deadline: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    // What it has kept is another one's to run, if there is one.
    const mayBeLast =
      this.#leadership.epoch === undefined && this.#roleWatch.role === "primary" && this.#subscriptions.hasKept;
    const others = mayBeLast ? await this.#leadership.othersHave(deadline) : undefined;
    // What it says of its progress in the end is about all that it has received.
    this.#receivedSince = this.#subscriptions.receivedSince;
    const { unfinished, savedDone } = this.#subscriptions.leave(others);
    for (const [subscription, ids] of savedDone) {
      // Else it is run again.
      await Promise.race([this.#saved.done(subscription, ids).catch(() => undefined), whenAborted(deadline)]);
    }
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

  /** Saves what the leader has not received, as when this process led and stood still for a while: then that one runs it. */
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
    if (repeated > 0) logger.info({ repeated }, "runs the messages that the last leader may not have done");
    if (missing.size > 0) {
      logger.warn(
        { bySubject: shown(missing) },
        "messages that the last leader may not have done are missing: more came than --buffer-bytes has room for",
      );
    }
    this.#notices.lead(true);
    // It has ceased to receive while it took leadership.
    if (!this.#receiver.isReceiving) void this.#fallSilent();
    // Dead letters may wait to be handled again.
    this.#bindings.soon();
  }

  /** What the server had for this process is lost, unless another process has it. */
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

  /** Others may receive what this process does not: it does what it has, and gives leadership back. */
  async #fallSilent(): Promise<void> {
    this.#silentSince ??= this.#receiver.completeUntil;
    this.#subscriptions.hold();
    await this.#subscriptions.drain(AbortSignal.timeout(bridgeConstants.silentDrainMs));
    await this.#leadership.stepDown(
      "the connection to NATS was lost, and others may receive what this process does not",
    );
    if (this.#receiver.isReceiving) this.#silentSince = undefined;
  }

  #receivesAgain(): void {
    // A lead that is about to be given back is not complete.
    if (this.#leadership.epoch === undefined) this.#silentSince = undefined;
    this.#subscriptions.receivesAgain(performance.now());
    this.#leadership.poke();
  }

  #follows(): void {
    this.#subscriptions.follow();
    this.#notices.lead(false);
  }

  #found(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#notices.found(role, address);
    if (role === "standby") this.#leadership.pause("Postgres is a standby");
    if (role === "primary") {
      this.#leadership.resume();
      this.#bindings.soon();
    }
    void this.#responderService?.configure(this.#answering);
  }

  /** On a replica nothing is run; where Postgres does not answer, callers are told. */
  get #answering(): readonly Responder[] {
    return this.#roleWatch.role === "standby" ? [] : this.#responders;
  }

  async #successor({ subject, wrapper }: Responder): Promise<Responder | undefined> {
    await this.#bindings.fresh();
    return this.#answering.find((one) => one.subject === subject && one.wrapper !== wrapper);
  }

  async #take({ subscriptions, responders }: Bindings): Promise<void> {
    this.#responders = responders;
    const ended = this.#subscriptions.configure(subscriptions);
    this.#listen();
    // Its connection may be silent: the subscriptions do not wait for what the server says of it.
    void this.#responderService?.configure(this.#answering);
    this.#subscriptions.wake();
    if (this.#leadership.epoch !== undefined) {
      this.#subscriptions.expectSaved(await this.#saved.present());
      const forgotten = ended.length === 0 ? 0 : await this.#saved.forget(ended);
      if (forgotten > 0) this.#options.logger.info({ forgotten }, forgets);
      this.#subscriptions.retry(await readRetries(this.#session, this.#subscriptions.retrying));
    }
  }

  /** What is refused together is dealt with together: for each subject of a role all of its subjects are checked. */
  #refusedSoon(pattern: string): void {
    // What was received in its place goes on.
    this.#listening = undefined;
    this.#refused.add(pattern);
    if (this.#refused.size > 1) return;
    setImmediate(() => {
      this.#subscriptions.refused(this.#refused);
      this.#refused.clear();
      this.#listen();
    });
  }

  /** Subscribes at NATS. A subject for which another one is to receive is left when the server knows the other one. */
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
    const { total, bySubject, other } = this.#subscriptions.discarded;
    if (total === this.#toldDiscarded) return;
    const more = total - this.#toldDiscarded;
    this.#toldDiscarded = total;
    this.#options.logger.error(
      { discarded: more, inAll: total, bySubject: shown(bySubject), other },
      "messages were discarded: more came than functions could take, and than could be kept: in memory (--buffer-bytes), or in the " +
        "table of saved messages, which has a limit (--saved-bytes) and can be written only so fast",
    );
  }
}

/** For the log, which is not to have lines of any length. */
function shown(bySubject: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...bySubject].slice(0, 20));
}
