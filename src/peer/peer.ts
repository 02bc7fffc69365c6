/**
 * A peer: a process that exchanges messages with others directly over TCP, with Postgres as directory, offline queue and
 * ack ledger.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { type HawserError, PeerError } from "../errors/index.js";
import { silentLogger } from "../runtime/index.js";
import type { PendingMessages, Sender, Store } from "../store/index.js";
import { asHawserError } from "./context.js";
import { checkPayload, enqueue, enqueueFor } from "./enqueue.js";
import type { Handle, Source } from "./handler-call.js";
import {
  deliveryOf,
  type EnqueueClient,
  type EnqueuedReceipt,
  type EnqueueOptions,
  type Handler,
  type Message,
  MessageView,
  type Receipt,
  type ReplyReceipt,
  type SendOptions,
} from "./message.js";
import { MessageStream } from "./message-stream.js";
import {
  type CheckedOptions,
  checkAddress,
  checkHeaders,
  checkKnownOptions,
  checkNotReserved,
  checkOptions,
  checkTopic,
  type PeerOptions,
  type StopOptions,
} from "./options.js";
import type { CheckedMessage } from "./outbox.js";
import { abortable, abortedBefore, type Outgoing } from "./outgoing.js";
import { endsWithin, openPeerStore, RunningPeer } from "./running-peer.js";
import { type PeerStatus, StatusEmitter } from "./status.js";

/** A listener of a topic, as the directory has it. */
export interface ListenerEntry {
  /** host:port */
  readonly address: string;
  readonly name: string;
}

/** What became of one of the sends of {@link Peer.sendAll}. */
export type SendAllReceipt = Receipt | { readonly peer: string; readonly error: HawserError };

/** How a message is sent in a transaction. */
export interface TransactionOptions extends EnqueueOptions {
  /** In the transaction that the message is to be part of. */
  readonly transaction: EnqueueClient;
}

type State = "stopped" | "starting" | "running" | "stopping";

/**
 * A peer with a name, a source topic and a listening address. Create it, `run` it, and it receives what is sent to its
 * topic and to the topics it subscribes to; meanwhile it sends. One process at a time has a name.
 */
export class Peer implements AsyncDisposable {
  readonly #options: CheckedOptions;
  readonly #logger: NonNullable<PeerOptions["logger"]>;
  readonly #status = new StatusEmitter();
  readonly #subscriptions = new Set<string>();
  readonly #unsubscribed = new Set<string>();
  #advertised: string | undefined;
  #state: State = "stopped";
  #transition: Promise<void> = Promise.resolve();
  #running: RunningPeer | undefined;
  /** Ends a start that is under way. */
  #starting: AbortController | undefined;
  #handler: Handler | undefined;
  #stream: MessageStream | undefined;
  #bound = "";

  /** @throws PeerError `invalid_argument` naming the option, its value and the rule; `internal_topic` */
  constructor(options: PeerOptions) {
    this.#options = checkOptions(options);
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

  /** @throws PeerError `already_running`, or `invalid_argument` for a malformed address */
  set advertise(address: string | undefined) {
    if (this.#state !== "stopped") {
      throw new PeerError("already_running", "the advertised address can be set only while the peer is stopped");
    }
    if (address !== undefined) checkAddress("advertise", address);
    this.#advertised = address;
  }

  /** Hears of what no call can throw. */
  on(event: "status", listener: (status: PeerStatus) => void): this {
    this.#status.on(event, listener);
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
      throw new PeerError("already_running", "messages() takes the place of a handler: call run() without one");
    }
    if (this.#stream === undefined) this.#handler = handler;
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
      throw new PeerError("already_running", "messages() takes the place of a handler: call it instead of run()");
    }
    const stream = new MessageStream(
      () => this.run(),
      () => {
        this.#stream = undefined;
      },
    );
    this.#stream = stream;
    this.#handler = stream.handle;
    return stream;
  }

  /**
   * Sends to one listener of the topic, in turn.
   *
   * At least once (the default) it resolves `delivered` when the listener's handler is done and committed, or `stored`
   * when Postgres has surely committed the message. At most once it resolves `sent` or `dropped`. The payload's bytes
   * must not change before the promise has settled.
   *
   * @throws PeerError (as a rejection) `not_running`, `self_topic`, `no_address`, `invalid_argument`, `busy`,
   * `store_failed` with `outcome: "unknown"` after `sendTimeoutMs`, `aborted`, `name_lost`
   */
  sendTo(topic: string, payload: Uint8Array | string, options?: SendOptions): Promise<Receipt>;
  /**
   * Writes the message in a transaction, with whose commit it is handed to one listener of the topic, and without which it
   * never was. The peer need not run. A topic that nobody serves yet keeps it until somebody does.
   *
   * @throws PeerError (as a rejection) `internal_topic`, `invalid_argument`; the error of Postgres
   */
  sendTo(topic: string, payload: Uint8Array | string, options: TransactionOptions): Promise<EnqueuedReceipt>;
  sendTo(
    topic: string,
    payload: Uint8Array | string,
    options?: SendOptions | TransactionOptions,
  ): Promise<Receipt | EnqueuedReceipt> {
    try {
      if (isInTransaction(options)) return this.#enqueue(topic, payload, options);
      if (options?.signal?.aborted) throw abortedBefore(options.signal);
      const running = this.#whileRunning();
      if (topic === this.#options.topic || !running.outbox.knows(topic)) this.#checkForeign(topic);
      const message = this.#checkMessage(payload, options);
      return this.#receipt(running.outbox.sendTo(topic, message), message, options?.signal);
    } catch (error) {
      return Promise.reject(error);
    }
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

  /** Serves a further topic, from now on or from the next start; lasts over stop and run. */
  async subscribe(topic: string): Promise<void> {
    this.#checkForeign(topic);
    checkNotReserved(topic);
    await this.#started();
    const before = this.#subscriptions.has(topic);
    this.#subscriptions.add(topic);
    this.#unsubscribed.delete(topic);
    if (this.#state !== "running" || before) return;
    try {
      await this.#running?.subscribe(topic);
    } catch (error) {
      this.#subscriptions.delete(topic);
      throw error;
    }
  }

  /** Serves a topic no more: sends to it fail with `no_address`, and what still comes goes to the dead letters. */
  async unsubscribe(topic: string): Promise<void> {
    this.#checkForeign(topic);
    checkNotReserved(topic);
    await this.#started();
    this.#subscriptions.delete(topic);
    if (this.#state === "running") await this.#running?.unsubscribe(topic);
    else this.#unsubscribed.add(topic);
  }

  /** Reads the topic's listeners again. @returns whether it has one */
  async refreshAddressTopic(topic: string): Promise<boolean> {
    checkTopic(topic);
    if (this.#state === "running" && this.#running) return await this.#running.outbox.topics.refresh(topic);
    return await this.#withStore(async (store) => (await store.listenersOf(topic)).length > 0);
  }

  /** The topic's listeners in the directory, in the order of their addresses. */
  async listAddresses(topic: string): Promise<ListenerEntry[]> {
    checkTopic(topic);
    const listeners = await this.#withStore((store) => store.listenersOf(topic));
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
      throw new PeerError("invalid_argument", `deadlineMs ${deadlineMs}: must be a number of milliseconds, 0 or more`);
    }
    this.#starting?.abort(new PeerError("aborted", `"${this.name}" was stopped while it was starting`));
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
          subscriptions: this.#subscriptions,
          unsubscribed: this.#unsubscribed,
          handle: this.#handler && this.#handle,
          onLost: (ending) => this.#nameLost(ending),
        },
        starting.signal,
      );
      if (running.isLost) {
        await running.stop(0);
        throw new PeerError("name_lost", `"${this.name}" lost its name while it was starting`);
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
      throw new PeerError("startup_failed", `"${this.name}" could not start: ${cause.message}`, { cause });
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

  readonly #handle: Handle = (due) => this.#handler?.(new MessageView(due, this.#reply));

  async #enqueue(topic: string, payload: Uint8Array | string, options: TransactionOptions): Promise<EnqueuedReceipt> {
    checkKnownOptions(options, "a send");
    const { transaction, ...more } = options;
    refuseBesideTransaction(more);
    return await enqueue(transaction, { ...more, topic, payload });
  }

  readonly #reply = async (
    { senderName, sourceTopic }: Source,
    payload: Uint8Array | string,
    options: SendOptions | undefined,
    transaction: EnqueueClient | undefined,
  ): Promise<ReplyReceipt> => {
    if (senderName === outboxConstants.peerSender) {
      throw new PeerError(
        "no_address",
        "the message was enqueued, and has no sender that could take a reply; send to a topic instead",
      );
    }
    if (transaction !== undefined && options?.delivery !== "at-most-once") {
      checkKnownOptions(options, "a send");
      const { delivery, ...more } = options ?? {};
      refuseBesideTransaction(more);
      const enqueued = await enqueueFor(transaction, senderName, { ...more, topic: sourceTopic, payload });
      return { ...enqueued, peer: senderName };
    }
    const running = this.#running;
    if (running === undefined) throw notRunning(this.name);
    const message = this.#checkMessage(payload, options);
    return await this.#receipt(running.outbox.sendToPeer(senderName, sourceTopic, message), message, options?.signal);
  };

  #whileRunning(): RunningPeer {
    if (this.#state !== "running" || this.#running === undefined) throw notRunning(this.name);
    return this.#running;
  }

  #checkMessage(payload: Uint8Array | string, options: SendOptions | undefined): CheckedMessage {
    checkKnownOptions(options, "a send");
    refuseWithoutTransaction(options);
    const bytes = checkPayload(payload);
    const name = options?.delivery ?? "at-least-once";
    const delivery = deliveryOf(name);
    if (delivery === undefined) {
      throw new PeerError("invalid_argument", `delivery ${String(name)}: must be "at-least-once" or "at-most-once"`);
    }
    return { delivery, payload: bytes, headers: options?.headers && checkHeaders(options.headers) };
  }

  #checkForeign(topic: string): void {
    checkTopic(topic);
    if (topic === this.#options.topic) {
      throw new PeerError("self_topic", `"${topic}" is this peer's own source topic; name another`);
    }
  }

  #checkStopped(what: string): void {
    if (this.#state !== "stopped") {
      throw new PeerError("clear_while_running", `${what} can be cleared only while "${this.name}" is not running`);
    }
  }

  /** The promise of a send, ended early by the caller's signal. */
  #receipt(
    sent: Outgoing | Promise<Outgoing>,
    message: CheckedMessage,
    signal: AbortSignal | undefined,
  ): Promise<Receipt> {
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

function isInTransaction(options: SendOptions | TransactionOptions | undefined): options is TransactionOptions {
  return (options as Partial<TransactionOptions> | undefined)?.transaction !== undefined;
}

/** What says how to wait for an answer, which a message in a transaction does not have. */
function refuseBesideTransaction(options: SendOptions): void {
  for (const name of ["delivery", "signal"] as const) {
    if (options[name] === undefined) continue;
    throw new PeerError(
      "invalid_argument",
      `${name} beside transaction: has no meaning there; leave one of the two out`,
    );
  }
}

/** What only the outbox knows. */
function refuseWithoutTransaction(options: (SendOptions & Partial<TransactionOptions>) | undefined): void {
  if (options?.transaction !== undefined) {
    throw new PeerError("invalid_argument", "transaction: only sendTo writes a message in one; leave it out");
  }
  for (const name of ["key", "messageId", "deliverAt"] as const) {
    if (options?.[name] === undefined) continue;
    throw new PeerError(
      "invalid_argument",
      `${name} ${JSON.stringify(options[name])} without transaction: needs one; send with { transaction: client }, or leave it out`,
    );
  }
}

function notRunning(name: string): PeerError {
  return new PeerError("not_running", `"${name}" is not running; call run() first`);
}
