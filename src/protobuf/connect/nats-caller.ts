/**
 * Cancellation of calls over NATS, client side: call ids, with which services find canceled calls and detect a
 * disconnected caller.
 */
import { randomUUID } from "node:crypto";
import { createInbox, type NatsConnection } from "@nats-io/transport-node";
import { inboxPrefixOf } from "../../nats/connections/index.js";

const callers = new WeakMap<NatsConnection, NatsCaller>();

/** Source of call ids, and sender of cancellations, for all calls over one connection. */
export class NatsCaller {
  readonly #connection: NatsConnection;
  readonly #inbox: string;

  /** @throws errors of nats.js if the connection is closed */
  private constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.#inbox = createInbox(inboxPrefixOf(connection));
    // Messages from services are ignored: they only test whether this subscription exists.
    connection.subscribe(`${this.#inbox}.*`, { callback: () => undefined });
  }

  /**
   * Caller of a connection, shared by all its transports.
   *
   * @throws errors of nats.js if the connection is closed
   */
  static of(connection: NatsConnection): NatsCaller {
    let caller = callers.get(connection);
    if (caller === undefined) callers.set(connection, (caller = new NatsCaller(connection)));
    return caller;
  }

  /** Id of the next call: a subject of this caller that others cannot guess. */
  nextCallId(): string {
    return `${this.#inbox}.${randomUUID()}`;
  }

  /**
   * Notifies the services that the caller no longer waits for the call. The call may already be answered, or may not
   * have arrived yet.
   */
  cancel(cancelSubject: string, id: string): void {
    try {
      this.#connection.publish(cancelSubject, id);
    } catch {
      // Without a connection the service detects the disconnected caller instead.
    }
  }
}
