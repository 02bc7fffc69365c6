/**
 * What a link to NATS tells of by itself.
 */

import type { NatsConnection } from "@nats-io/transport-node";
import type { NatsError } from "../errors/index.js";
import type { Logger } from "../runtime/index.js";

/** Something that the server does not permit its user. */
export interface Refusal {
  readonly operation: "publish" | "subscription";
  /** The subject, or the reply subject, whole and as it was sent; "" where the server's words do not tell. */
  readonly subject: string;
  /** Of a subscription in a queue group: its name. */
  readonly queue: string | undefined;
  /** The server's words to be shown: shortened, and without our secret. */
  readonly message: string;
}

/** The events and what they are told with. */
export interface NatsLinkEvents {
  /** There is a connection, the first one or another one: subscriptions are to be made on it. */
  connected: [connection: NatsConnection];
  /** The connection has ended, and not because it was to. */
  lost: [error: NatsError];
  /** An attempt to connect has failed; another one follows. */
  failed: [error: NatsError];
  /** The server has refused something, some time after it was sent. */
  refused: [refusal: Refusal, connection: NatsConnection];
}

type Listener<Name extends keyof NatsLinkEvents> = (...event: NatsLinkEvents[Name]) => void;

/** Listeners by event. One that throws is logged, and does no harm to the others. */
export class LinkListeners {
  readonly #listeners: { [Name in keyof NatsLinkEvents]: Set<Listener<Name>> } = {
    connected: new Set(),
    lost: new Set(),
    failed: new Set(),
    refused: new Set(),
  };

  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** @returns what takes the listener away */
  add<Name extends keyof NatsLinkEvents>(name: Name, listener: Listener<Name>): () => void {
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }

  emit<Name extends keyof NatsLinkEvents>(name: Name, ...event: NatsLinkEvents[Name]): void {
    for (const listener of [...this.#listeners[name]]) {
      try {
        listener(...event);
      } catch (error) {
        this.#logger.error({ err: error }, `a listener of the NATS connection's event "${name}" failed`);
      }
    }
  }
}
