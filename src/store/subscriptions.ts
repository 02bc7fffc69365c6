/**
 * LISTEN: the NOTIFY channels that anybody in the process listens to, kept over lost sessions.
 */
import pg from "pg";
import type { Session } from "./session.js";
import type { SessionQuery } from "./session-connection.js";

/** The LISTENs of one session. */
export class Subscriptions {
  readonly #session: Session;
  /** How many listen to each channel. */
  readonly #channels = new Map<string, number>();

  constructor(session: Session) {
    this.#session = session;
  }

  /**
   * Listens to a channel. If the session is down, or goes down meanwhile, the next one will listen.
   */
  async listen(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    this.#channels.set(channel, listeners + 1);
    if (listeners === 0) await this.#tell(`LISTEN ${pg.escapeIdentifier(channel)}`);
  }

  /** Takes one `listen` back. */
  async unlisten(channel: string): Promise<void> {
    const listeners = this.#channels.get(channel) ?? 0;
    if (listeners > 1) {
      this.#channels.set(channel, listeners - 1);
    } else if (this.#channels.delete(channel)) {
      await this.#tell(`UNLISTEN ${pg.escapeIdentifier(channel)}`);
    }
  }

  /** Listens to all channels on a new session. */
  async listenAll(query: SessionQuery): Promise<void> {
    for (const channel of this.#channels.keys()) await query(`LISTEN ${pg.escapeIdentifier(channel)}`);
  }

  async #tell(statement: string): Promise<void> {
    if (!this.#session.isUp) return;
    try {
      await this.#session.query(statement);
    } catch {
      // LISTEN fails only with its session. A new one listens to what is listed then.
      this.#session.restart();
    }
  }
}
