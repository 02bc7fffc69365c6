/**
 * Receives the messages of all subscriptions over the current connection to NATS.
 *
 * While a new connection replaces the old one, both deliver for a moment, so that a message of that moment arrives
 * twice rather than not at all.
 */
import { performance } from "node:perf_hooks";
import { type Msg, type NatsConnection, nuid } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { type Logger, within } from "../../foundation/runtime/index.js";
import {
  confirmed,
  interestPropagated,
  isOwnInbox,
  type NatsConnector,
  receivedHeaders,
  SubscriptionSet,
} from "../connections/index.js";
import { type InboundMessage, PayloadCopies } from "./message.js";
import { isWildcard } from "./subjects.js";

/** Collaborators of a {@link Receiver}. */
interface ReceiverOptions {
  readonly connector: NatsConnector;
  readonly logger: Logger;
  readonly events: ReceiverEvents;
}

/** Events of a {@link Receiver}. */
export interface ReceiverEvents {
  /** A message arrived. @param pattern subject of the NATS subscription that delivered it */
  onMessage(pattern: string, message: InboundMessage): void;
  /** The server refused a subscription. */
  onRefused(pattern: string): void;
  /** Messages may be missing: everything was received only until {@link Receiver.completeUntil}. */
  onIncomplete(): void;
  /**
   * The connection was lost, and with it the messages that the server had not yet sent. Called before
   * {@link onIncomplete}.
   */
  onConnectionLost(): void;
  /** The new connection is to the same server as the lost one, and the server did not restart in between. */
  onSameServerAgain(): void;
  /** The server has processed all subscriptions: every message that is published from now on is received. */
  onComplete(): void;
}

interface Attached {
  readonly connection: NatsConnection;
  /** Id of the server, which changes with each of its starts. */
  readonly server: string | undefined;
  readonly subscriptions: SubscriptionSet;
  /** Releases the connection, which the connector may then close. */
  readonly done: () => void;
  /** Timer of the next round trip to the server. */
  timer: NodeJS.Timeout | undefined;
}

const { leaderHeartbeatMs } = bridgeConstants;
/** Time limit for the NATS server to end the subscriptions of a replaced connection. */
const receiverLeaveMs = 2_000;

export class Receiver {
  readonly #options: ReceiverOptions;
  readonly #unlisten: () => void;
  /** Subscribed subjects, each with the copies of its payloads. */
  #patterns: ReadonlyMap<string, PayloadCopies> = new Map();
  /** Subjects whose refusal is already logged. */
  readonly #loggedRefused = new Set<string>();
  #attached: Attached | undefined;
  #isStopped = false;
  /** Handovers from replaced connections that still run. */
  readonly #replaced = new Set<Promise<void>>();
  /** Ends the wait until all servers of a cluster know the new subscriptions. */
  #abortHandovers = new AbortController();
  #isReceiving = false;
  /** Server id of the lost connection, until there is a new connection. */
  #lostServer: string | undefined;
  #completeUntil: number | undefined;
  /** Prefix of message ids, unique to this process. */
  readonly #name = nuid.next();
  #received = 0;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    const { connector } = options;
    this.#unlisten = connector.on("connected", (connection) => void this.#attach(connection));
    if (connector.connection !== undefined) void this.#attach(connector.connection);
  }

  /** True while every published message is received, as far as this process knows. */
  get isReceiving(): boolean {
    return this.#isReceiving;
  }

  /**
   * Time until which every message was received (`performance.now()`, ms): the start of the last completed round trip
   * to the server. It is used because a connection can be dead long before that is noticed.
   */
  get completeUntil(): number | undefined {
    return this.#completeUntil;
  }

  /** Replaces the set of subscribed subjects, which may contain wildcards. */
  subscribe(patterns: ReadonlySet<string>): void {
    const before = this.#patterns;
    this.#patterns = new Map([...patterns].map((pattern) => [pattern, before.get(pattern) ?? new PayloadCopies()]));
    for (const subject of this.#loggedRefused) if (!patterns.has(subject)) this.#loggedRefused.delete(subject);
    // A replaced connection keeps its subscriptions until its handover ends.
    this.#attached?.subscriptions.sync(this.#wanted);
  }

  /** Subscribed subjects, each without a queue group. */
  get #wanted(): ReadonlyMap<string, undefined> {
    return new Map([...this.#patterns.keys()].map((pattern) => [pattern, undefined]));
  }

  /** Resolves when the server has processed all subscriptions, or at once without a connection. Does not reject. */
  async confirmed(): Promise<void> {
    if (this.#attached !== undefined) await confirmed(this.#attached.connection);
  }

  /** Ends all subscriptions until there is another connection. Called when no NATS server is defined. */
  detach(): void {
    const attached = this.#attached;
    this.#attached = undefined;
    this.#endReplaced();
    if (attached !== undefined) void this.#release(attached, receiverLeaveMs);
    this.#setIncomplete();
  }

  /**
   * Ends all subscriptions. When it resolves, `onMessage` has been called for everything that the server had sent.
   *
   * @param limitMs time limit for the server
   */
  async stop(limitMs: number): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#unlisten();
    const attached = this.#attached;
    this.#attached = undefined;
    this.#endReplaced();
    const replaced = within(limitMs, Promise.all(this.#replaced));
    if (attached === undefined) return void (await replaced);
    // This round trip is the last one: it fixes the time until which every message was received.
    void this.#confirm(attached);
    await Promise.all([this.#release(attached, limitMs), replaced]);
  }

  async #attach(connection: NatsConnection): Promise<void> {
    const before = this.#attached;
    const attached: Attached = {
      connection,
      server: connection.info?.server_id,
      subscriptions: new SubscriptionSet(connection, {
        onMessage: (pattern, message) => this.#onMessage(pattern, message),
        onRefused: (pattern) => this.#onRefused(pattern),
      }),
      done: this.#options.connector.use(connection),
      timer: undefined,
    };
    this.#attached = attached;
    attached.subscriptions.sync(this.#wanted);
    if (this.#lostServer !== undefined && this.#lostServer === attached.server)
      this.#options.events.onSameServerAgain();
    this.#lostServer = undefined;
    void connection.closed().then(() => this.#onClosed(attached));
    // The old subscriptions end only after the server has processed the new ones.
    const isKnown = await this.#confirm(attached);
    if (isKnown && this.#attached === attached && !this.#isReceiving) {
      this.#isReceiving = true;
      this.#options.events.onComplete();
    }
    if (before === undefined) return;
    // If connections are replaced in quick succession, each that is still subscribed would deliver every message again.
    this.#endReplaced();
    const { signal } = this.#abortHandovers;
    const released = interestPropagated(before.connection, connection, signal).then(() =>
      this.#release(before, receiverLeaveMs),
    );
    this.#replaced.add(released);
    await released;
    this.#replaced.delete(released);
  }

  /** Ends the subscriptions of replaced connections without waiting for other servers of the cluster. */
  #endReplaced(): void {
    this.#abortHandovers.abort();
    this.#abortHandovers = new AbortController();
  }

  /**
   * Makes a round trip to the server now and at each heartbeat.
   *
   * @returns false if the connection closes before the answer
   */
  async #confirm(attached: Attached): Promise<boolean> {
    clearTimeout(attached.timer);
    const askedAt = performance.now();
    if (!(await confirmed(attached.connection))) return false;
    this.#completeUntil = Math.max(askedAt, this.#completeUntil ?? askedAt);
    if (this.#attached === attached)
      attached.timer = setTimeout(() => void this.#confirm(attached), leaderHeartbeatMs).unref();
    return true;
  }

  #onClosed(attached: Attached): void {
    if (this.#attached !== attached || this.#isStopped) return;
    this.#attached = undefined;
    clearTimeout(attached.timer);
    attached.done();
    this.#lostServer = attached.server;
    this.#options.events.onConnectionLost();
    this.#setIncomplete();
  }

  #setIncomplete(): void {
    if (!this.#isReceiving) return;
    this.#isReceiving = false;
    this.#options.events.onIncomplete();
  }

  async #release({ subscriptions, done, timer }: Attached, limitMs: number): Promise<void> {
    clearTimeout(timer);
    await within(limitMs, subscriptions.drain());
    done();
  }

  #onMessage(pattern: string, message: Msg): void {
    const copies = this.#patterns.get(pattern);
    // The subscription ended meanwhile.
    if (copies === undefined) return;
    const subject = isWildcard(pattern) ? message.subject : pattern;
    // A subscription to `>` also receives replies to requests of Hawser itself, which only the requester may see.
    if (isOwnInbox(subject)) return;
    this.#received += 1;
    const headers = receivedHeaders(message);
    const receivedAt = performance.now();
    this.#options.events.onMessage(pattern, {
      id: `${this.#name}.${this.#received.toString(36)}`,
      subject,
      payload: copies.of(message.data),
      headers: headers?.toJsonText(),
      headersProblem: headers?.problem,
      receivedAt,
      notBefore: notBefore(receivedAt, this.#completeUntil),
    });
  }

  /**
   * Logs a refusal once. The subscription is tried again with the next connection, since permissions may have changed.
   */
  #onRefused(subject: string): void {
    if (!this.#patterns.has(subject)) return;
    this.#options.events.onRefused(subject);
    if (this.#loggedRefused.has(subject)) return;
    this.#loggedRefused.add(subject);
    this.#options.logger.warn(
      { subject },
      "the NATS server does not permit a subscription, so its function is not called; permit the user of the server's definition " +
        "to subscribe to the subject, then run SELECT litmus_pgnats_reload_conf_force()",
    );
  }
}

/**
 * Earliest time at which the server can have received a message, if this process was suspended before it read the
 * message; otherwise undefined.
 *
 * @param completeUntil {@link Receiver.completeUntil}, which is updated at each heartbeat
 */
export function notBefore(receivedAt: number, completeUntil: number | undefined): number | undefined {
  return completeUntil !== undefined && receivedAt - completeUntil > 2 * leaderHeartbeatMs ? completeUntil : undefined;
}
