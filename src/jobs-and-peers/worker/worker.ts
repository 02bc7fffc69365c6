/** Worker: handles the jobs of the queue, without a peer. */
import { EventEmitter } from "node:events";
import { HawserError, invalidArgument } from "../../foundation/errors/index.js";
import { metricSources } from "../../foundation/monitor/index.js";
import { hasSchema } from "../../foundation/payloads/index.js";
import { type Subscription, silentLogger } from "../../foundation/runtime/index.js";
import type { SqlClient } from "../../foundation/sql-clients/index.js";
import type { Origin } from "../channel/index.js";
import {
  type BatchHandlerFor,
  type HandlerFor,
  type MessageFor,
  type ReplyReceipt,
  type SendOptions,
  withCorrelation,
} from "../handlers/message.js";
import { MessageStream } from "../handlers/message-stream.js";
import { type PeerStatus, StatusReporter } from "../handlers/status.js";
import { batchHandling, plainHandler, TopicHandlers } from "../handlers/topic-handlers.js";
import {
  type AnyJson,
  type AnyTopics,
  checkServable,
  type Destination,
  type EnqueueOptions,
  enqueue,
  enqueueReply,
  type NatsSubject,
  type Payload,
  type PayloadFor,
  type TopicMap,
} from "../queue/enqueue/index.js";
import { PeerCounters } from "./counters.js";
import { Lifecycle } from "./lifecycle.js";
import { type MonitoredPeer, monitoredPeers, StoredOfPeer } from "./monitored-peer.js";
import { metricSourceOf } from "./peer-metrics.js";
import type { RunningWorker } from "./running-worker.js";
import { checkHandler, optionsAndHandler, Serving, type UserHandler } from "./serving.js";
import {
  type CheckedWorkerOptions,
  checkBatchOptions,
  checkHandleOptions,
  checkKnownOptions,
  checkWorkerOptions,
  refuseDurable,
  type StopOptions,
  type WorkerBatchOptions,
  type WorkerHandleOptions,
  type WorkerOptions,
} from "./worker-options.js";

/**
 * Handles what is enqueued for its topics. Set the handlers with {@link handle}, then call {@link start}. Any number of workers share
 * the jobs of a topic, with each other and with peers.
 *
 * A worker needs nothing but the database: it has no unique name, opens no port, and is in no directory, so that nothing can be sent
 * to it. It keeps one session with Postgres, and opens another one for statements; each transaction of a handler has its own. All
 * workers of a topic without a `group` are one group: of a message that is enqueued for all listeners one of them gets a copy. A
 * {@link Peer} is a worker that also sends, and gets what is sent.
 *
 * The event `status` reports events that no call can throw, such as failed handlers.
 *
 * @template Topics map of the topics that the worker handles to the types of their messages, as that of a {@link Peer}
 */
export class Worker<Topics extends TopicMap<Topics> = AnyTopics>
  extends EventEmitter<{ status: [PeerStatus] }>
  implements AsyncDisposable
{
  readonly #options: CheckedWorkerOptions;
  readonly #handlers: TopicHandlers;
  readonly #serving: Serving;
  readonly #life: Lifecycle<RunningWorker>;

  /** @throws HawserError `invalid_argument` naming the option, its value and the rule */
  constructor(options: WorkerOptions = {}) {
    super();
    const checked = checkWorkerOptions(options);
    const { name, stopOnSignals, settings } = checked;
    const logger = options.logger ?? silentLogger;
    const status = new StatusReporter(this, logger, name);
    const counters = new PeerCounters();
    const handlers = new TopicHandlers({ name, topic: "" }, checked.handling, this.#reply);
    this.#options = checked;
    this.#handlers = handlers;
    this.#life = new Lifecycle<RunningWorker>({
      ...{ kind: "worker", name, logger, status, stopOnSignals, stopTimeoutMs: settings.stopTimeoutMs },
      async begin(signal) {
        const { RunningWorker } = await loadRunningWorker();
        return await RunningWorker.start({ options: checked, logger, status, counters, handlers }, signal);
      },
      onRunning: () => this.#serving.unsubscribed.clear(),
    });
    this.#serving = new Serving("worker", handlers, this.#life);
    const monitored: MonitoredPeer = {
      ...{ name, logger, counters, handlers },
      stored: new StoredOfPeer(),
      run: this.#life.run,
      isNameLost: () => false,
      health: () => this.health(),
    };
    monitoredPeers.set(this, monitored);
    metricSources.set(this, metricSourceOf(monitored));
  }

  /** Name for people to read. */
  get name(): string {
    return this.#options.name;
  }

  /** Promise of the current run, which resolves when the worker has stopped. The next {@link start} creates a new promise. */
  get closed(): Promise<void> {
    return this.#life.closed;
  }

  /**
   * Readiness of the worker. `ready` is true while it is running, has its session, and Postgres takes writes, which is checked every
   * minute. Otherwise `problems` lists the reasons.
   */
  health(): { ready: boolean; problems: string[] } {
    return this.#life.health();
  }

  /**
   * Starts the worker: migrates the database if needed, and starts to handle messages. Resolves at once if it is running.
   *
   * @throws HawserError (as a rejection) `startup_failed` with the cause, `transaction_pooler`, `aborted` if `stop` is called before
   * the end, …; `start` can be called again after each of them
   */
  async start(): Promise<this> {
    await this.#life.start();
    return this;
  }

  /**
   * Sets the handler of the messages of a topic, effective immediately or from the next start, as {@link Peer.handle}.
   *
   *     await worker.handle("emails", { transactional: true, retry: { attempts: 20 } }, async ({ client }) => { … });
   *
   * @throws HawserError (as a rejection) as {@link Peer.handle}; `invalid_argument` also for `durable`, which a worker does not have
   */
  handle<To extends Destination<Topics>>(to: To, handler: HandlerFor<To, false, Topics>): Promise<Subscription>;
  handle<To extends Destination<Topics>, Transactional extends boolean = false>(
    to: To,
    options: WorkerHandleOptions<Transactional>,
    handler: HandlerFor<To, Transactional, Topics>,
  ): Promise<Subscription>;
  async handle(to: Destination, given: WorkerHandleOptions | UserHandler, more?: UserHandler): Promise<Subscription> {
    const [options, handler] = optionsAndHandler<WorkerHandleOptions>(to, given, more);
    refuseDurable(options);
    return await this.#serving.handle(to, handler, checkHandleOptions(options, this.#options));
  }

  /** Sets a handler that gets the messages of a topic in batches, as {@link Peer.handleBatch}. @throws HawserError (as a rejection) as {@link handle} */
  async handleBatch<To extends Destination<Topics>, Transactional extends boolean = false>(
    to: To,
    options: WorkerBatchOptions<Transactional>,
    handler: BatchHandlerFor<To, Transactional, Topics>,
  ): Promise<Subscription> {
    checkHandler(to, options, handler);
    refuseDurable(options);
    const { handling, batch } = checkBatchOptions(options, this.#options);
    const settings = { ...handling, batch: batchHandling(batch, handler, hasSchema(to)) };
    return await this.#serving.handle(to, handler, settings);
  }

  /** Returns the messages of a topic as an async iterator, in place of a handler, as {@link Peer.messages}. @throws HawserError as {@link Peer.messages} */
  messages<Topic extends keyof Topics & string, Transactional extends boolean = false>(
    topic: Topic,
    options: WorkerHandleOptions<Transactional> = {},
  ): AsyncIterableIterator<MessageFor<Transactional, Topics[Topic]>> {
    checkServable(topic);
    refuseDurable(options);
    const settings = checkHandleOptions(options, this.#options);
    const stream = new MessageStream(() => subscribed);
    const handler = plainHandler(stream.handle, settings, () => stream.close());
    const subscribed = this.#serving.serve(topic, settings, () => {
      this.#handlers.set(topic, "messages", handler);
      this.#life.streams.set(stream, () => this.#handlers.endStream(topic, handler));
    });
    subscribed.catch(() => undefined);
    return stream as AsyncIterableIterator<MessageFor<Transactional, Topics[Topic]>>;
  }

  /**
   * Pauses a topic in this process: handlers of its messages that run end, and no other one starts until {@link resume}. Others get
   * them. The topic need not have a handler, and stays paused across stop and start. `pauseTopic` pauses it in all processes.
   *
   * @throws HawserError `invalid_argument`, `internal_topic`
   */
  pause(topic: string): void {
    this.#setPaused(topic, true);
  }

  /** Ends {@link pause}. A pause by `pauseTopic` goes on. @throws HawserError as {@link pause} */
  resume(topic: string): void {
    this.#setPaused(topic, false);
  }

  #setPaused(topic: string, isPaused: boolean): void {
    checkServable(topic);
    if (this.#handlers.pauseHere(topic, isPaused)) this.#life.run.running?.handlersChanged();
  }

  /** Enqueues a message in the current transaction of the client: the function {@link enqueue}, with the types of this worker. @throws HawserError as {@link enqueue} */
  enqueue<To extends Destination<Topics> | NatsSubject, Given>(
    client: SqlClient,
    to: To,
    payload: PayloadFor<To, Given, Topics>,
    options?: EnqueueOptions,
  ): Promise<bigint> {
    return enqueue(client, to, payload as never, options);
  }

  /**
   * Graceful shutdown: waits for running handlers, and gives back what it has taken and not begun. `start` can be called afterwards.
   *
   * Takes at most `timeoutMs`, even if Postgres or a handler hangs; if Postgres does not answer, the limit is at least
   * 500 ms. A handler that is not done by then is cut off: its transaction is rolled back, and its message given back, as no
   * attempt. A further call during a stop waits for the first one, whose `timeoutMs` applies.
   */
  async stop(options: StopOptions = {}): Promise<void> {
    await this.#life.stop(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** A reply is a job of the peer that has enqueued the message, in the transaction of the handler if it has one. */
  readonly #reply = async (
    to: Origin | undefined,
    payload: Payload,
    given: SendOptions | undefined,
    transaction: SqlClient | undefined,
    correlationId: string | undefined,
  ): Promise<ReplyReceipt> => {
    if (to === undefined) {
      throw new HawserError(
        "no_listener",
        "no peer enqueued the message, so a reply has no recipient; enqueue for a topic instead",
        { retryable: false },
      );
    }
    checkKnownOptions(given, "a send");
    const { delivery = "at-least-once", signal, ...marks } = withCorrelation(given, correlationId) ?? {};
    if (delivery !== "at-least-once") {
      throw invalidArgument(`delivery ${delivery}: a Worker enqueues its replies; leave it out, or reply from a Peer`);
    }
    if (signal !== undefined) throw invalidArgument("signal: an enqueued reply is not awaited; leave it out");
    const client = transaction ?? this.#life.run.running?.store.client;
    if (client === undefined)
      throw new HawserError("not_running", `the worker "${this.name}" has stopped; call start() again`);
    const id = await enqueueReply(client, { listener: to.name, topic: to.topic, origin: null }, payload, marks);
    return { outcome: "enqueued", id, peer: to.name };
  };
}

/** Worker with any map of topics. */
export type AnyWorker = Worker<AnyJson>;

/** Loads what only a running worker needs: the store with the SQL of the schema. */
const loadRunningWorker = () => import("./running-worker.js");
