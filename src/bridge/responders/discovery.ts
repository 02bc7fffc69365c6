/**
 * Answers on one connection what is asked of micro services. A server that does not permit it is asked for one
 * subscription only: `$SRV.PING`; the others follow when it has been permitted.
 *
 * Whoever asks once is answered by all responders, and anybody may ask. So answers go out some at a time, with pauses in
 * which the process does its work; and where too many ask at once, the last ones are not answered.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Msg, NatsConnection } from "@nats-io/transport-node";
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
} from "./micro-protocol.js";
import { isAnswerable } from "./replies.js";
import { SubscriptionSet } from "./subscription-set.js";

const { discoverySliceAnswers, discoveryPauseMs, maxWaitingInquiries } = bridgeConstants;

interface Asked {
  readonly inquiry: Inquiry;
  readonly reply: string;
}

/** See above. */
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
    // Who asks and hears nothing asks again.
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
      // The connection ends: who asks asks all services there are then.
    }
  }
}
