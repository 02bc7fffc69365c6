/**
 * Drains replaced connections: waits for the end of their running uses, and still sends what was published on them.
 */

import type { NatsConnection } from "@nats-io/transport-node";
import { within } from "../../foundation/runtime/index.js";
import { confirmed } from "./confirmed.js";
import { natsConnectTimeoutMs } from "./connect.js";

/** Time for which a replaced connection to NATS stays open for its running operations. */
export const natsDrainMs = 5_000;

/** Running uses of a connection. */
interface Uses {
  count: number;
  /** Called when the last use has ended. */
  onIdle: (() => void) | undefined;
}

/** Counts the uses of connections, and closes replaced ones when they have none. */
export class DrainingConnections {
  readonly #uses = new WeakMap<NatsConnection, Uses>();
  readonly #draining = new Map<Promise<void>, NatsConnection>();
  /** Result for each replaced connection: true if the server has read everything that was published on it. */
  readonly #confirmations = new WeakMap<NatsConnection, Promise<boolean>>();
  #endSoon: () => void = () => undefined;
  /** Resolves when {@link end} is called. */
  readonly #ending = new Promise<void>((resolve) => {
    this.#endSoon = resolve;
  });
  readonly #usesLastMs: () => number;

  /** @param usesLastMs maximum duration of a use, if it exceeds `natsDrainMs` */
  constructor(usesLastMs: () => number) {
    this.#usesLastMs = usesLastMs;
  }

  /** Marks a connection as used. @returns function that ends the use; must be called once */
  use(connection: NatsConnection): () => void {
    let uses = this.#uses.get(connection);
    if (uses === undefined) this.#uses.set(connection, (uses = { count: 0, onIdle: undefined }));
    const counted = uses;
    counted.count += 1;
    return () => {
      counted.count -= 1;
      if (counted.count === 0) counted.onIdle?.();
    };
  }

  /**
   * Waits for the running uses, up to their maximum duration and at least `natsDrainMs`; then sends what was published,
   * ends the subscriptions, and closes the connection. Each wait for the server is limited to `natsConnectTimeoutMs`.
   * Returns at once.
   */
  drain(connection: NatsConnection): void {
    const arrival = this.#idle(connection).then(() => confirmedInTime(connection));
    this.#confirmations.set(connection, arrival);
    const closed = arrival
      .then((hasTaken) => (hasTaken ? drainByLibrary(connection) : connection.close()))
      .catch(() => undefined)
      .finally(() => this.#draining.delete(closed));
    this.#draining.set(closed, connection);
  }

  /**
   * True if the server has read everything that was published on a connection so far. Makes a round trip while the
   * connection is open. False if the connection was lost, so that this is unknown. Does not reject.
   */
  async hasTaken(connection: NatsConnection): Promise<boolean> {
    const isOpen = !connection.isClosed() && !connection.isDraining();
    if (isOpen && (await confirmedInTime(connection))) return true;
    return (await this.#confirmations.get(connection)) ?? false;
  }

  /**
   * Resolves when all connections are closed. From now on, waits only for the server to read what was published, at
   * most `limitMs`.
   */
  async end(limitMs: number): Promise<void> {
    this.#endSoon();
    const timer = setTimeout(() => {
      for (const connection of this.#draining.values()) void connection.close();
    }, limitMs);
    await Promise.all(this.#draining.keys());
    clearTimeout(timer);
  }

  /** Resolves when the connection has no uses, when it closes, at the time limit, or on {@link end}. */
  async #idle(connection: NatsConnection): Promise<void> {
    const uses = this.#uses.get(connection);
    if (uses === undefined || uses.count === 0) return;
    const idle = new Promise<void>((resolve) => {
      uses.onIdle = resolve;
    });
    await within(Math.max(natsDrainMs, this.#usesLastMs()), Promise.race([idle, connection.closed(), this.#ending]));
    uses.onIdle = undefined;
  }
}

/** Makes a round trip to the server. False without an answer within `natsConnectTimeoutMs`. */
async function confirmedInTime(connection: NatsConnection): Promise<boolean> {
  return (await within(natsConnectTimeoutMs, confirmed(connection))) ?? false;
}

async function drainByLibrary(connection: NatsConnection): Promise<void> {
  // Rejects if the connection is closed or already draining: then there is nothing to send.
  const drained = connection.drain().catch(() => undefined);
  // A pending drain does not settle when the connection closes.
  await within(natsConnectTimeoutMs, Promise.race([drained, connection.closed()]));
  await connection.close();
}
