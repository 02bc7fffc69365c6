/**
 * The responders on one connection: their subscriptions, and what finds them.
 */
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { confirmed, Discovery, SubscriptionSet } from "../../nats/index.js";
import type { Endpoint } from "./endpoint.js";
import { Replies } from "./replies.js";

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
