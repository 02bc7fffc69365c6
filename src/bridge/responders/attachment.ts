/**
 * The responders on one connection: their subscriptions, and what finds them.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { confirmed } from "../confirmed.js";
import {
  describeService,
  type Endpoint,
  firstSubject,
  type Inquiry,
  inquirySubjects,
  isAsked,
  type MicroService,
  readInquiry,
} from "./micro-service.js";
import { isAnswerable, Replies } from "./replies.js";

/** What is told of it. */
export interface AttachmentObserver {
  /** A message to an endpoint, by its subject. */
  onMessage(subject: string, message: Msg, replies: Replies): void;
  /** The server does not permit to answer requests to that subject. */
  onRefused(subject: string, error: Error): void;
  /** The server does not permit services to be found. */
  onDiscoveryRefused(error: Error): void;
}

export class Attachment {
  readonly connection: NatsConnection;
  readonly #subscriptions: SubscriptionSet;
  readonly #discovery: Discovery;
  readonly #release: () => void;
  #left: Promise<void> | undefined;

  /** @param release says that the connection is not needed any more */
  constructor(connection: NatsConnection, observer: AttachmentObserver, release: () => void) {
    const replies = new Replies(connection);
    this.connection = connection;
    this.#release = release;
    this.#subscriptions = new SubscriptionSet(connection, {
      onMessage: (subject, message) => observer.onMessage(subject, message, replies),
      onRefused: (subject, error) => observer.onRefused(subject, error),
    });
    this.#discovery = new Discovery(connection, (error) => observer.onDiscoveryRefused(error));
  }

  isRefused(subject: string): boolean {
    return this.#subscriptions.isRefused(subject);
  }

  /** These are the endpoints from now on. Resolves when the server has taken it, or the connection has ended. */
  async update(endpoints: readonly Endpoint[]): Promise<void> {
    if (this.#left !== undefined) return;
    this.#subscriptions.sync(new Map(endpoints.map(({ subject, queueGroup }) => [subject, queueGroup])));
    const taken = confirmed(this.connection);
    await Promise.all([taken, this.#discovery.update(endpoints.map(({ service }) => service))]);
  }

  /** Ends all subscriptions. Resolves when nothing comes any more, or the connection has ended. */
  leave(): Promise<void> {
    this.#left ??= this.#leave();
    return this.#left;
  }

  async #leave(): Promise<void> {
    await Promise.all([this.#subscriptions.drain(), this.#discovery.end()]);
    this.#release();
  }
}

/** What is told of it. */
export interface SubscriptionObserver {
  /** @param wanted the subject as it was wanted, where the message's own is one that wildcards take in */
  onMessage(wanted: string, message: Msg): void;
  /** The server does not permit the subscription, or it could not be made. Told once for each subject. */
  onRefused(wanted: string, error: Error): void;
}

/**
 * The subscriptions of one purpose on one connection: made and ended as wanted, each refused one apart from the others.
 */
export class SubscriptionSet {
  readonly #subscriptions = new Map<string, Subscription>();
  /** Not tried again on this connection. */
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
   * Subscribes to what is wanted and not there, and ends what is there and not wanted: that of it which the server has
   * sent already still comes.
   *
   * @param wanted subject → queue group; undefined: without one
   */
  sync(wanted: ReadonlyMap<string, string | undefined>): void {
    for (const subject of [...this.#subscriptions.keys()]) if (!wanted.has(subject)) this.#end(subject);
    for (const subject of this.#refused) if (!wanted.has(subject)) this.#refused.delete(subject);
    for (const [subject, queue] of wanted) {
      if (!this.#subscriptions.has(subject) && !this.#refused.has(subject)) this.#subscribe(subject, queue);
    }
  }

  /** Ends all. Resolves when nothing comes any more, or the connection has ended. */
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
      // A connection that ends refuses nothing.
      if (!this.#connection.isClosed() && !this.#connection.isDraining()) this.#refuse(subject, error as Error);
    }
  }

  #refuse(subject: string, error: Error): void {
    this.#subscriptions.delete(subject);
    this.#refused.add(subject);
    this.#observer.onRefused(subject, error);
  }

  #end(subject: string): void {
    // One that the connection has ended already rejects.
    void this.#subscriptions
      .get(subject)
      ?.drain()
      .catch(() => undefined);
    this.#subscriptions.delete(subject);
  }
}

const { discoverySliceAnswers, discoveryPauseMs, maxWaitingInquiries } = bridgeConstants;

interface Asked {
  readonly inquiry: Inquiry;
  readonly reply: string;
}

/**
 * Answers on one connection what is asked of micro services. A server that does not permit it is asked for one
 * subscription only: `$SRV.PING`; the others follow when it has been permitted.
 *
 * One question is answered by all responders, and anybody may ask. So answers go out some at a time, with pauses in
 * which the process does its work; and where too many ask at once, the last ones are not answered.
 */
export class Discovery {
  readonly #connection: NatsConnection;
  readonly #subscriptions: SubscriptionSet;
  #services: readonly MicroService[] = [];
  /** Whether the first subscription is permitted; undefined until there is a service. */
  #first: Promise<void> | undefined;
  #isPermitted = false;
  readonly #waiting: Asked[] = [];
  #isAnswering = false;

  /** @param onRefused told of each subscription that is not permitted */
  constructor(connection: NatsConnection, onRefused: (error: Error) => void) {
    this.#connection = connection;
    this.#subscriptions = new SubscriptionSet(connection, {
      onMessage: (_wanted, message) => this.#answer(message),
      onRefused: (_wanted, error) => onRefused(error),
    });
  }

  /** These are the services from now on. Resolves when they can be found, or it is known that they cannot. */
  async update(services: readonly MicroService[]): Promise<void> {
    this.#services = services;
    if (services.length === 0 && this.#first === undefined) return;
    if (this.#isPermitted) this.#sync();
    else await (this.#first ??= this.#begin());
    await confirmed(this.#connection);
  }

  /** Answers nothing any more. */
  async end(): Promise<void> {
    this.#services = [];
    this.#waiting.length = 0;
    await this.#subscriptions.drain();
  }

  async #begin(): Promise<void> {
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
    // A client that hears nothing asks again.
    if (this.#waiting.length >= maxWaitingInquiries) return;
    this.#waiting.push({ inquiry, reply });
    if (!this.#isAnswering) void this.#answerAll();
  }

  async #answerAll(): Promise<void> {
    this.#isAnswering = true;
    let sent = 0;
    for (let asked = this.#waiting.shift(); asked !== undefined; asked = this.#waiting.shift()) {
      const { inquiry, reply } = asked;
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
      // The connection ends: the client asks all services there are then.
    }
  }
}
