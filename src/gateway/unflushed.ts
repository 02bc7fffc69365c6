/**
 * What sessions have published and not flushed: a message that was on its way when its connection was lost is gone, and
 * the connection that came after it knows nothing of it.
 */
import type { NatsConnection } from "@nats-io/transport-node";

interface Published {
  /** The connection of the last publish. */
  connection: NatsConnection;
  /** Whether all arrived that went over the connections before it. */
  earlier: Promise<boolean> | true;
}

/** The connections that took what sessions published since their last flush. */
export class Unflushed<Session extends object> {
  /** A call that ends after its session leaves nothing behind. */
  readonly #sessions = new WeakMap<Session, Published>();

  readonly #hasTaken: (connection: NatsConnection) => Promise<boolean>;

  /** @param hasTaken whether the server has taken all that was published on a connection, also on one that was left */
  constructor(hasTaken: (connection: NatsConnection) => Promise<boolean>) {
    this.#hasTaken = hasTaken;
  }

  /** The session has published over the connection. */
  published(session: Session, connection: NatsConnection): void {
    const before = this.#sessions.get(session);
    if (before?.connection === connection) return;
    const earlier = before === undefined ? true : this.#arrived(before);
    this.#sessions.set(session, { connection, earlier });
  }

  /** Whether all arrived that the session published over other connections than the present one. */
  async arrived(session: Session, present: NatsConnection): Promise<boolean> {
    const published = this.#sessions.get(session);
    if (published === undefined) return true;
    return published.connection === present ? published.earlier : this.#arrived(published);
  }

  /** The session has been told what became of what it published, or has ended. */
  forget(session: Session): void {
    this.#sessions.delete(session);
  }

  async #arrived({ connection, earlier }: Published): Promise<boolean> {
    const [last, before] = await Promise.all([this.#hasTaken(connection), earlier]);
    return last && before;
  }
}
