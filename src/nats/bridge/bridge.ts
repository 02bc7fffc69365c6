/**
 * The bridge of one process: builds its parts, and gives them the bindings and the options of NATS.
 *
 * Subscriptions, responders, the outbox and streams each have their own connection to NATS, besides the gateway's, so
 * that none of them delays another. One process is the leader: it runs the subscriptions, reads the streams and relays
 * the outbox (`succession.ts`). Every process answers requests.
 */

import { createHash } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { tables } from "../../../generated/ts/rows/nats.js";
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import type { HawserError } from "../../foundation/errors/index.js";
import type { PostgresSession } from "../../foundation/postgres/index.js";
import { Deadline, type Logger, RareLog, stopReserveMs } from "../../foundation/runtime/index.js";
import { explainServeRefusal } from "../../jobs-and-peers/migrations/index.js";
import { NatsConnector, type ServerChoice } from "../connections/index.js";
import { NatsOutbox, type NatsOutboxStats, NatsPublisher } from "../outbox/index.js";
import { type Bindings, BindingWatch, type Responder, type Subscription } from "./bindings.js";
import { DeadLetterWriter } from "./dead-letters.js";
import {
  BatchRunner,
  ExecutorLogin,
  ExecutorPool,
  executorOverdueMs,
  PostgresRequestRunner,
} from "./executor/index.js";
import { QueuedMessages } from "./queued-messages.js";
import { ResponderService, type ResponderServiceStats, requestQueueDefaults } from "./responders/index.js";
import type { PostgresRole } from "./role/index.js";
import { SavedMessages } from "./saved-messages.js";
import { type StreamCounts, Streams } from "./streams/index.js";
import { type SubscriptionCounts, Subscriptions } from "./subscriptions.js";
import { Succession } from "./succession.js";

/** Time for which a graceful stop waits for the functions of responders. */
const responderStopMs = 3_000;

/** Database, settings and callbacks of a {@link Bridge}. */
interface BridgeOptions {
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

/** Database of the bridge, and the login that runs its functions. */
interface Identity {
  readonly database: string;
  readonly login: string;
}

export class Bridge {
  readonly #options: BridgeOptions;
  readonly #rareLog: RareLog;
  readonly #bindings: BindingWatch;
  /** Connections to NATS, one for each part. */
  readonly connectors: Readonly<Record<"subscriptions" | "responders" | "outbox" | "streams", NatsConnector>>;
  readonly #login: ExecutorLogin;
  readonly #pools: Readonly<Record<"subscriptions" | "responders" | "queued", ExecutorPool>>;
  readonly #outbox: NatsOutbox;
  readonly #subscriptions: Subscriptions;
  readonly #queued: QueuedMessages;
  readonly #streams: Streams;
  readonly succession: Succession;
  /** Undefined until the identity of the database has been read. */
  #responderService: ResponderService | undefined;
  /** All responders in the database. They answer only where Postgres is a primary. */
  #responders: readonly Responder[] = [];
  /** Functions that messages of the queue can be for. */
  #subscribed: readonly Subscription[] = [];
  /** True if at least one function is bound, so that the executor's login is needed. */
  #hasFunctions = false;
  #natsOptions: CompleteNatsServerOptions | undefined;
  #finished: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;

  /** Builds the parts, each from those above it. None of them acts before {@link #start}. */
  private constructor(options: BridgeOptions) {
    this.#options = options;
    const { databaseUrl, executorUrl, settings, logger } = options;
    const rareLog = new RareLog(logger, "subscriptions");
    this.#rareLog = rareLog;
    this.#bindings = new BindingWatch({
      databaseUrl,
      logger,
      onBindings: (bindings) => this.#applyBindings(bindings),
      onRead: () => this.#onRead(),
    });
    const { session } = this.#bindings;
    const { secretsDirectories, choice } = options;
    const connection = { secretsDirectories, choice, logger, natsWaitMs: settings.natsWaitMs };
    // The time limit of a request applies twice: to its wait in the queue, and to its run.
    const usesLastMs = () => 2 * this.#responderTimeoutMs + executorOverdueMs;
    this.connectors = {
      subscriptions: new NatsConnector({ ...connection, name: "hawser subscriptions" }),
      responders: new NatsConnector({ ...connection, name: "hawser responders", usesLastMs }),
      outbox: new NatsConnector({ ...connection, name: "hawser outbox" }),
      streams: new NatsConnector({ ...connection, name: "hawser streams" }),
    };
    const login = new ExecutorLogin({ databaseUrl, executorUrl, session });
    this.#login = login;
    this.#pools = {
      subscriptions: new ExecutorPool({ login, limit: settings.subscriberSessions, logger }),
      responders: new ExecutorPool({ login, limit: settings.responderSessions, logger }),
      queued: new ExecutorPool({ login, limit: settings.subscriberSessions, logger }),
    };
    this.#outbox = new NatsOutbox({
      databaseUrl,
      connector: this.connectors.outbox,
      logger,
      publisher: (connector, logProblem) => new NatsPublisher(connector, logProblem),
      settings,
    });
    const saved = new SavedMessages(session, settings);
    const timeoutMs = settings.subscriberTimeoutMs;
    const subscriptions = new Subscriptions({
      runner: new BatchRunner({ pool: this.#pools.subscriptions, timeoutMs, logger, rareLog }),
      deadLetters: new DeadLetterWriter(session, rareLog),
      saved,
      settings,
      rareLog,
      onBatch: (messages, durationMs) => options.onBatch(messages, durationMs),
    });
    this.#subscriptions = subscriptions;
    this.#queued = new QueuedMessages({
      databaseUrl,
      runner: new BatchRunner({ pool: this.#pools.queued, timeoutMs, logger, rareLog }),
      sessions: settings.subscriberSessions,
      logger,
      rareLog,
    });
    const streams = new Streams({ session, connector: this.connectors.streams, subscriptions, logger });
    this.#streams = streams;
    this.succession = new Succession({
      databaseUrl,
      connector: this.connectors.subscriptions,
      bindings: this.#bindings,
      ...{ login, subscriptions, saved, streams, outbox: this.#outbox, logger },
      onRole: () => {
        void this.#configureResponders();
        this.#configureQueued();
      },
    });
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
      role: this.succession.roleWatch.role,
      epoch: this.succession.leadership.epoch,
      lastEpoch: this.succession.lastEpoch,
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
    return [this.#bindings.session, this.succession.leadership.session, executor];
  }

  /**
   * Applies the options of the NATS server; undefined if there are none.
   *
   * @param because error that explains why there are no options; undefined if the database defines no NATS server
   */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    this.#natsOptions = options;
    for (const connector of Object.values(this.connectors)) connector.configure(options, because);
    if (options === undefined) this.#responderService?.detach();
    this.succession.setNatsOptions(options);
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
    await Promise.all([this.succession.receiver.confirmed(), this.#configureResponders()]);
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
    this.#responderService = this.#newResponderService(await this.#readIdentity());
    await this.#bindings.run();
    await this.succession.start();
  }

  async #readIdentity(): Promise<Identity> {
    const { session } = this.#bindings;
    try {
      const [identity] = await session.query<Identity>(identitySql);
      return identity!;
    } catch (cause) {
      throw await explainServeRefusal(session, "read the login of subscribed functions", cause);
    }
  }

  #newResponderService({ database, login }: Identity): ResponderService {
    const { settings, version, logger } = this.#options;
    const { responders: connector } = this.connectors;
    const service = new ResponderService({
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
      use: (connection) => connector.use(connection),
      onRun: (responder, durationMs) => this.#options.onRequest(responder, durationMs),
    });
    connector.on("connected", (connection) => void service.attach(connection));
    connector.on("lost", () => service.detach());
    return service;
  }

  get #responderTimeoutMs(): number {
    return this.#natsOptions?.responder_timeout_ms ?? 0;
  }

  async #finish(deadlineMs: number): Promise<void> {
    this.#bindings.stop();
    const answered = this.#responderService?.stop(Math.min(deadlineMs, responderStopMs));
    const queued = this.#queued.stop(deadlineMs);
    await this.succession.stop(deadlineMs);
    await Promise.all([answered, queued]);
  }

  async #stop(deadlineMs: number): Promise<void> {
    const deadline = new Deadline(deadlineMs);
    await this.finish(deadlineMs);
    // Cancels a read of the bindings that may be running: nothing uses its result any more.
    await this.#queued.close();
    await this.#bindings.session.close();
    await this.#bindings.ended();
    const leftMs = Math.max(stopReserveMs, deadline.remainingMs);
    await Promise.all(Object.values(this.connectors).map((connector) => connector.stop(leftMs)));
    await Promise.all(Object.values(this.#pools).map((pool) => pool.stop()));
    // Functions that still run have exceeded the deadline.
    for (const pool of Object.values(this.#pools)) pool.destroy();
    this.#rareLog.end();
    this.succession.logDiscarded();
  }

  async #applyBindings({ responders, ...others }: Bindings): Promise<void> {
    this.#responders = responders;
    this.#subscribed = [...others.subscriptions, ...others.streams];
    this.#configureQueued();
    this.#hasFunctions = responders.length + others.subscriptions.length + others.streams.length > 0;
    // Not awaited: the responders' connection may hang, and the subscriptions must not wait for it.
    void this.#configureResponders();
    await this.succession.configure(others);
    if (this.succession.roleWatch.role === "primary") await this.#queued.dropUnsubscribed(this.#bindings.session);
  }

  /** Called after each read of the bindings, successful or not. */
  #onRead(): void {
    this.succession.logDiscarded();
    void this.#pools.subscriptions.probe(this.#hasFunctions);
  }

  /** Functions run where Postgres is a primary. */
  #configureQueued(): void {
    this.#queued.configure(this.succession.roleWatch.role === "primary" ? this.#subscribed : []);
  }

  async #configureResponders(): Promise<void> {
    await this.#responderService?.configure(this.#activeResponders);
  }

  /**
   * Responders that this process serves: none on a standby. If Postgres does not answer, the process serves all of
   * them, so that requesters get an error at once.
   */
  get #activeResponders(): readonly Responder[] {
    return this.succession.roleWatch.role === "standby" ? [] : this.#responders;
  }

  async #successor({ subject, wrapper }: Responder): Promise<Responder | undefined> {
    await this.#bindings.fresh();
    return this.#activeResponders.find((each) => each.subject === subject && each.wrapper !== wrapper);
  }
}
