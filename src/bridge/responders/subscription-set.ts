/**
 * The subscriptions of one purpose on one connection: made and ended as wanted, each refused one apart from the others.
 */
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { confirmed } from "../confirmed.js";

/** Who hears of it. */
export interface SubscriptionObserver {
  /** @param wanted the subject as it was wanted, where the message's own is one that wildcards take in */
  onMessage(wanted: string, message: Msg): void;
  /** The server does not permit the subscription, or it could not be made. Told once for each subject. */
  onRefused(wanted: string, error: Error): void;
}

/** See above. */
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
