/**
 * A peer: a process that exchanges messages with others directly over TCP, with Postgres as directory, offline queue and
 * ack ledger.
 */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { SqlClient } from "../postgres/index.js";
import { silentLogger } from "../runtime/index.js";
import type { PendingMessages, Sender, Store } from "../store/index.js";
import { asHawserError } from "./context.js";
import { checkBytes, checkPayload } from "./destination.js";
import { enqueueFrom, enqueueReply } from "./enqueue.js";
import { type HandlingSettings, handlingOf } from "./handling-settings.js";
import {
  type Batch,
  deliveries,
  type EnqueueOptions,
  type Handler,
  type Message,
  type NatsSubject,
  type Origin,
  type Payload,
  type Receipt,
  type ReplyReceipt,
  type RequestOptions,
  type SendOptions,
  type TransactionalBatch,
  type TransactionalMessage,
} from "./message.js";
import { MessageStream } from "./message-stream.js";
import {
  type BatchOptions,
  type CheckedOptions,
  checkAddress,
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
  type StopOptions,
} from "./options.js";
import type { CheckedMessage } from "./outbox.js";
import { abortable, abortedBefore, type Sent } from "./outgoing.js";
import { type Answer, OutgoingRequest } from "./outgoing-request.js";
import { endsWithin, openPeerStore, RunningPeer } from "./running-peer.js";
import { type PeerStatus, StatusEmitter } from "./status.js";
import {
  batchHandling,
  HandlerSubscription,
  plainHandler,
  type Subscription,
  TopicHandlers,
} from "./topic-handlers.js";
import {
  type HandledType,
  type PublishOptions,
  type TypedHandler,
  TypedHandlers,
  topicOfPeers,
  typedSend,
} from "./typed.js";

/** A listener of a topic, as the directory has it. */
export interface ListenerEntry {
  /** host:port */
  readonly address: string;
  readonly name: string;
}

/** What became of one of the sends of {@link Peer.sendAll}. */
export type SendAllReceipt = Receipt | { readonly peer: string; readonly error: HawserError };

/** What a user gave, whose arguments the overloads say. */
type UserHandler = (first: never, second: never) => unknown;

type State = "stopped" | "starting" | "running" | "stopping";

/**
 * A peer with a name, a source topic and a listening address. Create it, `run` it, and it receives what is sent to its
 * topic and to the topics it subscribes to; meanwhile it sends. One process at a time has a name.
 */
export class Peer implements AsyncDisposable {
  readonly #options: CheckedOptions;
  readonly #logger: NonNullable<PeerOptions["logger"]>;
  readonly #status = new StatusEmitter();
  readonly #handlers: TopicHandlers;
  readonly #unsubscribed = new Set<string>();
  #advertised: string | undefined;
  #state: State = "stopped";
  #transition: Promise<void> = Promise.resolve();
  #running: RunningPeer | undefined;
  /** Ends a start that is under way. */
  #starting: AbortController | undefined;
  #stream: MessageStream | undefined;
  #bound = "";

  /** @throws HawserError `invalid_argument` naming the option, its value and the rule; `internal_topic` */
  constructor(options: PeerOptions) {
    this.#options = checkOptions(options);
    this.#handlers = new TopicHandlers(this.#options, handlingOf(this.#options.settings), this.#reply);
    this.#advertised = options.advertise;
    this.#logger = options.logger ?? silentLogger;
  }

  /** The peer's name. */
  get name(): string {
    return this.#options.name;
  }

  /** The address that the socket is bound to, host:port; stays after a stop. Empty before the first start. */
  get boundListenAddress(): string {
    return this.#bound;
  }

  /** The address in the directory; empty while the peer is not running. */
  get publishedAddress(): string {
    return this.#running?.publishedAddress ?? "";
  }

  /** The address to publish instead of the bound one; port 0 becomes the bound port. */
  get advertise(): string | undefined {
    return this.#advertised;
  }

  /** @throws HawserError `already_running`, or `invalid_argument` for a malformed address */
  set advertise(address: string | undefined) {
    if (this.#state !== "stopped") {
      throw new HawserError("already_running", "the advertised address can be set only while the peer is stopped");
    }
    if (address !== undefined) checkAddress("advertise", address);
    this.#advertised = address;
  }

  /** Hears of what no call can throw. */
  on(event: "status", listener: (status: PeerStatus) => void): this;
  /**
   * Handles the messages of a type, decoded and checked: subscribes to the topic that the schema's option names, as
   * {@link subscribe} does. A topic can have several types, each with a handler of its own; the header `content-type` tells
   * them apart. What cannot be decoded, breaks a rule, or is of another type is a dead letter at once (`invalid_message`).
   *
   * @param schema made by protoc-gen-es, with the option `hawser.v1.topic`
   * @throws HawserError (as a rejection) `invalid_schema`; as {@link subscribe}
   */
  on<Desc extends DescMessage>(schema: Desc, handler: TypedHandler<Desc>): Promise<void>;
  on<Desc extends DescMessage>(
    event: "status" | Desc,
    listener: ((status: PeerStatus) => void) | TypedHandler<Desc>,
  ): this | Promise<void> {
    if (typeof event === "object") {
      return this.handle(event, listener as TypedHandler<Desc>).then(() => undefined);
    }
    this.#status.on(event, listener as (status: PeerStatus) => void);
    return this;
  }

  off(event: "status", listener: (status: PeerStatus) => void): this {
    this.#status.off(event, listener);
    return this;
  }

  /**
   * Starts: migrates the database where needed, takes the name, binds the socket, enters the directory, and hands what
   * comes to `handler`. Without a handler the peer only sends; messages for it wait in the store. Does nothing when it
   * is running already.
   *
   * @throws HawserError `name_in_use` after `nameWaitMs`, `bind_failed`, `startup_failed` with the cause, …; it may be
   * tried again
   */
  async run(handler?: Handler): Promise<void> {
    while (this.#state === "stopping") await this.#transition.catch(() => undefined);
    if (this.#state !== "stopped") return await this.#transition;
    if (this.#stream !== undefined && handler !== undefined) {
      throw new HawserError("already_running", "messages() takes the place of a handler: call run() without one");
    }
    if (this.#stream === undefined) this.#handlers.others = handler;
    this.#state = "starting";
    this.#transition = this.#start();
    try {
      await this.#transition;
    } catch (error) {
      this.#transition = Promise.resolve();
      throw error;
    }
  }

  /** The messages as an async iterator instead of a handler; starts the peer if it is not running. */
  messages(): AsyncIterableIterator<Message> {
    if (this.#state !== "stopped" || this.#stream !== undefined) {
      throw new HawserError("already_running", "messages() takes the place of a handler: call it instead of run()");
    }
    const stream = new MessageStream(
      () => this.run(),
      () => {
        this.#stream = undefined;
      },
    );
    this.#stream = stream;
    this.#handlers.others = stream.handle;
    return stream;
  }

  /**
   * Sends to one listener of the topic, in turn.
   *
   * At least once (the default) it resolves `delivered` when the listener's handler is done and committed, or `stored`
   * when Postgres has surely committed the message. At most once it resolves `sent` or `dropped`. The payload's bytes
   * must not change before the promise has settled.
   *
   * @throws HawserError (as a rejection) `not_running`, `self_topic`, `no_listener`, `invalid_argument`, `busy`,
   * `store_failed` with `outcome: "unknown"` after `sendTimeoutMs`, `aborted`, `name_lost`
   */
  sendTo(topic: string, payload: Uint8Array | string, options?: SendOptions): Promise<Receipt> {
    try {
      if (options?.signal?.aborted) throw abortedBefore(options.signal);
      const running = this.#whileRunning();
      if (topic === this.#options.topic) throw selfTopic(topic);
      const message = this.#checkMessage(payload, options);
      return this.#receipt(running.outbox.sendTo(topic, message), message, options?.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Makes a request of one listener of the topic, in turn, and waits for what its handler returns. At most once: it is never
   * stored. A listener that has surely not begun with it is passed over for the next one.
   *
   * @param payload may be empty
   * @throws HawserError (as a rejection)
   * - `not_running`, `self_topic`, `no_listener`, `invalid_argument`, `payload_too_large`, and after all listeners were tried `unreachable` or
   *   `busy`: nothing was carried out;
   * - `request_timeout`, `aborted`, `listener_lost`: with outcome `unknown` the handler may have begun;
   * - `handler_failed`, `rejected`, or the code of the error that the handler threw, with its message
   */
  request(topic: string, payload: Uint8Array | string, options?: RequestOptions): Promise<Answer> {
    try {
      checkKnownOptions(options, "a request");
      const { requestTimeoutMs, maxMessageBytes } = this.#options.settings;
      const { signal, headers, idempotent = false, timeoutMs = requestTimeoutMs } = options ?? {};
      if (timeoutMs !== requestTimeoutMs) checkTimeout(timeoutMs);
      if (signal?.aborted) throw abortedBefore(signal);
      const { outbox } = this.#whileRunning();
      if (topic === this.#options.topic) throw selfTopic(topic);
      const pairs = headers && checkHeaders(headers);
      const { askNext } = outbox;
      const request = new OutgoingRequest(checkBytes(payload), pairs, maxMessageBytes, timeoutMs, idempotent, askNext);
      if (signal !== undefined) request.endWith(signal);
      outbox.request(topic, request);
      return request.answer;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a typed message to the topic that its schema's option names. The fields that the option names give its key and
   * id, unless the options do.
   *
   * @param schema made by protoc-gen-es, with the option `hawser.v1.topic`
   * @param message what `create(schema, …)` takes
   * @throws HawserError (as a rejection) `invalid_argument` naming the field, its value and the rule; `invalid_schema`; as
   * {@link sendTo}
   */
  publish<Desc extends DescMessage>(
    schema: Desc,
    message: MessageInitShape<Desc>,
    options?: PublishOptions,
  ): Promise<Receipt> {
    try {
      const { topic, payload, send } = typedSend(schema, message, options);
      return this.sendTo(topic, payload, send);
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

  /** Sends to every listener of the topic: one receipt each, a failed one with its error. */
  async sendAll(topic: string, payload: Uint8Array | string, options?: SendOptions): Promise<SendAllReceipt[]> {
    const running = this.#whileRunning();
    this.#checkForeign(topic);
    const message = this.#checkMessage(payload, options);
    const sent = await running.outbox.sendAll(topic, message);
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
   * Serves a further topic, from now on or from the next start; lasts over stop and run.
   *
   * @param handler for the messages and requests of this topic, in place of the one of `run`. The topic may also be the
   * peer's source topic then. Another call replaces it; without a handler it stays as it is
   */
  async subscribe(topic: string, handler?: Handler): Promise<void> {
    if (handler === undefined) this.#checkForeign(topic);
    await this.#serve(topic, () => handler && this.#handlers.set(topic, plainHandler(handler, undefined)));
  }

  /** @param set sets the handler of the topic */
  async #serve(topic: string, set: () => void): Promise<void> {
    checkTopic(topic);
    checkNotReserved(topic);
    await this.#started();
    set();
    this.#running?.handlersChanged();
    if (topic === this.#options.topic) return;
    const before = this.#handlers.subscriptions.has(topic);
    this.#handlers.subscriptions.add(topic);
    this.#unsubscribed.delete(topic);
    if (this.#state !== "running" || before) return;
    try {
      await this.#running?.subscribe(topic);
    } catch (error) {
      this.#handlers.subscriptions.delete(topic);
      this.#removeHandler(topic);
      throw error;
    }
  }

  /**
   * Handles the messages and requests of a topic, from now on or from the next start; lasts over stop and run. Another call for
   * the same topic replaces the handler and its options.
   *
   *     await peer.handle("orders", { transactional: true, retry: { attempts: 20 } }, async ({ client }) => { … });
   *
   * @param options what is left out is as the peer has it
   * @returns what ends it
   * @throws HawserError (as a rejection) `invalid_argument`, `internal_topic`; `store_failed` if the peer runs
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
   * a rule, or is of another type is a dead letter at once (`invalid_message`).
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
    const settings = checkHandleOptions(options as HandleOptions, this.#options.settings);
    return await this.#handleWith(to, handler, () => settings);
  }

  /**
   * Handles the messages of a topic together, so that one statement can write what they bring: up to `maxMessages`, at most
   * one of each key, and at most one of each sender that was sent without a key. One batch of a topic is handled at a time, beside
   * the other handlers of the peer. If the handler throws, the batch is handled in halves, until the message that fails is alone; that
   * one is tried again as `retry` says. `batch.fail` names it at once. With `transactional: true` each batch is one transaction.
   * Requests are refused (`not_supported`).
   *
   *     await peer.handleBatch("readings", { transactional: true, maxMessages: 500 }, async (messages, { client }) => { … });
   *
   * @returns what ends it
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
   * One that cannot be decoded is a dead letter at once, and not part of a batch.
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
    const { handling, batch } = checkBatchOptions(options, this.#options.settings);
    return await this.#handleWith(to, handler, (types) => ({
      ...handling,
      batch: batchHandling(batch, handler, types && ((message) => types.decode(message))),
    }));
  }

  /** @param settingsOf of a handler for one type, or for a topic */
  async #handleWith(
    to: string | DescMessage,
    handler: UserHandler,
    settingsOf: (types: TypedHandlers | undefined) => HandlingSettings,
  ): Promise<Subscription> {
    if (typeof to !== "object") {
      const subscription = new HandlerSubscription(to, async () => {
        if (this.#handlers.get(to) === own) await this.#stopHandling(to);
      });
      const own = plainHandler(handler as Handler, settingsOf(undefined), subscription.ended);
      await this.#serve(to, () => this.#handlers.set(to, own));
      return subscription;
    }
    const topic = topicOfPeers(to);
    let stop = async (): Promise<void> => undefined;
    const subscription = new HandlerSubscription(topic, () => stop());
    await this.#serve(topic, () => {
      const types = this.#typesOf(topic);
      const type: HandledType = { schema: to, settings: settingsOf(types), handler, ended: subscription.ended };
      this.#handlers.set(topic, types);
      types.add(type);
      stop = async () => {
        if (this.#handlers.get(topic) !== types || !types.has(type)) return;
        if (types.size > 1) types.remove(type);
        else await this.#stopHandling(topic);
      };
    });
    return subscription;
  }

  async #stopHandling(topic: string): Promise<void> {
    if (topic === this.#options.topic) this.#removeHandler(topic);
    else await this.unsubscribe(topic);
  }

  /** Serves a topic no more: sends to it fail with `no_listener`, and what still comes goes to the dead letters. */
  async unsubscribe(topic: string): Promise<void> {
    this.#checkForeign(topic);
    checkNotReserved(topic);
    await this.#started();
    this.#handlers.subscriptions.delete(topic);
    if (this.#state === "running") await this.#running?.unsubscribe(topic);
    else this.#unsubscribed.add(topic);
    this.#removeHandler(topic);
  }

  /** Reads the topic's listeners again. @returns whether it has one */
  async refreshAddressTopic(topic: string): Promise<boolean> {
    checkTopic(topic);
    if (this.#state === "running" && this.#running) return await this.#running.outbox.topics.refresh(topic);
    return (await this.listAddresses(topic)).length > 0;
  }

  /** The topic's listeners in the directory, in the order of their addresses. */
  async listAddresses(topic: string): Promise<ListenerEntry[]> {
    checkTopic(topic);
    const { listeners } = await this.#withStore((store) => store.listenersAndRoutes(this.#sender, topic));
    return listeners.map(({ addr, name }) => ({ address: addr, name }));
  }

  /** How many messages this sender (name and source topic) has stored for others. */
  async pendingCount(): Promise<number> {
    return await this.#withStore((store) => store.pendingCount(this.#sender));
  }

  /** How many of them wait for each listener; known routes with 0 included. */
  async pendingByPeer(): Promise<PendingMessages[]> {
    return await this.#withStore((store) => store.pendingByPeer(this.#sender));
  }

  /**
   * Deletes this sender's stored messages and routes.
   *
   * @throws HawserError `clear_while_running` while this peer runs, `name_in_use` while another one of its name does, in
   * whichever process; then nothing is deleted
   */
  async clearStoredMessages(): Promise<void> {
    this.#checkStopped("stored messages");
    await this.#withStore((store) => store.clearStoredMessages(this.#sender));
  }

  /** Takes all listeners of this peer's source topic out of the directory. @throws as {@link clearStoredMessages} */
  async clearAddressesOfTopic(): Promise<void> {
    this.#checkStopped("addresses");
    await this.#withStore((store) => store.clearAddressesOfTopic(this.#sender));
  }

  /**
   * Stops: refuses new sends, waits for running handlers, stores what is unconfirmed, tells everybody goodbye, leaves the
   * directory and gives the name back. All pending promises settle. `run` may follow.
   *
   * Ends by the deadline, whatever Postgres or a handler does; half a second is the least that it takes where Postgres does
   * not answer. What did not end by then is given up: a name that could not be given back is free when the connection has
   * ended. While a stop is under way a further call waits for it, and the deadline of the first one counts.
   */
  async stop(options: StopOptions = {}): Promise<void> {
    checkKnownOptions(options, "stop");
    const { deadlineMs = this.#options.settings.stopDeadlineMs } = options;
    if (Number.isNaN(deadlineMs) || deadlineMs < 0) {
      throw new HawserError(
        "invalid_argument",
        `deadlineMs ${deadlineMs}: must be a number of milliseconds, 0 or more`,
      );
    }
    this.#starting?.abort(new HawserError("aborted", `"${this.name}" was stopped while it was starting`));
    const until = performance.now() + deadlineMs;
    while (this.#state === "starting") {
      const ended = this.#transition.catch(() => undefined);
      if (await endsWithin(until - performance.now(), ended)) continue;
      this.#logger.warn({ deadlineMs }, "the start that is stopped waits for Postgres, and ends when that answers");
      return;
    }
    if (this.#state === "stopping") return await this.#transition;
    const running = this.#running;
    if (running === undefined) return;
    this.#state = "stopping";
    this.#transition = running.stop(Math.max(until - performance.now(), 0)).finally(() => this.#ended(running));
    this.#stream?.close();
    await this.#transition;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** What is asked for in the middle of a start waits for its end: the start has read what there was. */
  async #started(): Promise<void> {
    if (this.#state === "starting") await this.#transition.catch(() => undefined);
  }

  /** @throws HawserError `already_running` */
  #typesOf(topic: string): TypedHandlers {
    const known = this.#handlers.get(topic);
    if (known === undefined) return new TypedHandlers(topic);
    if (known instanceof TypedHandlers) return known;
    throw new HawserError(
      "already_running",
      `the topic "${topic}" has a handler for messages of all types; stop that first, or handle each type by its schema`,
    );
  }

  #removeHandler(topic: string): void {
    this.#handlers.set(topic, undefined);
    this.#running?.handlersChanged();
  }

  get #sender(): Sender {
    return { name: this.#options.name, sourceTopic: this.#options.topic };
  }

  async #start(): Promise<void> {
    const starting = new AbortController();
    this.#starting = starting;
    try {
      const running = await RunningPeer.start(
        {
          options: this.#options,
          advertise: this.#advertised,
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
      this.#running = running;
      this.#bound = running.boundAddress;
      this.#unsubscribed.clear();
      this.#state = "running";
      running.begin();
    } catch (error) {
      this.#state = "stopped";
      const cause = asHawserError(error);
      if (cause.code !== "internal" && cause.code !== "store_failed") throw cause;
      throw new HawserError("startup_failed", `"${this.name}" could not start: ${cause.message}`, { cause });
    } finally {
      this.#starting = undefined;
    }
  }

  /** The running peer ends by itself, because another process has the name. */
  #nameLost(ending: Promise<void>): void {
    const running = this.#running;
    if (running === undefined || this.#state !== "running") return;
    this.#state = "stopping";
    this.#transition = ending.finally(() => this.#ended(running));
    this.#stream?.close();
  }

  #ended(running: RunningPeer): void {
    if (this.#running !== running) return;
    this.#running = undefined;
    this.#stream = undefined;
    this.#state = "stopped";
    this.#transition = Promise.resolve();
  }

  readonly #reply = async (
    to: Origin | undefined,
    payload: Uint8Array | string,
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

  #checkMessage(payload: Uint8Array | string, options: SendOptions | undefined): CheckedMessage {
    if (options !== undefined) checkKnownOptions(options, "a send");
    const bytes = checkPayload(payload);
    const name = options?.delivery ?? "at-least-once";
    const delivery = deliveries.get(name);
    if (delivery === undefined) {
      throw new HawserError("invalid_argument", `delivery ${String(name)}: must be "at-least-once" or "at-most-once"`);
    }
    const given = options?.headers && checkHeaders(options.headers);
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
  #receipt(sent: Sent | Promise<Sent>, message: CheckedMessage, signal: AbortSignal | undefined): Promise<Receipt> {
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
  return new HawserError("not_running", `"${name}" is not running; call run() first`);
}

function selfTopic(topic: string): HawserError {
  return new HawserError("self_topic", `"${topic}" is this peer's own source topic; name another`);
}
