/**
 * Answers on one connection what is asked of micro services. A server that does not permit it is asked for one
 * subscription only: `$SRV.PING`; the others follow when it has been permitted.
 */
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { confirmed } from "./confirmed.js";
import {
  describeService,
  firstSubject,
  inquirySubjects,
  isAsked,
  type MicroService,
  readInquiry,
} from "./micro-protocol.js";
import { isAnswerable } from "./replies.js";
import { SubscriptionSet } from "./subscription-set.js";

/** See above. */
export class Discovery {
  readonly #connection: NatsConnection;
  readonly #subscriptions: SubscriptionSet;
  #services: readonly MicroService[] = [];
  /** Whether the first subscription is permitted; undefined until there is a service. */
  #first: Promise<void> | undefined;
  #isPermitted = false;

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
    for (const service of this.#services) {
      if (isAsked(inquiry, service)) this.#send(reply, JSON.stringify(describeService(inquiry.verb, service)));
    }
  }

  #send(reply: string, answer: string): void {
    try {
      this.#connection.publish(reply, answer);
    } catch {
      // The connection ends: who asks asks all services there are then.
    }
  }
}
