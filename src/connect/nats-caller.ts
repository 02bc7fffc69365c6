/**
 * The calling side of cancellation over NATS: ids of calls, by which services find a call that is canceled, and notice that a
 * caller has gone.
 */
import { randomUUID } from "node:crypto";
import { createInbox, type NatsConnection } from "@nats-io/transport-node";
import { inboxPrefixOf } from "../nats/index.js";

const callers = new WeakMap<NatsConnection, NatsCaller>();

/** The caller of all calls over one connection. */
export class NatsCaller {
  readonly #connection: NatsConnection;
  readonly #inbox: string;

  /** @throws what nats.js throws if the connection is closed */
  private constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.#inbox = createInbox(inboxPrefixOf(connection));
    // What services send there only shows them that somebody subscribes to it.
    connection.subscribe(`${this.#inbox}.*`, { callback: () => undefined });
  }

  /**
   * Returns the caller of a connection, which all its transports share.
   *
   * @throws what nats.js throws if the connection is closed
   */
  static of(connection: NatsConnection): NatsCaller {
    let caller = callers.get(connection);
    if (caller === undefined) callers.set(connection, (caller = new NatsCaller(connection)));
    return caller;
  }

  /** Id of the next call: a subject of this caller that nobody can guess. */
  nextCallId(): string {
    return `${this.#inbox}.${randomUUID()}`;
  }

  /** Tells the services that nobody waits for the call. It may be answered already, or not have arrived. */
  cancel(cancelSubject: string, id: string): void {
    try {
      this.#connection.publish(cancelSubject, id);
    } catch {
      // Without a connection, the service notices that the caller has gone.
    }
  }
}
