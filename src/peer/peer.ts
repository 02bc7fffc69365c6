/**
 * A peer: a process that exchanges messages with others directly over TCP, with Postgres as directory, offline queue and
 * ack ledger.
 */
import { EventEmitter } from "node:events";
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { SqlClient } from "../postgres/index.js";
import { onStopSignal, type Subscription, silentLogger } from "../runtime/index.js";
import type { PendingMessages, Sender, Store } from "../store/index.js";
import { asHawserError } from "./context.js";
import { checkContent, checkPayload } from "./destination.js";
import { enqueueFrom, enqueueReply } from "./enqueue.js";
import type { HandlingSettings } from "./handling-settings.js";
import {
  type AnyReceipt,
  type Batch,
  deliveries,
  type EnqueueOptions,
  type Handler,
  type Message,
  type MessageView,
  type NatsSubject,
  type Origin,
  type Payload,
  type Receipt,
  type ReplyReceipt,
  type RequestOptions,
  type SendOptions,
  type TransactionalBatch,
  type TransactionalMessage,
  type TransientOutcome,
} from "./message.js";
import { MessageStream } from "./message-stream.js";
import {
  type BatchOptions,
  type CheckedOptions,
  checkBatchOptions,
  checkHandleOptions,
  checkHeaders,
  checkKnownOptions,
  checkMarks,
  checkNotReserved,
  checkOptions,
  checkTimeout,
  checkTopic,
  expiresHeader,
  type HandleOptions,
  type PeerOptions,
  type RespondOptions,
  type StopOptions,
} from "./options.js";
import type { CheckedMessage } from "./outbox.js";
import { abortable, abortedBefore, type Sent } from "./outgoing.js";
import { type Answer, OutgoingRequest } from "./outgoing-request.js";
import { endsWithin, openPeerStore, RunningPeer } from "./running-peer.js";
import { type PeerStatus, StatusTeller } from "./status.js";
import {
  batchHandling,
  HandlerSubscription,
  plainHandler,
  type RequestHandler,
  TopicHandlers,
} from "./topic-handlers.js";
import { type HandledType, type TypedHandler, TypedHandlers, topicOfPeers, typedSend } from "./typed.js";

/** A listener of a topic, as the directory has it. */
interface ListenerEntry {
  /** host:port */
  readonly address: string;
  readonly name: string;
}

/** Receipt of one listener, or why the send to it has failed. */
type SendAllReceipt<Of extends AnyReceipt = AnyReceipt> = Of | { readonly peer: string; readonly error: HawserError };

/** Options of a send at most once. */
type TransientOptions = SendOptions & { readonly delivery: "at-most-once" };

/** Options of a send at least once. */
type DurableOptions = SendOptions & { readonly delivery?: "at-least-once" | undefined };

/** A handler of the user, whose arguments the overloads name. */
type UserHandler = (first: never, second: never) => unknown;

type State = "stopped" | "starting" | "running" | "stopping";

/**
 * A peer with a name, a topic and a listening address. Create it, `handle` topics, `start` it: then it receives what is sent
 * to the topics that it handles, and sends. One process at a time has a name.
 *
 * The event `status` tells of what no call can throw.
 */
export class Peer extends EventEmitter<{ status: [PeerStatus] }> implements AsyncDisposable {
  readonly #options: CheckedOptions;
  readonly #logger: NonNullable<PeerOptions["logger"]>;
  readonly #status = new StatusTeller(this);
  readonly #handlers: TopicHandlers;
  /** Topics whose handlers were stopped while the peer was not running. */
  readonly #unsubscribed = new Set<string>();
  #state: State = "stopped";
  #transition: Promise<void> = Promise.resolve();
  #running: RunningPeer | undefined;
  /** Ends a start that is under way. */
  #starting: AbortController | undefined;
  /** Loops over messages, with what takes each away when the peer has stopped. */
  readonly #streams = new Map<MessageStream, () => void>();
  #bound = "";
  #closing = new Closing();

  /** @throws HawserError `invalid_argument` naming the option, its value and the rule; `internal_topic` */
  constructor(options: PeerOptions) {
    super();
    this.#options = checkOptions(options);
    this.#handlers = new TopicHandlers(this.#options, this.#options.handling, this.#reply);
    this.#logger = options.logger ?? silentLogger;
  }

  /** The peer's name. */
  get name(): string {
    return this.#options.name;
  }

  /** The topic under which the peer sends. */
  get topic(): string {
    return this.#options.topic;
  }

  /** The address in the directory; empty while the peer is not running. */
  get address(): string {
    return this.#running?.publishedAddress ?? "";
  }

  /** The address that the socket is bound to, host:port; stays after a stop. Empty before the first start. */
  get localAddress(): string {
    return this.#bound;
  }

  /**
   * Resolves when the running peer has stopped; rejects with `name_lost` if it ended because another process has taken its
   * name. A start after that has a promise of its own.
   */
  get closed(): Promise<void> {
    return this.#closing.promise;
  }

  /** Whether the peer is running and can store and handle messages, and if not, why. */
  health(): { ready: boolean; problems: string[] } {
    const problems =
      this.#state === "running" && this.#running !== undefined
        ? this.#running.problems
        : [`the peer "${this.name}" is ${this.#state}`];
    return { ready: problems.length === 0, problems };
  }

  /**
   * Starts: migrates the database where needed, takes the name, binds the socket, enters the directory with the topics that
   * have handlers, and begins to handle messages. Does nothing when the peer is running already. A peer without a handler
   * only sends.
   *
   * @throws HawserError (as a rejection) `name_in_use` after `nameWaitMs`, `bind_failed`, `startup_failed` with the cause, …;
   * it may be tried again
   */
  async start(): Promise<this> {
    while (this.#state === "stopping") await this.#transition.catch(() => undefined);
    if (this.#state === "stopped") {
      if (this.#closing.isOver) this.#closing = new Closing();
      this.#state = "starting";
      this.#transition = this.#start();
    }
    const transition = this.#transition;
    try {
      await transition;
      return this;
    } catch (error) {
      if (this.#transition === transition) this.#transition = Promise.resolve();
      throw error;
    }
  }

  /**
   * The messages of a topic as an async iterator instead of a handler: asking for the next one finishes the one before. A
   * message that was not finished when the loop ended comes again at the next start. The loop ends when the peer stops.
   *
   *     for await (const message of peer.messages("orders")) …
   *
   * @throws HawserError as {@link handle}: `invalid_argument` and `internal_topic` at once, others by the loop
   */
  messages(
    topic: string,
    options: HandleOptions & { readonly transactional: true },
  ): AsyncIterableIterator<TransactionalMessage>;
  messages(topic: string, options?: HandleOptions): AsyncIterableIterator<Message>;
  messages(topic: string, options: HandleOptions = {}): AsyncIterableIterator<Message> {
    checkServable(topic);
    const settings = checkHandleOptions(options, this.#options);
    const stream = new MessageStream(() => subscribed);
    const handler = plainHandler(stream.handle, settings, () => stream.close());
    const subscribed = this.#serve(topic, settings, () => {
      this.#handlers.setMessages(topic, handler);
      this.#streams.set(stream, () => this.#handlers.endStream(topic, handler));
    });
    subscribed.catch(() => undefined);
    return stream;
  }

  /**
   * Sends to one listener of the topic, in turn.
   *
   * At least once (the default) it resolves `delivered` when the listener's handler is done and committed, or `stored`
   * when Postgres has surely committed the message. At most once it resolves `sent` or `dropped`. The payload's bytes
   * must not change before the promise has settled.
   *
   * @param payload text becomes UTF-8; an object that is no `Uint8Array` travels as JSON. At least one byte
   * @throws HawserError (as a rejection) `not_running`, `self_topic`, `no_listener`, `invalid_argument`, `busy`,
   * `store_failed` with `outcome: "unknown"` after `sendTimeoutMs`, `aborted`, `name_lost`
   */
  send(topic: string, payload: Payload, options?: DurableOptions): Promise<Receipt>;
  send(topic: string, payload: Payload, options: TransientOptions): Promise<Receipt<TransientOutcome>>;
  send(topic: string, payload: Payload, options?: SendOptions): Promise<AnyReceipt>;
  /**
   * Sends a typed message to the topic that its schema's option names. The fields that the option names give its key and
   * id, unless the options do.
   *
   * @param to a schema made by protoc-gen-es, with the option `hawser.v1.topic`
   * @param message what `create(schema, …)` takes
   * @throws HawserError (as a rejection) `invalid_argument` naming the field, its value and the rule; `invalid_schema`
   */
  send<Desc extends DescMessage>(to: Desc, message: MessageInitShape<Desc>, options?: DurableOptions): Promise<Receipt>;
  send<Desc extends DescMessage>(
    to: Desc,
    message: MessageInitShape<Desc>,
    options: TransientOptions,
  ): Promise<Receipt<TransientOutcome>>;
  send<Desc extends DescMessage>(to: Desc, message: MessageInitShape<Desc>, options?: SendOptions): Promise<AnyReceipt>;
  send(to: string | DescMessage, payload: unknown, options?: SendOptions): Promise<AnyReceipt> {
    try {
      if (isSchema(to)) {
        const { topic, payload: bytes, send } = typedSend(to, payload as MessageInitShape<DescMessage>, options);
        return this.send(topic, bytes, send);
      }
      if (options?.signal?.aborted) throw abortedBefore(options.signal);
      const running = this.#whileRunning();
      if (to === this.#options.topic) throw selfTopic(to);
      const message = this.#checkMessage(payload as Payload, options);
      return this.#receipt(running.outbox.sendTo(to, message), message, options?.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Sends to every listener of the topic, as {@link send} does: one receipt each, a failed one with its error. */
  sendAll(topic: string, payload: Payload, options?: DurableOptions): Promise<SendAllReceipt<Receipt>[]>;
  sendAll(topic: string, payload: Payload, options?: SendOptions): Promise<SendAllReceipt[]>;
  sendAll<Desc extends DescMessage>(
    to: Desc,
    message: MessageInitShape<Desc>,
    options?: DurableOptions,
  ): Promise<SendAllReceipt<Receipt>[]>;
  sendAll<Desc extends DescMessage>(
    to: Desc,
    message: MessageInitShape<Desc>,
    options?: SendOptions,
  ): Promise<SendAllReceipt[]>;
  async sendAll(to: string | DescMessage, payload: unknown, options?: SendOptions): Promise<SendAllReceipt[]> {
    if (isSchema(to)) {
      const { topic, payload: bytes, send } = typedSend(to, payload as MessageInitShape<DescMessage>, options);
      return await this.sendAll(topic, bytes, send);
    }
    const running = this.#whileRunning();
    this.#checkForeign(to);
    const message = this.#checkMessage(payload as Payload, options);
    const sent = await running.outbox.sendAll(to, message);
    return await Promise.all(
      sent.map(async ({ peer, ticket }) => {
        if (!("promise" in ticket)) return { peer, error: ticket };
        try {
          return await this.#receipt(ticket, message, options?.signal);
        } catch (error) {
          return { peer, error: asHawserError(error) };
        }
      }),
    );
  }

  /**
   * Makes a request of one listener of the topic, in turn, and waits for what its handler ({@link respond}) returns. At most
   * once: it is never stored. A listener that has surely not begun with it is passed over for the next one.
   *
   * @param payload may be empty; an object that is no `Uint8Array` travels as JSON
   * @throws HawserError (as a rejection)
   * - `not_running`, `self_topic`, `no_listener`, `invalid_argument`, `payload_too_large`, and after all listeners were tried
   *   `unreachable` or `busy`: nothing was carried out;
   * - `not_supported`: the listener handles messages of the topic, and no requests;
   * - `request_timeout`, `aborted`, `listener_lost`: with outcome `unknown` the handler may have begun;
   * - `handler_failed`, `rejected`, or the code of the error that the handler threw, with its message
   */
  request(topic: string, payload: Payload, options?: RequestOptions): Promise<Answer> {
    try {
      checkKnownOptions(options, "a request");
      const { requestTimeoutMs, maxMessageBytes } = this.#options.settings;
      const { signal, idempotent = false, timeoutMs = requestTimeoutMs } = options ?? {};
      if (timeoutMs !== requestTimeoutMs) checkTimeout(timeoutMs);
      if (signal?.aborted) throw abortedBefore(signal);
      const { outbox } = this.#whileRunning();
      if (topic === this.#options.topic) throw selfTopic(topic);
      const { bytes, headers } = checkContent(payload, options?.headers);
      const pairs = headers && checkHeaders(headers);
      const { askNext } = outbox;
      const request = new OutgoingRequest(bytes, pairs, maxMessageBytes, timeoutMs, idempotent, askNext);
      if (signal !== undefined) request.endWith(signal);
      outbox.request(topic, request);
      return request.answer;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Enqueues a message, as the function {@link enqueue} does, in the transaction that the client is in. The peer need not run. To
   * a peer that handles it, this one is the sender, and replies come here.
   *
   * @throws HawserError as {@link enqueue}
   */
  enqueue(client: SqlClient, to: string | NatsSubject, payload: Payload, options?: EnqueueOptions): Promise<bigint>;
  enqueue<Desc extends DescMessage>(
    client: SqlClient,
    to: Desc,
    message: MessageInitShape<Desc>,
    options?: EnqueueOptions,
  ): Promise<bigint>;
  enqueue(
    client: SqlClient,
    to: string | NatsSubject | DescMessage,
    payload: unknown,
    options?: EnqueueOptions,
  ): Promise<bigint> {
    return enqueueFrom(this.#origin, client, to, payload, options);
  }

  /** @param set sets the handler of the topic */
  async #serve(topic: string, settings: HandlingSettings, set: () => void): Promise<void> {
    checkServable(topic);
    // What is asked for in the middle of a start waits for its end: the start has read what there was.
    if (this.#state === "starting") await this.#transition.catch(() => undefined);
    this.#checkMembership(topic, settings);
    const handlers = this.#handlers;
    const [wasServed, wasDurable] = [handlers.serves(topic), handlers.isDurable(topic)];
    set();
    this.#running?.handlersChanged();
    this.#unsubscribed.delete(topic);
    if (this.#state !== "running" || (wasServed && wasDurable === handlers.isDurable(topic))) return;
    try {
      await this.#running?.subscribe(topic);
    } catch (error) {
      if (!wasServed) this.#removeHandlers(topic);
      throw error;
    }
  }

  /** @throws HawserError `invalid_argument` */
  #checkMembership(topic: string, { group, takeoverMs }: HandlingSettings): void {
    if (this.#running === undefined && this.#handlers.isEmpty) return;
    const own = this.#running?.membership ?? this.#handlers.membership;
    const refuseOther = (option: string, given: unknown, other: unknown): void => {
      if (given === other) return;
      const shown = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value));
      const remedy = this.#running
        ? "give it under defaults, or handle the topic before start"
        : "give it under defaults";
      throw new HawserError(
        "invalid_argument",
        `${option} ${shown(given)} of "${topic}": the other topics of the peer have ${shown(other)}, and all of a peer have the same; ${remedy}, or use two peers`,
      );
    };
    refuseOther("group", group, own.group);
    refuseOther("takeoverMs", takeoverMs, own.takeoverMs);
  }

  /**
   * Handles the messages of a topic, from now on or from the next start; lasts over stop and start. Before the start it
   * resolves at once. Another call for the same topic replaces the handler and its options.
   *
   *     await peer.handle("orders", { transactional: true, retry: { attempts: 20 } }, async ({ client }) => { … });
   *
   * When the handler returns, or its promise resolves, the message is done: it will not come again. When it throws, the message
   * is tried again as `retry` says; then it is a dead letter. A `Reject` makes it a dead letter at once.
   *
   * @throws HawserError (as a rejection) `invalid_argument`, also for a `group` or `takeoverMs` that is not that of the peer's
   * other topics; `internal_topic`; `store_failed` if the peer runs
   */
  handle(topic: string, handler: (message: Message) => unknown): Promise<Subscription>;
  handle(
    topic: string,
    options: HandleOptions & { readonly transactional: true },
    handler: (message: TransactionalMessage) => unknown,
  ): Promise<Subscription>;
  handle(topic: string, options: HandleOptions, handler: (message: Message) => unknown): Promise<Subscription>;
  /**
   * Handles the messages of a type, decoded and checked, of the topic that the schema's option names. A topic can have several
   * types, each with a handler and options of its own; the header `content-type` tells them apart. What cannot be decoded, breaks
   * a rule, or is of another type is a dead letter at once (`invalid_message`): handle all types of a topic before the start.
   *
   * @param schema made by protoc-gen-es, with the option `hawser.v1.topic`
   * @throws HawserError (as a rejection) `invalid_schema`; `already_running` if the topic has a handler for all its messages
   */
  handle<Desc extends DescMessage>(schema: Desc, handler: TypedHandler<Desc>): Promise<Subscription>;
  handle<Desc extends DescMessage>(
    schema: Desc,
    options: HandleOptions & { readonly transactional: true },
    handler: (value: MessageShape<Desc>, message: TransactionalMessage) => unknown,
  ): Promise<Subscription>;
  handle<Desc extends DescMessage>(
    schema: Desc,
    options: HandleOptions,
    handler: TypedHandler<Desc>,
  ): Promise<Subscription>;
  async handle(
    to: string | DescMessage,
    given: HandleOptions | UserHandler,
    more?: UserHandler,
  ): Promise<Subscription> {
    const [options = {}, handler] = typeof given === "function" && more === undefined ? [{}, given] : [given, more];
    checkHandler(to, options, handler);
    const settings = checkHandleOptions(options as HandleOptions, this.#options);
    return await this.#handleWith(to, handler, () => settings);
  }

  /**
   * Handles the messages of a topic together, so that one statement can write what they bring: up to `maxMessages`, at most
   * one of each key, and at most one of each sender that was sent without a key. One batch of a topic is handled at a time, beside
   * the other handlers of the peer. If the handler throws, the batch is handled in halves, until the message that fails is alone; that
   * one is tried again as `retry` says. `batch.fail` names it at once. With `transactional: true` each batch is one transaction.
   *
   *     await peer.handleBatch("readings", { transactional: true, maxMessages: 500 }, async (messages, { client }) => { … });
   *
   * @throws HawserError (as a rejection) as {@link handle}
   */
  handleBatch(
    topic: string,
    options: BatchOptions & { readonly transactional: true },
    handler: (messages: readonly TransactionalMessage[], batch: TransactionalBatch) => unknown,
  ): Promise<Subscription>;
  handleBatch(
    topic: string,
    options: BatchOptions,
    handler: (messages: readonly Message[], batch: Batch) => unknown,
  ): Promise<Subscription>;
  /**
   * The same for the messages of a type. The handler gets them decoded; `batch.messages` has them as they came, in the same order.
   * A message that cannot be decoded is a dead letter at once, and not part of a batch.
   */
  handleBatch<Desc extends DescMessage>(
    schema: Desc,
    options: BatchOptions & { readonly transactional: true },
    handler: (values: readonly MessageShape<Desc>[], batch: TransactionalBatch) => unknown,
  ): Promise<Subscription>;
  handleBatch<Desc extends DescMessage>(
    schema: Desc,
    options: BatchOptions,
    handler: (values: readonly MessageShape<Desc>[], batch: Batch) => unknown,
  ): Promise<Subscription>;
  async handleBatch(to: string | DescMessage, options: BatchOptions, handler: UserHandler): Promise<Subscription> {
    checkHandler(to, options, handler);
    const { handling, batch } = checkBatchOptions(options, this.#options);
    return await this.#handleWith(to, handler, (types) => ({
      ...handling,
      batch: batchHandling(batch, handler, types && ((message) => types.decode(message))),
    }));
  }

  /**
   * Answers the requests of a topic, from now on or from the next start; lasts over stop and start. What the handler returns is
   * the answer: text, a `Uint8Array`, an object, which travels as JSON, nothing for an empty answer, or
   * `{ payload, headers, rollBack }`. What it throws is the error of the request. A transactional handler is rolled back if it
   * throws, if its answer cannot be sent, or if the answer says `rollBack`.
   *
   *     await peer.respond("prices", (request) => ({ cents: priceOf(request.json().sku) }));
   *
   * Messages of the topic go to {@link handle}; without that they are dead letters.
   *
   * @throws HawserError (as a rejection) as {@link handle}
   */
  respond(topic: string, handler: (request: Message) => unknown): Promise<Subscription>;
  respond(
    topic: string,
    options: RespondOptions & { readonly transactional: true },
    handler: (request: TransactionalMessage) => unknown,
  ): Promise<Subscription>;
  respond(topic: string, options: RespondOptions, handler: (request: Message) => unknown): Promise<Subscription>;
  async respond(topic: string, given: RespondOptions | UserHandler, more?: UserHandler): Promise<Subscription> {
    const [options = {}, handler] = typeof given === "function" && more === undefined ? [{}, given] : [given, more];
    checkHandler(topic, options, handler);
    const settings = checkHandleOptions(options as RespondOptions, this.#options, "a handler of requests");
    const subscription = new HandlerSubscription(topic, async () => {
      if (this.#handlers.requestsOf(topic) === own) await this.#stopHandling(topic, "requests");
    });
    const own: RequestHandler = {
      settings,
      handle: handler as (message: MessageView) => unknown,
      ended: subscription.ended,
    };
    await this.#serve(topic, settings, () => this.#handlers.setRequests(topic, own));
    return subscription;
  }

  /** @param settingsOf of a handler for one type, or for a topic */
  async #handleWith(
    to: string | DescMessage,
    handler: UserHandler,
    settingsOf: (types: TypedHandlers | undefined) => HandlingSettings,
  ): Promise<Subscription> {
    if (!isSchema(to)) {
      const subscription = new HandlerSubscription(to, async () => {
        if (this.#handlers.messagesOf(to) === own) await this.#stopHandling(to, "messages");
      });
      const settings = settingsOf(undefined);
      const own = plainHandler(handler as Handler, settings, subscription.ended);
      await this.#serve(to, settings, () => this.#handlers.setMessages(to, own));
      return subscription;
    }
    const topic = topicOfPeers(to);
    let stop = async (): Promise<void> => undefined;
    const subscription = new HandlerSubscription(topic, () => stop());
    await this.#serve(topic, settingsOf(undefined), () => {
      const types = this.#typesOf(topic);
      const type: HandledType = { schema: to, settings: settingsOf(types), handler, ended: subscription.ended };
      types.add(type);
      this.#handlers.setMessages(topic, types);
      stop = async () => {
        if (this.#handlers.messagesOf(topic) !== types || !types.has(type)) return;
        if (types.size > 1) types.remove(type);
        else await this.#stopHandling(topic, "messages");
      };
    });
    return subscription;
  }

  /** Without a handler the topic is served no more. */
  async #stopHandling(topic: string, which: "messages" | "requests"): Promise<void> {
    if (this.#state === "starting") await this.#transition.catch(() => undefined);
    if (this.#handlers.removeOne(topic, which)) return;
    if (this.#state === "running") await this.#running?.unsubscribe(topic);
    else this.#unsubscribed.add(topic);
    this.#removeHandlers(topic);
  }

  /**
   * The topic's listeners in the directory, in the order of their addresses.
   *
   * @param options.refresh the running peer takes over what was read: what it sends from now on goes to these listeners, without
   * waiting for a notification
   */
  async listenersOf(topic: string, options: { readonly refresh?: boolean | undefined } = {}): Promise<ListenerEntry[]> {
    checkTopic(topic);
    checkKnownOptions(options, "listenersOf");
    if (options.refresh === true && this.#state === "running") await this.#running?.outbox.topics.refresh(topic);
    const { listeners } = await this.#withStore((store) => store.listenersAndRoutes(this.#sender, topic));
    return listeners.map(({ addr, name }) => ({ address: addr, name }));
  }

  /** Number of messages that this sender (name and topic) has stored for others: in all, and for each listener that it knows. */
  async pending(): Promise<{ count: number; listeners: PendingMessages[] }> {
    return await this.#withStore(async (store) => {
      const [count, listeners] = await Promise.all([
        store.pendingCount(this.#sender),
        store.pendingByPeer(this.#sender),
      ]);
      return { count, listeners };
    });
  }

  /**
   * Deletes this sender's stored messages and routes.
   *
   * @throws HawserError `clear_while_running` while this peer runs, `name_in_use` while another one of its name does, in
   * whichever process; then nothing is deleted
   */
  async clearStored(): Promise<void> {
    this.#checkStopped("stored messages");
    await this.#withStore((store) => store.clearStoredMessages(this.#sender));
  }

  /** Takes all listeners of this peer's topic out of the directory. @throws as {@link clearStored} */
  async clearAddresses(): Promise<void> {
    this.#checkStopped("addresses");
    await this.#withStore((store) => store.clearAddressesOfTopic(this.#sender));
  }

  /**
   * Stops: refuses new sends, waits for running handlers, stores what is unconfirmed, tells everybody goodbye, leaves the
   * directory and gives the name back. All pending promises settle. `start` may follow.
   *
   * Ends after `timeoutMs`, whatever Postgres or a handler does; half a second is the least that it takes where Postgres does
   * not answer. What did not end by then is given up: a name that could not be given back is free when the connection has
   * ended. While a stop is under way a further call waits for it, and the time of the first one counts.
   */
  async stop(options: StopOptions = {}): Promise<void> {
    checkKnownOptions(options, "stop");
    const { timeoutMs = this.#options.settings.stopTimeoutMs } = options;
    if (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs) || timeoutMs < 0) {
      throw new HawserError("invalid_argument", `timeoutMs ${timeoutMs}: must be a number of milliseconds, 0 or more`);
    }
    this.#starting?.abort(new HawserError("aborted", `"${this.name}" was stopped while it was starting`));
    const until = performance.now() + timeoutMs;
    while (this.#state === "starting") {
      const ended = this.#transition.catch(() => undefined);
      if (await endsWithin(until - performance.now(), ended)) continue;
      this.#logger.warn({ timeoutMs }, "the start that is stopped waits for Postgres, and ends when that answers");
      return;
    }
    if (this.#state === "stopping") return await this.#transition;
    const running = this.#running;
    if (running === undefined) return;
    this.#state = "stopping";
    this.#transition = running.stop(Math.max(until - performance.now(), 0)).finally(() => this.#ended(running));
    for (const stream of this.#streams.keys()) stream.close();
    await this.#transition;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** @throws HawserError `already_running` */
  #typesOf(topic: string): TypedHandlers {
    const known = this.#handlers.messagesOf(topic);
    if (known === undefined) return new TypedHandlers(topic);
    if (known instanceof TypedHandlers) return known;
    throw new HawserError(
      "already_running",
      `the topic "${topic}" has a handler for messages of all types; stop that first, or handle each type by its schema`,
    );
  }

  #removeHandlers(topic: string): void {
    this.#handlers.remove(topic);
    this.#running?.handlersChanged();
  }

  get #sender(): Sender {
    return { name: this.#options.name, sourceTopic: this.#options.topic };
  }

  async #start(): Promise<void> {
    const starting = new AbortController();
    this.#starting = starting;
    const endSignals = this.#options.stopOnSignals ? this.#stopOnSignals() : () => undefined;
    try {
      const running = await RunningPeer.start(
        {
          options: this.#options,
          logger: this.#logger,
          status: this.#status,
          unsubscribed: this.#unsubscribed,
          handlers: this.#handlers,
          onLost: (ending) => this.#nameLost(ending),
        },
        starting.signal,
      );
      if (running.isLost) {
        await running.stop(0);
        throw new HawserError("name_lost", `"${this.name}" lost its name while it was starting`);
      }
      this.closed.then(endSignals, endSignals);
      this.#running = running;
      this.#bound = running.boundAddress;
      this.#unsubscribed.clear();
      this.#state = "running";
      running.begin();
    } catch (error) {
      endSignals();
      this.#state = "stopped";
      const cause = asHawserError(error);
      if (cause.code !== "internal" && cause.code !== "store_failed") throw cause;
      throw new HawserError("startup_failed", `"${this.name}" could not start: ${cause.message}`, { cause });
    } finally {
      this.#starting = undefined;
    }
  }

  /** @returns ends the listening */
  #stopOnSignals(): () => void {
    return onStopSignal((signal) => {
      this.#logger.info({ signal }, `"${this.name}" was told to stop`);
      this.stop().catch((err) => this.#logger.error({ err }, "could not stop"));
    });
  }

  /** The running peer ends by itself, because another process has the name. */
  #nameLost(ending: Promise<void>): void {
    const running = this.#running;
    if (running === undefined || this.#state !== "running") return;
    this.#state = "stopping";
    this.#transition = ending.finally(() => this.#ended(running));
    for (const stream of this.#streams.keys()) stream.close();
  }

  #ended(running: RunningPeer): void {
    if (this.#running !== running) return;
    this.#running = undefined;
    for (const end of this.#streams.values()) end();
    this.#streams.clear();
    this.#state = "stopped";
    this.#transition = Promise.resolve();
    if (running.isLost) this.#closing.reject(new HawserError("name_lost", `"${this.name}" has lost its name`));
    else this.#closing.resolve();
  }

  readonly #reply = async (
    to: Origin | undefined,
    payload: Payload,
    options: SendOptions | undefined,
    transaction: SqlClient | undefined,
  ): Promise<ReplyReceipt> => {
    if (to === undefined) {
      throw new HawserError(
        "no_listener",
        "no peer sent or enqueued the message, so that nobody takes a reply; send to a topic instead",
      );
    }
    const { name, topic } = to;
    if (transaction !== undefined && options?.delivery !== "at-most-once") {
      checkKnownOptions(options, "a send");
      const { delivery: _, signal, ...marks } = options ?? {};
      if (signal !== undefined) {
        throw new HawserError("invalid_argument", "signal: a reply in a transaction waits for nothing; leave it out");
      }
      const id = await enqueueReply(transaction, { listener: name, topic, origin: this.#origin }, payload, marks);
      return { outcome: "enqueued", id, peer: name };
    }
    const running = this.#running;
    if (running === undefined) throw notRunning(this.name);
    const message = this.#checkMessage(payload, options);
    return await this.#receipt(running.outbox.sendToPeer(name, topic, message), message, options?.signal);
  };

  /** The peer as the origin of what it enqueues. */
  get #origin(): string {
    return `${this.name}:${this.#options.topic}`;
  }

  #whileRunning(): RunningPeer {
    if (this.#state !== "running" || this.#running === undefined) throw notRunning(this.name);
    return this.#running;
  }

  #checkMessage(payload: Payload, options: SendOptions | undefined): CheckedMessage {
    if (options !== undefined) checkKnownOptions(options, "a send");
    if (options?.format !== undefined) {
      throw new HawserError("invalid_argument", `format ${String(options.format)}: is for a schema; leave it out`);
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

  #checkForeign(topic: string): void {
    checkTopic(topic);
    if (topic === this.#options.topic) throw selfTopic(topic);
  }

  #checkStopped(what: string): void {
    if (this.#state !== "stopped") {
      throw new HawserError("clear_while_running", `${what} can be cleared only while "${this.name}" is not running`);
    }
  }

  /** The promise of a send, ended early by the caller's signal. */
  #receipt(sent: Sent | Promise<Sent>, message: CheckedMessage, signal: AbortSignal | undefined): Promise<AnyReceipt> {
    if (signal === undefined) return "promise" in sent ? sent.promise : sent.then(({ promise }) => promise);
    const promise = "promise" in sent ? sent.promise : sent.then(({ promise }) => promise);
    // A caller that waits no more may use its buffer again.
    return abortable(promise, signal, () => {
      if ("promise" in sent) sent.keep();
      else {
        message.payload = new Uint8Array(message.payload);
        void sent.then((outgoing) => outgoing.keep()).catch(() => undefined);
      }
    });
  }

  /** The running peer's store, or one opened for this. */
  async #withStore<T>(work: (store: Store) => Promise<T>): Promise<T> {
    if (this.#running) return await work(this.#running.store);
    const store = await openPeerStore({ options: this.#options, logger: this.#logger });
    try {
      await store.migrate();
      return await work(store);
    } finally {
      await store.close();
    }
  }
}

/** The headers of a message with those for its key, id and time to live. @throws HawserError `invalid_argument` */
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

/** Outcome of a run of a peer: settled when the peer has stopped. */
class Closing {
  readonly promise: Promise<void>;
  isOver = false;
  #resolve!: () => void;
  #reject!: (error: HawserError) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The status `name_lost` tells of it as well: whoever does not wait for the end has not missed an error.
    this.promise.catch(() => undefined);
  }

  resolve(): void {
    this.isOver = true;
    this.#resolve();
  }

  reject(error: HawserError): void {
    this.isOver = true;
    this.#reject(error);
  }
}

function isSchema(to: string | DescMessage): to is DescMessage {
  return typeof to === "object" && to?.kind === "message";
}

/** @throws HawserError `invalid_argument`, `internal_topic` unless it may be the topic of a handler */
function checkServable(topic: string): void {
  checkTopic(topic);
  checkNotReserved(topic);
}

/** @throws HawserError `invalid_argument` for what the overloads exclude */
function checkHandler(
  to: string | DescMessage,
  options: object,
  handler: UserHandler | undefined,
): asserts handler is UserHandler {
  if (typeof to === "object" && to?.kind !== "message") {
    const remedy = "give a topic, or a schema that protoc-gen-es has made of a message";
    throw new HawserError(
      "invalid_argument",
      `a handler of ${to === null ? "null" : "an object that is no schema"}: ${remedy}`,
    );
  }
  if (typeof options !== "function" && typeof handler === "function") return;
  const what = typeof to === "object" ? to.typeName : to;
  const order = typeof options === "function" ? "; options come before it" : "";
  const given = typeof options === "function" ? "not the last argument" : typeof handler;
  throw new HawserError("invalid_argument", `the handler of "${what}" is ${given}; give a function${order}`);
}

function notRunning(name: string): HawserError {
  return new HawserError("not_running", `"${name}" is not running; call start() first`);
}

function selfTopic(topic: string): HawserError {
  return new HawserError("self_topic", `"${topic}" is this peer's own topic, under which it sends; name another`);
}
