/**
 * Subscriptions of services on one connection, and the answers to those who look for services.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
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
 * Whether an answer may go there. The requester chooses the subject, and our user may publish more than theirs: what begins
 * with `$` is NATS's own, such as `$JS.API.STREAM.DELETE.…`, and would do what they may not.
 */
export function isAnswerable(reply: string | undefined): reply is string {
  return reply !== undefined && reply !== "" && !reply.startsWith("$");
}

/** What is told of it. */
interface SubscriptionObserver {
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
