/**
 * Receives what is subscribed, over the present connection to NATS.
 *
 * When another connection replaces it, both deliver for a moment: a message of that moment arrives twice rather than not at
 * all.
 */
import { performance } from "node:perf_hooks";
import { type Msg, type NatsConnection, nuid } from "@nats-io/transport-node";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import {
  confirmed,
  isOwnInbox,
  type NatsConnector,
  receivedHeaders,
  SubscriptionSet,
  takenOver,
} from "../nats/index.js";
import { type Logger, within } from "../runtime/index.js";
import { type InboundMessage, PayloadCopies } from "./message.js";
import { isWildcard } from "./subjects.js";

/** What a receiver is made with, and what it tells. */
export interface ReceiverOptions {
  readonly connector: NatsConnector;
  readonly logger: Logger;
  /** @param pattern the subscribed subject that the message's own matches */
  onMessage(pattern: string, message: InboundMessage): void;
  /** The server does not permit a subscription. */
  onRefused(pattern: string): void;
  /** Nothing is received any more, perhaps since `completeUntil`. */
  onSilent(): void;
  /** The connection was lost, with what the server had left for it. Called before {@link onSilent}. */
  onCut(): void;
  /** There is a connection again, to the same server: that lived on while the connection was lost. */
  onSameServer(): void;
  /** From now on everything published is received. */
  onReceiving(): void;
}

interface Attached {
  readonly connection: NatsConnection;
  /** The server's id: a restarted server has another one. */
  readonly server: string | undefined;
  readonly subscriptions: SubscriptionSet;
  /** Says that the connection is not needed any more. */
  readonly done: () => void;
  /** Of the next question to the server. */
  timer: NodeJS.Timeout | undefined;
}

const { receiverLeaveMs, leaderHeartbeatMs } = bridgeConstants;

export class Receiver {
  readonly #options: ReceiverOptions;
  readonly #unlisten: () => void;
  /** The subscribed subjects, with the copies of the payloads of each. */
  #patterns: ReadonlyMap<string, PayloadCopies> = new Map();
  /** Subjects whose refusal was logged. */
  readonly #toldRefused = new Set<string>();
  #attached: Attached | undefined;
  #isStopped = false;
  /** Ends of the subscriptions on connections that another one has replaced. */
  readonly #replaced = new Set<Promise<void>>();
  /** Ends the wait for servers of a cluster to know of the replacement. */
  #hurry = new AbortController();
  #isReceiving = false;
  /** The server of the connection that was lost, until there is another one. */
  #lostFrom: string | undefined;
  #completeUntil: number | undefined;
  /** Makes the ids of messages unique to this process. */
  readonly #name = nuid.next();
  #received = 0;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    const { connector } = options;
    this.#unlisten = connector.on("connected", (connection) => void this.#attach(connection));
    if (connector.connection !== undefined) void this.#attach(connector.connection);
  }

  /** As far as it is known, everything published is received. */
  get isReceiving(): boolean {
    return this.#isReceiving;
  }

  /**
   * All that the server had for this process by then was received: it has answered a question that was asked then. A
   * connection may be dead long before that is noticed.
   */
  get completeUntil(): number | undefined {
    return this.#completeUntil;
  }

  /** Subscribes to these, and to no others. */
  subscribe(patterns: ReadonlySet<string>): void {
    const before = this.#patterns;
    this.#patterns = new Map([...patterns].map((pattern) => [pattern, before.get(pattern) ?? new PayloadCopies()]));
    for (const subject of this.#toldRefused) if (!patterns.has(subject)) this.#toldRefused.delete(subject);
    // A connection that was replaced stays as it is until it is left.
    this.#attached?.subscriptions.sync(this.#wanted);
  }

  /** The subscribed subjects, each without a queue group. */
  get #wanted(): ReadonlyMap<string, undefined> {
    return new Map([...this.#patterns.keys()].map((pattern) => [pattern, undefined]));
  }

  /** Resolves when the server knows what is subscribed, if there is a connection. Does not reject. */
  async known(): Promise<void> {
    if (this.#attached !== undefined) await confirmed(this.#attached.connection);
  }

  /** Receives nothing until there is another connection: no NATS server is defined. */
  detach(): void {
    const attached = this.#attached;
    this.#attached = undefined;
    this.#leaveReplaced();
    if (attached !== undefined) void this.#leave(attached, receiverLeaveMs);
    this.#fallSilent();
  }

  /**
   * Ends. What the server has sent by then has been told when this resolves.
   *
   * @param limitMs how long the server may take
   */
  async stop(limitMs: number): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#unlisten();
    const attached = this.#attached;
    this.#attached = undefined;
    this.#leaveReplaced();
    const replaced = within(limitMs, Promise.all(this.#replaced));
    if (attached === undefined) return void (await replaced);
    // Only until this answer is it sure to have received everything.
    void this.#ask(attached);
    await Promise.all([this.#leave(attached, limitMs), replaced]);
  }

  async #attach(connection: NatsConnection): Promise<void> {
    const before = this.#attached;
    const attached: Attached = {
      connection,
      server: connection.info?.server_id,
      subscriptions: new SubscriptionSet(connection, {
        onMessage: (pattern, message) => this.#take(pattern, message),
        onRefused: (pattern) => this.#refused(pattern),
      }),
      done: once(this.#options.connector.use(connection)),
      timer: undefined,
    };
    this.#attached = attached;
    attached.subscriptions.sync(this.#wanted);
    if (this.#lostFrom !== undefined && this.#lostFrom === attached.server) this.#options.onSameServer();
    this.#lostFrom = undefined;
    void connection.closed().then(() => this.#ended(attached));
    // The old subscriptions end only when the server knows the new ones.
    const isKnown = await this.#ask(attached);
    if (isKnown && this.#attached === attached && !this.#isReceiving) {
      this.#isReceiving = true;
      this.#options.onReceiving();
    }
    if (before === undefined) return;
    // Or several replacements in a row would deliver a message as many times.
    this.#leaveReplaced();
    const { signal } = this.#hurry;
    const left = takenOver(before.connection, connection, signal).then(() => this.#leave(before, receiverLeaveMs));
    this.#replaced.add(left);
    await left;
    this.#replaced.delete(left);
  }

  /** Ends the subscriptions of those that were replaced without waiting for other servers. */
  #leaveReplaced(): void {
    this.#hurry.abort();
    this.#hurry = new AbortController();
  }

  /** Asks the server now and from then on. @returns whether it has answered; false if the connection ends before */
  async #ask(attached: Attached): Promise<boolean> {
    clearTimeout(attached.timer);
    const askedAt = performance.now();
    if (!(await confirmed(attached.connection))) return false;
    this.#completeUntil = Math.max(askedAt, this.#completeUntil ?? askedAt);
    if (this.#attached === attached)
      attached.timer = setTimeout(() => void this.#ask(attached), leaderHeartbeatMs).unref();
    return true;
  }

  #ended(attached: Attached): void {
    if (this.#attached !== attached || this.#isStopped) return;
    this.#attached = undefined;
    clearTimeout(attached.timer);
    attached.done();
    this.#lostFrom = attached.server;
    this.#options.onCut();
    this.#fallSilent();
  }

  #fallSilent(): void {
    if (!this.#isReceiving) return;
    this.#isReceiving = false;
    this.#options.onSilent();
  }

  async #leave({ subscriptions, done, timer: asking }: Attached, limitMs: number): Promise<void> {
    clearTimeout(asking);
    await within(limitMs, subscriptions.drain());
    done();
  }

  #take(pattern: string, message: Msg): void {
    const copies = this.#patterns.get(pattern);
    // It is not subscribed any more.
    if (copies === undefined) return;
    const subject = isWildcard(pattern) ? message.subject : pattern;
    // An answer to a request of Hawser, which a subscription such as `>` takes in.
    if (isOwnInbox(subject)) return;
    this.#received += 1;
    const headers = receivedHeaders(message);
    const receivedAt = performance.now();
    this.#options.onMessage(pattern, {
      id: `${this.#name}.${this.#received.toString(36)}`,
      subject,
      payload: copies.of(message.data),
      headers: headers?.toJsonText(),
      headersProblem: headers?.problem,
      receivedAt,
      notBefore: notBefore(receivedAt, this.#completeUntil),
    });
  }

  /** It is tried again with the next connection; the server may permit it then. Logged once. */
  #refused(subject: string): void {
    if (!this.#patterns.has(subject)) return;
    this.#options.onRefused(subject);
    if (this.#toldRefused.has(subject)) return;
    this.#toldRefused.add(subject);
    this.#options.logger.warn(
      { subject },
      "the NATS server does not permit a subscription: its function is not called; let the user of the server's " +
        "definition subscribe to it, then SELECT litmus_pgnats_reload_conf_force()",
    );
  }
}

/**
 * Since when the message may have waited for this process, if that stood still.
 *
 * @param completeUntil as the receiver has it, which asks at each heartbeat
 */
export function notBefore(receivedAt: number, completeUntil: number | undefined): number | undefined {
  return completeUntil !== undefined && receivedAt - completeUntil > 2 * leaderHeartbeatMs ? completeUntil : undefined;
}

function once(action: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) action();
    isDone = true;
  };
}
