/**
 * Subscriptions of all responders on one connection, and their service discovery.
 */
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { confirmed, Discovery, SubscriptionSet } from "../../connections/index.js";
import type { Endpoint } from "./endpoint.js";
import { Replies } from "./replies.js";

/** Events of an {@link Attachment}. */
export interface AttachmentObserver {
  /** A message for the endpoint of this subject. */
  onMessage(subject: string, message: Msg, replies: Replies): void;
  /** The server refused the subscription of an endpoint. */
  onRefused(subject: string, error: Error): void;
  /** The server refused the subscriptions of service discovery. */
  onDiscoveryRefused(error: Error): void;
}

export class Attachment {
  readonly connection: NatsConnection;
  readonly #subscriptions: SubscriptionSet;
  readonly #discovery: Discovery;
  readonly #release: () => void;
  #ended: Promise<void> | undefined;

  /** @param release called when the connection is no longer needed */
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

  /** Replaces the set of endpoints. Resolves when the server has processed it, or the connection has closed. */
  async update(endpoints: readonly Endpoint[]): Promise<void> {
    if (this.#ended !== undefined) return;
    this.#subscriptions.sync(new Map(endpoints.map(({ subject, queueGroup }) => [subject, queueGroup])));
    const taken = confirmed(this.connection);
    await Promise.all([taken, this.#discovery.update(endpoints.map(({ service }) => service))]);
  }

  /** Ends all subscriptions. Resolves when no more messages can arrive, or the connection has closed. */
  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async #end(): Promise<void> {
    await Promise.all([this.#subscriptions.drain(), this.#discovery.end()]);
    this.#release();
  }
}
