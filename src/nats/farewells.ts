/**
 * Connections that are left: what is under way on them may end, and what was published on them still goes out.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { ConnectionUses } from "./connection-uses.js";

/** A server that does not answer is waited for no longer than when connecting. */
const { natsConnectTimeoutMs, natsFarewellMs } = gatewayConstants;

/** Connections on their way out. */
export class Farewells {
  readonly #leaving = new Map<Promise<void>, NatsConnection>();
  /** Whether the server has taken all that was published on a connection that was left. */
  readonly #arrivals = new WeakMap<NatsConnection, Promise<boolean>>();
  readonly #hurry = new AbortController();

  readonly #uses: ConnectionUses;
  readonly #lastsMs: () => number;

  /** @param lastsMs how long what is under way may last, if that is longer than `natsFarewellMs` */
  constructor(uses: ConnectionUses, lastsMs: () => number) {
    this.#uses = uses;
    this.#lastsMs = lastsMs;
  }

  /**
   * Waits for what is under way, as long as that may last, and at least `natsFarewellMs`; then sends what was published, ends the connection's
   * subscriptions, and closes it. A server that does not answer is waited for `natsConnectTimeoutMs` each time.
   */
  say(connection: NatsConnection): void {
    const limitMs = Math.max(natsFarewellMs, this.#lastsMs());
    const arrival = this.#uses.idle(connection, limitMs, this.#hurry.signal).then(() => confirmed(connection));
    this.#arrivals.set(connection, arrival);
    const left = arrival
      .then((hasTaken) => (hasTaken ? leave(connection) : connection.close()))
      .catch(() => undefined)
      .finally(() => this.#leaving.delete(left));
    this.#leaving.set(left, connection);
  }

  /**
   * Whether the server has taken all that was published on a connection until now. Asks it while the connection is open,
   * and is false where nobody knows: it was lost. Does not reject.
   */
  async hasTaken(connection: NatsConnection): Promise<boolean> {
    const isOpen = !connection.isClosed() && !connection.isDraining();
    if (isOpen && (await confirmed(connection))) return true;
    return (await this.#arrivals.get(connection)) ?? false;
  }

  /**
   * Resolves when all are closed. Nothing is waited for any more but that the server takes what was published, and that for
   * so long at most.
   */
  async done(limitMs: number): Promise<void> {
    this.#hurry.abort();
    const timer = setTimeout(() => {
      for (const connection of this.#leaving.values()) void connection.close();
    }, limitMs);
    await Promise.all(this.#leaving.keys());
    clearTimeout(timer);
  }
}

/** Has the server say that it has read all until here. False if it does not within `natsConnectTimeoutMs`. */
function confirmed(connection: NatsConnection): Promise<boolean> {
  const flushed = connection.flush().then(
    () => true,
    () => false,
  );
  return inTime([flushed, connection.closed().then(() => false)], false);
}

async function leave(connection: NatsConnection): Promise<void> {
  // One that has ended, or that its user drains already, has nothing more to send.
  const drained = connection.drain().catch(() => undefined);
  // The end of the connection does not end a drain that waits for the server's answer.
  await inTime([drained, connection.closed().then(() => undefined)], undefined);
  await connection.close();
}

/** The first of them, or after `natsConnectTimeoutMs` the last. */
async function inTime<T>(outcomes: readonly Promise<T>[], otherwise: T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<T>((resolve) => {
    timer = setTimeout(() => resolve(otherwise), natsConnectTimeoutMs);
  });
  try {
    return await Promise.race([...outcomes, late]);
  } finally {
    clearTimeout(timer);
  }
}
