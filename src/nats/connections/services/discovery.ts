/**
 * Subscriptions of services on one connection, and the answers to service discovery.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { confirmed } from "../confirmed.js";
import {
  describeService,
  firstSubject,
  type Inquiry,
  inquirySubjects,
  isAsked,
  type MicroService,
  readInquiry,
} from "./micro-service.js";

/**
 * True if a reply may be sent to the subject. The requester chooses it, and our user may have more permissions:
 * subjects that start with `$` are NATS's own, such as `$JS.API.STREAM.DELETE.…`, and a reply there could do what the
 * requester may not.
 */
export function isAnswerable(reply: string | undefined): reply is string {
  return reply !== undefined && reply !== "" && !reply.startsWith("$");
}

/** Callbacks of a {@link SubscriptionSet}. */
interface SubscriptionObserver {
  /** @param wanted subject of the subscription, which may contain wildcards */
  onMessage(wanted: string, message: Msg): void;
  /** The server does not permit the subscription, or nats.js refused to make it. Called once per subject. */
  onRefused(wanted: string, error: Error): void;
}

/** Set of subscriptions on one connection. A refused subscription does not affect the others. */
export class SubscriptionSet {
  readonly #subscriptions = new Map<string, Subscription>();
  /** Refused subjects, which are not tried again on this connection. */
  readonly #refused = new Set<string>();

  readonly #connection: NatsConnection;
  readonly #observer: SubscriptionObserver;

  constructor(connection: NatsConnection, observer: SubscriptionObserver) {
    this.#connection = connection;
    this.#observer = observer;
  }

  isRefused(subject: string): boolean {
    return this.#refused.has(subject);
  }

  /**
   * Makes missing subscriptions, and ends those that are not wanted; messages that the server has already sent still
   * arrive.
   *
   * @param wanted subjects with their queue groups; undefined without a group
   */
  sync(wanted: ReadonlyMap<string, string | undefined>): void {
    for (const subject of [...this.#subscriptions.keys()]) if (!wanted.has(subject)) this.#end(subject);
    for (const subject of this.#refused) if (!wanted.has(subject)) this.#refused.delete(subject);
    for (const [subject, queue] of wanted) {
      if (!this.#subscriptions.has(subject) && !this.#refused.has(subject)) this.#subscribe(subject, queue);
    }
  }

  /** Ends all subscriptions. Resolves when no more messages can arrive, or the connection has closed. */
  async drain(): Promise<void> {
    this.sync(new Map());
    await confirmed(this.#connection);
  }

  #subscribe(subject: string, queue: string | undefined): void {
    try {
      const subscription = this.#connection.subscribe(subject, {
        ...(queue === undefined ? {} : { queue }),
        callback: (error, message) => {
          if (error === null) this.#observer.onMessage(subject, message);
          else this.#refuse(subject, error);
        },
      });
      this.#subscriptions.set(subject, subscription);
    } catch (error) {
      // An error of a connection that is closing is not a refusal.
      if (!this.#connection.isClosed() && !this.#connection.isDraining()) this.#refuse(subject, error as Error);
    }
  }

  #refuse(subject: string, error: Error): void {
    this.#subscriptions.delete(subject);
    this.#refused.add(subject);
    this.#observer.onRefused(subject, error);
  }

  #end(subject: string): void {
    // Rejects if the connection has already ended the subscription.
    void this.#subscriptions
      .get(subject)
      ?.drain()
      .catch(() => undefined);
    this.#subscriptions.delete(subject);
  }
}

/** Number of discovery answers that are sent at once; any NATS client may ask for them. */
const discoverySliceAnswers = 100;
/** Pause between two slices of answers. */
const discoveryPauseMs = 5;
/** Maximum number of discovery inquiries that wait for their answers; further ones are not answered. */
const maxWaitingInquiries = 100;

interface PendingInquiry {
  readonly inquiry: Inquiry;
  readonly reply: string;
}

/**
 * Answers inquiries of service discovery on one connection. Subscribes to `$SRV.PING` first, and to the other subjects
 * only if the server permits that, so that a server that permits none of them logs a single refusal.
 *
 * An inquiry can require an answer of every service, and any client may inquire. So answers are sent in slices, with
 * pauses for the other work of the process. If too many inquiries wait, further ones are not answered.
 */
export class Discovery {
  readonly #connection: NatsConnection;
  readonly #subscriptions: SubscriptionSet;
  #services: readonly MicroService[] = [];
  /** Subscription to the first subject; undefined until there is a service. */
  #first: Promise<void> | undefined;
  #isPermitted = false;
  readonly #waiting: PendingInquiry[] = [];
  #isAnswering = false;

  /** @param onRefused called for each refused subscription */
  constructor(connection: NatsConnection, onRefused: (error: Error) => void) {
    this.#connection = connection;
    this.#subscriptions = new SubscriptionSet(connection, {
      onMessage: (_wanted, message) => this.#answer(message),
      onRefused: (_wanted, error) => onRefused(error),
    });
  }

  /** Replaces the set of services. Resolves when they can be found, or discovery is refused. */
  async update(services: readonly MicroService[]): Promise<void> {
    this.#services = services;
    if (services.length === 0 && this.#first === undefined) return;
    if (this.#isPermitted) this.#sync();
    else await (this.#first ??= this.#subscribeFirst());
    await confirmed(this.#connection);
  }

  /** Stops answering. */
  async end(): Promise<void> {
    this.#services = [];
    this.#waiting.length = 0;
    await this.#subscriptions.drain();
  }

  async #subscribeFirst(): Promise<void> {
    this.#subscriptions.sync(new Map([[firstSubject, undefined]]));
    await confirmed(this.#connection);
    if (this.#subscriptions.isRefused(firstSubject)) return;
    this.#isPermitted = true;
    this.#sync();
  }

  #sync(): void {
    this.#subscriptions.sync(new Map([...inquirySubjects(this.#services)].map((subject) => [subject, undefined])));
  }

  #answer({ subject, reply }: Msg): void {
    const inquiry = readInquiry(subject);
    if (inquiry === undefined || !isAnswerable(reply)) return;
    // A client without an answer repeats its inquiry.
    if (this.#waiting.length >= maxWaitingInquiries) return;
    this.#waiting.push({ inquiry, reply });
    if (!this.#isAnswering) void this.#answerAll();
  }

  async #answerAll(): Promise<void> {
    this.#isAnswering = true;
    let sent = 0;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { inquiry, reply } = next;
      for (const service of this.#services) {
        if (!isAsked(inquiry, service)) continue;
        this.#send(reply, JSON.stringify(describeService(inquiry.verb, service)));
        sent += 1;
        if (sent % discoverySliceAnswers === 0) {
          await Promise.all([confirmed(this.#connection), pause(discoveryPauseMs, undefined, { ref: false })]);
        }
      }
    }
    this.#isAnswering = false;
  }

  #send(reply: string, answer: string): void {
    try {
      this.#connection.publish(reply, answer);
    } catch {
      // The connection is closing; the client's next inquiry reaches the services that exist then.
    }
  }
}
