/**
 * Peer: exchanges messages with other peers directly over TCP. Postgres stores the directory of peers, the messages for
 * absent listeners, and the cursors.
 */
import { EventEmitter } from "node:events";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { asHawserError, HawserError } from "../../foundation/errors/index.js";
import { metricSources } from "../../foundation/monitor/index.js";
import { hasSchema } from "../../foundation/payloads/index.js";
import {
  type OperationSpan,
  rpcErrorIn,
  type Subscription,
  silentLogger,
  tracer,
} from "../../foundation/runtime/index.js";
import type { SqlClient } from "../../foundation/sql-clients/index.js";
import type { PendingMessages } from "../../operating/operate/index.js";
import type { Headers, Origin } from "../channel/index.js";
import {
  type AnyReceipt,
  type BatchHandlerFor,
  type DeliveryName,
  deliveries,
  type HandlerFor,
  type MessageFor,
  type ReceiptOf,
  type ReplyReceipt,
  type SendOptions,
  withCorrelation,
} from "../handlers/message.js";
import { MessageStream } from "../handlers/message-stream.js";
import { type PeerStatus, StatusReporter } from "../handlers/status.js";
import { batchHandling, plainHandler, TopicHandlers } from "../handlers/topic-handlers.js";
import type { Store } from "../peer-store/index.js";
import {
  type AnyJson,
  type AnyTopics,
  checkContent,
  checkHeaders,
  checkMarks,
  checkPayload,
  checkServable,
  checkTopic,
  type Destination,
  type EnqueueOptions,
  enqueueFrom,
  enqueueReply,
  expiresHeader,
  type NatsSubject,
  type Payload,
  type PayloadFor,
  type TopicMap,
} from "../queue/enqueue/index.js";
import { loadingFor } from "../queue/protobuf.js";
import type { Sender } from "../store/index.js";
import { PeerCounters } from "../worker/counters.js";
import { Lifecycle, type Run } from "../worker/lifecycle.js";
import { type MonitoredPeer, monitoredPeers, StoredOfPeer } from "../worker/monitored-peer.js";
import { metricSourceOf } from "../worker/peer-metrics.js";
import { checkHandler, optionsAndHandler, Serving, type UserHandler } from "../worker/serving.js";
import {
  type BatchOptions,
  checkBatchOptions,
  checkHandleOptions,
  checkKnownOptions,
  type HandleOptions,
  type StopOptions,
} from "../worker/worker-options.js";
import {
  type CheckedOptions,
  checkOptions,
  checkPeerOptions,
  checkTimeout,
  type PeerOptions,
  type RequestOptions,
  type RespondOptions,
} from "./core/peer-options.js";
import type { RunningPeer } from "./running-peer.js";
import { abortable, abortedBefore, type CheckedMessage, checkSignal, type Sent } from "./sending/outgoing.js";
import { type Answer, OutgoingRequest } from "./sending/outgoing-request.js";
import { startSending } from "./sending/spans.js";
import { typedSend } from "./sending/typed-send.js";

/** Directory entry of a listener of a topic. */
interface ListenerEntry {
  /** Published address, `host:port`. */
  readonly address: string;
  readonly name: string;
}

/** Receipt of one listener, or the error of the send to it. */
type SendAllReceipt<Of extends AnyReceipt = AnyReceipt> = Of | { readonly peer: string; readonly error: HawserError };

/**
 * Sends messages and requests to other peers, and handles those that are sent to its topics. Set the handlers with
 * {@link handle}, then call {@link start}. At most one running process owns a name at a time.
 *
 * The event `status` reports events that no call can throw, such as lost connections and failed handlers.
 *
 * @template Topics map of the topics that the peer sends to and handles to the types of their messages, as in
 * `new Peer<{ "order-placed": Order }>(…)`: the compiler refuses other topics and messages. Nothing is checked at run
 * time; a {@link SchemaTopic} is. Default: any topic, and messages of any type
 */
export class Peer<Topics extends TopicMap<Topics> = AnyTopics>
  extends EventEmitter<{ status: [PeerStatus] }>
  implements AsyncDisposable
{
  readonly #options: CheckedOptions;
  readonly #logger: NonNullable<PeerOptions["logger"]>;
  readonly #status: StatusReporter;
  readonly #counters = new PeerCounters();
  readonly #handlers: TopicHandlers;
  readonly #serving: Serving;
  readonly #life: Lifecycle<RunningPeer>;
  #bound = "";

  /**
   * @throws HawserError `invalid_argument` naming the option, its value and the rule; `internal_topic` if the topic is
   * reserved
   */
  constructor(options: PeerOptions) {
    super();
    this.#options = checkOptions(options);
    this.#logger = options.logger ?? silentLogger;
    this.#status = new StatusReporter(this, this.#logger, this.#options.name);
    this.#handlers = new TopicHandlers(this.#options, this.#options.handling, this.#reply);
    this.#life = new Lifecycle<RunningPeer>({
      ...{ kind: "peer", name: this.name, logger: this.#logger, status: this.#status },
      stopOnSignals: this.#options.stopOnSignals,
      stopTimeoutMs: this.#options.settings.stopTimeoutMs,
      begin: (signal, onLost) => this.#begin(signal, onLost),
      onRunning: (running) => {
        this.#bound = running.boundAddress;
        this.#serving.unsubscribed.clear();
      },
    });
    this.#serving = new Serving("peer", this.#handlers, this.#life);
    const monitored: MonitoredPeer = {
      name: this.name,
      logger: this.#logger,
      counters: this.#counters,
      handlers: this.#handlers,
      stored: new StoredOfPeer(),
      run: this.#run,
      isNameLost: () => this.#life.isNameLost,
      health: () => this.health(),
    };
    monitoredPeers.set(this, monitored);
    metricSources.set(this, metricSourceOf(monitored));
  }

  /** Name of the peer; at most one running process owns it at a time. */
  get name(): string {
    return this.#options.name;
  }

  /** Topic under which the peer sends; replies come to it. */
  get topic(): string {
    return this.#options.topic;
  }

  /** Published address, `host:port`. Empty while the peer is not running. */
  get address(): string {
    return this.#run.running?.publishedAddress ?? "";
  }

  /** Bound address of the socket, `host:port`. Stays after a stop. Empty before the first start. */
  get localAddress(): string {
    return this.#bound;
  }

  /**
   * Promise of the current run: resolves when the peer has stopped, rejects with `name_lost` if the run ended because
   * another process took the name. The next {@link start} creates a new promise.
   */
  get closed(): Promise<void> {
    return this.#life.closed;
  }

  /**
   * Readiness of the peer. `ready` is true while it is running and can store and handle messages: it holds its name, and
   * Postgres takes writes, which is checked every 5 seconds. Otherwise `problems` lists the reasons.
   */
  health(): { ready: boolean; problems: string[] } {
    return this.#life.health();
  }

  /**
   * Starts the peer: migrates the database if needed, takes the name, binds the socket, registers the topics that have
   * handlers in the directory, and starts to handle messages. Resolves at once if the peer is running. A peer without a
   * handler can only send.
   *
   * @throws HawserError (as a rejection) `name_in_use` after `nameWaitMs`, `bind_failed`, `startup_failed` with the
   * cause, `aborted` if `stop` is called before the end, …; `start` can be called again after each of them
   */
  async start(): Promise<this> {
    await this.#life.start();
    return this;
  }

  /**
   * Returns the messages of a topic as an async iterator, in place of a handler. Requesting the next message completes
   * the current one. A message that was not completed when the loop ended is delivered again at the next start. The
   * loop ends when the peer stops.
   *
   *     for await (const message of peer.messages("orders")) …
   *
   * @throws HawserError as {@link handle}: the call throws `invalid_argument` and `internal_topic`; the loop throws all
   * other errors
   */
  messages<Topic extends keyof Topics & string, Transactional extends boolean = false>(
    topic: Topic,
    options: HandleOptions<Transactional> = {},
  ): AsyncIterableIterator<MessageFor<Transactional, Topics[Topic]>> {
    checkServable(topic);
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
   * Sends a message to one listener of the topic. Listeners take turns.
   *
   * An at-least-once send (the default) resolves with `delivered` after the listener's handler has completed and its
   * cursor is committed, or with `stored` after Postgres has committed the message. An at-most-once send resolves with
   * `sent` or `dropped`. Do not change the bytes of the payload before the promise is settled.
   *
   * @param to a topic; a topic with its schema, which checks the message; or a schema that protoc-gen-es generated. The
   * option `hawser.v1.topic` of such a schema names the topic, and the fields that provide the key and the id, unless
   * `options` has them
   * @param payload at least one byte. A string is encoded as UTF-8; an object other than `Uint8Array` is encoded as
   * JSON. With a schema: the message; for Protobuf, also its initializer as for `create(schema, …)`
   * @throws HawserError (as a rejection) `not_running`, `self_topic`, `no_listener`, `busy`, `store_failed` with
   * `outcome: "unknown"` after `sendTimeoutMs`, `aborted`, `name_lost`; `invalid_argument`, for a schema with the path of
   * the refused value; `invalid_schema`
   */
  send<To extends Destination<Topics>, Given, Guarantee extends DeliveryName = "at-least-once">(
    to: To,
    payload: PayloadFor<To, Given, Topics>,
    options?: SendOptions<Guarantee>,
  ): Promise<ReceiptOf<Guarantee>> {
    return this.#send(to, payload, options) as Promise<ReceiptOf<Guarantee>>;
  }

  #send(to: Destination, payload: unknown, options: SendOptions | undefined): Promise<AnyReceipt> {
    const loading = loadingFor(to);
    if (loading !== undefined) return loading.then(() => this.#send(to, payload, options));
    try {
      if (hasSchema(to)) {
        const { topic, payload: bytes, send } = typedSend(to, payload, options);
        return this.#send(topic, bytes, send);
      }
      if (options?.signal?.aborted) throw abortedBefore(options.signal);
      const { sending } = this.#whileRunning();
      this.#checkForeign(to);
      return this.#sendOver(sending, to, undefined, payload as Payload, options);
    } catch (error) {
      return this.#sendFailed(to, error);
    }
  }

  /**
   * Sends a message to every listener of the topic, as {@link send}. Returns one receipt per listener; a failed send
   * has an `error` in its receipt.
   */
  sendAll<To extends Destination<Topics>, Given, Guarantee extends DeliveryName = "at-least-once">(
    to: To,
    payload: PayloadFor<To, Given, Topics>,
    options?: SendOptions<Guarantee>,
  ): Promise<SendAllReceipt<ReceiptOf<Guarantee>>[]> {
    return this.#sendAll(to, payload, options) as Promise<SendAllReceipt<ReceiptOf<Guarantee>>[]>;
  }

  async #sendAll(to: Destination, payload: unknown, options: SendOptions | undefined): Promise<SendAllReceipt[]> {
    const loading = loadingFor(to);
    if (loading !== undefined) await loading;
    if (hasSchema(to)) {
      const { topic, payload: bytes, send } = typedSend(to, payload, options);
      return await this.#sendAll(topic, bytes, send);
    }
    let span: OperationSpan | undefined;
    try {
      const { sending } = this.#whileRunning();
      this.#checkForeign(to);
      const message = this.#checkMessage(payload as Payload, options);
      span = tracer && startSending("send", to, message, this.name);
      const sent = await sending.sendAll(to, message);
      const receiptOf = async ({ peer, ticket }: (typeof sent)[number]): Promise<SendAllReceipt> => {
        try {
          if ("promise" in ticket) return await this.#receipt(to, ticket, message, options?.signal);
          this.#counters.sendFailed(to, ticket);
          return { peer, error: ticket };
        } catch (error) {
          return { peer, error: asHawserError(error) };
        }
      };
      const receipts = await Promise.all(sent.map(receiptOf));
      span?.end();
      return receipts;
    } catch (error) {
      span?.end(error);
      return await this.#sendFailed(to, error);
    }
  }

  /**
   * Sends a request to one listener of the topic and waits for the answer of its handler ({@link respond}). Listeners
   * take turns. Requests are at-most-once and never stored. If a listener has certainly not started the handler, the
   * request goes to the next listener.
   *
   * @param payload may be empty. A string is encoded as UTF-8; an object other than `Uint8Array` is encoded as JSON
   * @throws HawserError (as a rejection)
   * - `not_running`, `self_topic`, `no_listener`, `invalid_argument`, `payload_too_large`, and `unreachable` or `busy`
   *   after all listeners were tried: no handler was started;
   * - `not_supported`: the listener handles messages of the topic but no requests;
   * - `request_timeout`, `aborted`, `listener_lost`: with outcome `unknown`, a handler may have been started;
   * - `handler_failed`, `rejected`, or the code and message of the error that the handler threw
   */
  request<Topic extends keyof Topics & string, Given>(
    topic: Topic,
    payload: PayloadFor<Topic, Given, Topics>,
    options?: RequestOptions,
  ): Promise<Answer> {
    let span: OperationSpan | undefined;
    try {
      checkPeerOptions(options, "a request");
      const { requestTimeoutMs, maxMessageBytes } = this.#options.settings;
      const { signal, idempotent = false, timeoutMs = requestTimeoutMs } = options ?? {};
      if (timeoutMs !== requestTimeoutMs) checkTimeout(timeoutMs);
      checkSignal(signal);
      if (signal?.aborted) throw abortedBefore(signal);
      const { sending } = this.#whileRunning();
      this.#checkForeign(topic);
      const content = checkContent(payload as Payload, options?.headers);
      const message = { payload: content.bytes, headers: content.headers && checkHeaders(content.headers) };
      span = tracer && startSending("request", topic, message, this.name);
      const { payload: bytes, headers } = message;
      const request = new OutgoingRequest(topic, bytes, headers, maxMessageBytes, timeoutMs, idempotent, sending);
      if (signal !== undefined) request.abortOn(signal);
      sending.request(topic, request);
      const requested = span;
      if (requested !== undefined)
        request.answer.then(
          ({ headers }) => requested.end(rpcErrorIn(headers)),
          (error) => requested.end(error),
        );
      return request.answer;
    } catch (error) {
      span?.end(error);
      return Promise.reject(error);
    }
  }

  /**
   * Enqueues a message in the current transaction of the client, as the function {@link enqueue}. The peer does not
   * need to be running. The message has this peer as its sender, and replies are sent to this peer.
   *
   * @throws HawserError as {@link enqueue}
   */
  enqueue<To extends Destination<Topics> | NatsSubject, Given>(
    client: SqlClient,
    to: To,
    payload: PayloadFor<To, Given, Topics>,
    options?: EnqueueOptions,
  ): Promise<bigint> {
    return enqueueFrom(this.#origin, client, to, payload, options);
  }

  /**
   * Sets the handler of the messages of a topic, effective immediately or from the next start. It stays set across stop
   * and start. While the peer is not running, the call resolves at once. A further call for the same topic replaces the
   * handler and its options.
   *
   *     await peer.handle("orders", { transactional: true, retry: { attempts: 20 } }, async ({ client }) => { … });
   *
   * A message is complete when the handler returns or its promise resolves; it is not delivered again. If the handler
   * throws, the message is retried as `retry` specifies and then becomes a dead letter. A `Reject` makes it a dead
   * letter at once; after a `RetryAfter` it is handled again at a time.
   *
   * @param to a topic; a topic with its schema; or a schema that protoc-gen-es generated, with the option
   * `hawser.v1.topic`. With a schema the handler gets `(value, message)`: the checked and decoded value, and the message.
   * A message that the schema refuses becomes a dead letter at once (`invalid_message`). A topic can have several types
   * of Protobuf, each with its own handler and options, told apart by the header `content-type`. A type without a handler
   * is refused, too: set the handlers of all types of a topic before the start
   * @throws HawserError (as a rejection) `invalid_argument`, also if `group` or `takeoverMs` differs from that of the
   * peer's other topics; `internal_topic`; `store_failed` while the peer is running; `invalid_schema`; `already_running`
   * for a type whose topic has a handler for messages of all types
   */
  handle<To extends Destination<Topics>>(to: To, handler: HandlerFor<To, false, Topics>): Promise<Subscription>;
  handle<To extends Destination<Topics>, Transactional extends boolean = false>(
    to: To,
    options: HandleOptions<Transactional>,
    handler: HandlerFor<To, Transactional, Topics>,
  ): Promise<Subscription>;
  async handle(to: Destination, given: HandleOptions | UserHandler, more?: UserHandler): Promise<Subscription> {
    const [options, handler] = optionsAndHandler(to, given, more);
    return await this.#serving.handle(to, handler, checkHandleOptions(options, this.#options));
  }

  /**
   * Sets a handler that gets the messages of a topic in batches, so that one SQL statement can write a whole batch. A
   * batch has at most `maxMessages` messages, at most one message per key, and at most one message without a key per
   * sender. Up to `concurrency` batches of a topic (1) are handled at a time, in parallel with other handlers of the
   * peer. If the handler throws, the batch is split in halves until the failing message is alone; only that message is
   * retried as `retry` specifies. `batch.fail` marks a failing message without splitting. With `transactional: true`
   * each batch is one transaction.
   *
   *     await peer.handleBatch("readings", { transactional: true, maxMessages: 500 }, async (messages, { client }) => { … });
   *
   * With a schema the handler gets decoded values; `batch.messages` has the messages in the same order. A message that
   * cannot be decoded becomes a dead letter at once and is not part of a batch.
   *
   * @throws HawserError (as a rejection) as {@link handle}
   */
  async handleBatch<To extends Destination<Topics>, Transactional extends boolean = false>(
    to: To,
    options: BatchOptions<Transactional>,
    handler: BatchHandlerFor<To, Transactional, Topics>,
  ): Promise<Subscription> {
    checkHandler(to, options, handler);
    const { handling, batch } = checkBatchOptions(options, this.#options);
    return await this.#serving.handle(to, handler, {
      ...handling,
      batch: batchHandling(batch, handler, hasSchema(to)),
    });
  }

  /**
   * Sets the handler of the requests of a topic, effective immediately or from the next start. It stays set across stop
   * and start. The return value of the handler is the answer: a string, a `Uint8Array`, an object (encoded as JSON),
   * nothing for an empty answer, or `{ payload, headers, rollBack }`. If the handler throws, the request fails with
   * that error. The transaction of a transactional handler is rolled back if the handler throws, if the answer cannot
   * be sent, or if the answer has `rollBack: true`.
   *
   *     await peer.respond("prices", (request) => ({ cents: priceOf(request.json().sku) }));
   *
   * Messages that are sent to the topic go to the handler of {@link handle}; without one they become dead letters.
   *
   * @throws HawserError (as a rejection) as {@link handle}
   */
  respond<Topic extends keyof Topics & string>(
    topic: Topic,
    handler: HandlerFor<Topic, false, Topics>,
  ): Promise<Subscription>;
  respond<Topic extends keyof Topics & string, Transactional extends boolean = false>(
    topic: Topic,
    options: RespondOptions<Transactional>,
    handler: HandlerFor<Topic, Transactional, Topics>,
  ): Promise<Subscription>;
  async respond(topic: string, given: RespondOptions | UserHandler, more?: UserHandler): Promise<Subscription> {
    const [options, handler] = optionsAndHandler(topic, given, more);
    const settings = checkHandleOptions(options, this.#options, "a handler of requests");
    return await this.#serving.handleAll(topic, "requests", handler, settings);
  }

  /**
   * Pauses a topic in this process: handlers of its messages that run end, and no other one starts until {@link resume}.
   * Enqueued messages go to other listeners; messages that were sent to this peer wait for it. Requests are answered. The
   * topic need not have a handler, and stays paused across stop and start. `pauseTopic` pauses it in all processes.
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
    if (this.#handlers.pauseHere(topic, isPaused)) this.#run.running?.handlersChanged();
  }

  /**
   * Reads the listeners of a topic from the directory, sorted by address.
   *
   * @param options.refresh the running peer also updates its own routes: later sends use these listeners without
   * waiting for a notification
   */
  async listenersOf(topic: string, options: { readonly refresh?: boolean | undefined } = {}): Promise<ListenerEntry[]> {
    checkTopic(topic);
    checkPeerOptions(options, "listenersOf");
    if (options.refresh === true && this.#run.state === "running")
      await this.#run.running?.sending.topics.refresh(topic);
    const { listeners } = await this.#withStore((store) => store.listenersAndRoutes(this.#sender, topic));
    return listeners.map(({ addr, name }) => ({ address: addr, name }));
  }

  /** Number of messages that this sender (name and topic) has stored, in total and for each known listener. */
  async pending(): Promise<{ count: number; listeners: PendingMessages[] }> {
    return await this.#withStore((store) => store.pending(this.#sender));
  }

  /**
   * Deletes the stored messages and routes of this sender.
   *
   * @throws HawserError `clear_while_running` while this peer is running, `name_in_use` while another process runs a
   * peer of this name; nothing is deleted then
   */
  async clearStored(): Promise<void> {
    this.#checkStopped("stored messages");
    await this.#withStore((store) => store.clearStoredMessages(this.#sender));
  }

  /** Removes all listeners of this peer's topic from the directory. @throws as {@link clearStored} */
  async clearAddresses(): Promise<void> {
    this.#checkStopped("addresses");
    await this.#withStore((store) => store.clearAddressesOfTopic(this.#sender));
  }

  /**
   * Graceful shutdown: rejects new sends, waits for running handlers, stores unconfirmed messages, says Goodbye to
   * connected peers, unregisters from the directory, and releases the name. All pending promises are settled. `start`
   * can be called afterwards.
   *
   * Takes at most `timeoutMs`, even if Postgres or a handler hangs; if Postgres does not answer, the limit is at least
   * 500 ms. Work that is incomplete at the deadline is abandoned; a name that was not released becomes free when the
   * database connection has ended. A further call during a stop waits for the first one, whose `timeoutMs` applies.
   */
  async stop(options: StopOptions = {}): Promise<void> {
    await this.#life.stop(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  get #run(): Run<RunningPeer> {
    return this.#life.run;
  }

  get #sender(): Sender {
    return { name: this.#options.name, sourceTopic: this.#options.topic };
  }

  async #begin(signal: AbortSignal, onLost: (ending: Promise<void>) => void): Promise<RunningPeer> {
    const { RunningPeer } = await loadRunningPeer();
    const { unsubscribed } = this.#serving;
    const [options, logger, status, counters] = [this.#options, this.#logger, this.#status, this.#counters];
    const run = { options, logger, status, counters, unsubscribed, handlers: this.#handlers, onLost };
    return await RunningPeer.start(run, signal);
  }

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
        "no peer sent or enqueued the message, so a reply has no recipient; send to a topic instead",
        { retryable: false },
      );
    }
    const { name, topic } = to;
    const options = withCorrelation(given, correlationId);
    if (transaction !== undefined && options?.delivery !== "at-most-once") {
      checkKnownOptions(options, "a send");
      const { delivery: _, signal, ...marks } = options ?? {};
      if (signal !== undefined) {
        throw new HawserError("invalid_argument", "signal: a reply in a transaction is not awaited; leave it out");
      }
      const id = await enqueueReply(transaction, { listener: name, topic, origin: this.#origin }, payload, marks);
      return { outcome: "enqueued", id, peer: name };
    }
    try {
      const { running } = this.#run;
      if (running === undefined) throw this.#notRunning();
      return this.#sendOver(running.sending, topic, name, payload, options);
    } catch (error) {
      return this.#sendFailed(topic, error);
    }
  };

  /** Sender (`name:topic`) of messages that this peer enqueues. */
  get #origin(): string {
    return `${this.name}:${this.#options.topic}`;
  }

  #whileRunning(): RunningPeer {
    if (this.#run.state !== "running" || this.#run.running === undefined) throw this.#notRunning();
    return this.#run.running;
  }

  #notRunning(): HawserError {
    const ended = this.#bound === "" ? "was never started; call start() first" : "has stopped; call start() again";
    const why = this.#run.state === "starting" ? "is starting; await start() first" : ended;
    return new HawserError("not_running", `the peer "${this.name}" ${why}`);
  }

  #checkMessage(payload: Payload, options: SendOptions | undefined): CheckedMessage {
    if (options !== undefined) checkKnownOptions(options, "a send");
    checkSignal(options?.signal);
    if (options?.format !== undefined) {
      throw new HawserError(
        "invalid_argument",
        `format ${String(options.format)}: applies to Protobuf only; leave it out`,
      );
    }
    const content = checkContent(payload, options?.headers);
    const bytes = checkPayload(content.bytes);
    const name = options?.delivery ?? "at-least-once";
    const delivery = deliveries.get(name);
    if (delivery === undefined) {
      throw new HawserError("invalid_argument", `delivery ${String(name)}: must be "at-least-once" or "at-most-once"`);
    }
    const given = content.headers && checkHeaders(content.headers);
    const key = options?.key;
    return { delivery, payload: bytes, headers: options ? withMarks(given, options) : given, key };
  }

  /** @throws HawserError `self_topic` */
  #checkForeign(topic: string): void {
    if (topic !== this.#options.topic) return;
    const text = `"${topic}" is this peer's own topic, under which it sends; name another`;
    throw new HawserError("self_topic", text);
  }

  #checkStopped(what: string): void {
    if (this.#run.state !== "stopped") {
      throw new HawserError("clear_while_running", `${what} can be cleared only while "${this.name}" is not running`);
    }
  }

  /** Counts a send that failed before it was queued for a listener. */
  #sendFailed(topic: unknown, error: unknown): Promise<never> {
    this.#counters.sendFailed(topic, error);
    return Promise.reject(error);
  }

  /**
   * Sends to a listener of the topic.
   *
   * @param peer name of the only peer to send to; undefined for any listener
   * @throws HawserError if the message was not queued
   */
  #sendOver(
    sending: RunningPeer["sending"],
    topic: string,
    peer: string | undefined,
    payload: Payload,
    options: SendOptions | undefined,
  ): Promise<AnyReceipt> {
    const message = this.#checkMessage(payload, options);
    const span = tracer && startSending("send", topic, message, this.name);
    try {
      const sent = peer === undefined ? sending.sendTo(topic, message) : sending.sendToPeer(peer, topic, message);
      return this.#receipt(topic, sent, message, options?.signal, span);
    } catch (error) {
      span?.end(error);
      throw error;
    }
  }

  /** Promise of a send, rejected early if the caller's signal is aborted. */
  #receipt(
    topic: string,
    sent: Sent | Promise<Sent>,
    message: CheckedMessage,
    signal: AbortSignal | undefined,
    span?: OperationSpan,
  ): Promise<AnyReceipt> {
    let receipt: Promise<AnyReceipt>;
    if ("promise" in sent) receipt = sent.promise;
    else {
      sent.catch((error) => this.#counters.sendFailed(topic, error));
      receipt = sent.then(({ promise }) => promise);
    }
    // After the abort the caller may reuse its buffer.
    if (signal !== undefined) receipt = abortable(receipt, signal, () => copyPayload(sent, message));
    if (span !== undefined) {
      receipt.then(
        ({ outcome }) => span.end(undefined, outcome),
        (error) => span.end(error),
      );
    }
    return receipt;
  }

  /** Runs `work` with the store of the running peer, or with a store that is opened and closed for it. */
  async #withStore<T>(work: (store: Store) => Promise<T>): Promise<T> {
    if (this.#run.running) return await work(this.#run.running.store);
    const { openPeerStore } = await loadRunningPeer();
    const store = await openPeerStore({ options: this.#options, logger: this.#logger });
    try {
      await store.migrate();
      return await work(store);
    } finally {
      await store.close();
    }
  }
}

/** Peer with any map of topics. */
export type AnyPeer = Peer<AnyJson>;

/** Loads what only a running peer needs: the store with the SQL of the schema, channels, and sockets. */
const loadRunningPeer = () => import("./running-peer.js");

/** Adds the headers for key, id and time to live. @throws HawserError `invalid_argument` */
function withMarks(headers: Headers | undefined, options: SendOptions): Headers | undefined {
  const { key, messageId, ttlMs } = options;
  if (key === undefined && messageId === undefined && ttlMs === undefined) return headers;
  checkMarks(options);
  const marks: (readonly [string, string])[] = [];
  if (messageId !== undefined) marks.push([protocolConstants.messageIdHeader, messageId]);
  if (key !== undefined) marks.push([protocolConstants.messageKeyHeader, key]);
  if (ttlMs !== undefined) marks.push(expiresHeader(ttlMs, Date.now()));
  return checkHeaders([...(headers ?? []), ...marks]);
}

/** Copies the payload of a message that may still be sent. */
function copyPayload(sent: Sent | Promise<Sent>, message: CheckedMessage): void {
  if ("promise" in sent) sent.copyPayload();
  else {
    message.payload = new Uint8Array(message.payload);
    void sent.then((outgoing) => outgoing.copyPayload()).catch(() => undefined);
  }
}
