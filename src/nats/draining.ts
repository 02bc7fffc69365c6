/**
 * Connections that are left for others: what is under way on them may end, and what was published on them still goes out.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { delay, within } from "../runtime/index.js";
import { confirmed } from "./confirmed.js";

const { natsConnectTimeoutMs, natsDrainMs } = gatewayConstants;

/** What is under way on a connection. */
interface Uses {
  count: number;
  /** Called when the last one has ended. */
  onIdle: (() => void) | undefined;
}

/** Counts what is under way on connections, and closes those that are left once nothing is. */
export class DrainingConnections {
  readonly #uses = new WeakMap<NatsConnection, Uses>();
  readonly #draining = new Map<Promise<void>, NatsConnection>();
  /** Whether the server has taken all that was published on a connection that was left. */
  readonly #arrivals = new WeakMap<NatsConnection, Promise<boolean>>();
  readonly #hurry = new AbortController();
  readonly #usesLastMs: () => number;

  /** @param usesLastMs how long what is under way may last, if that is longer than `natsDrainMs` */
  constructor(usesLastMs: () => number) {
    this.#usesLastMs = usesLastMs;
  }

  /** Something is under way on the connection. @returns what says that it has ended; to be called once */
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
   * Waits for what is under way, as long as that may last, and at least `natsDrainMs`; then sends what was published,
   * ends the connection's subscriptions, and closes it. A server that does not answer is waited for
   * `natsConnectTimeoutMs` each time. Returns at once.
   */
  drain(connection: NatsConnection): void {
    const arrival = this.#idle(connection).then(() => confirmedInTime(connection));
    this.#arrivals.set(connection, arrival);
    const closed = arrival
      .then((hasTaken) => (hasTaken ? drainByLibrary(connection) : connection.close()))
      .catch(() => undefined)
      .finally(() => this.#draining.delete(closed));
    this.#draining.set(closed, connection);
  }

  /**
   * Whether the server has taken all that was published on a connection until now. Asks it while the connection is open;
   * false where that cannot be known, as the connection was lost. Does not reject.
   */
  async hasTaken(connection: NatsConnection): Promise<boolean> {
    const isOpen = !connection.isClosed() && !connection.isDraining();
    if (isOpen && (await confirmedInTime(connection))) return true;
    return (await this.#arrivals.get(connection)) ?? false;
  }

  /**
   * Resolves when all are closed. Waits from now on only for the server to take what was published, and no longer than
   * `limitMs`.
   */
  async end(limitMs: number): Promise<void> {
    this.#hurry.abort();
    const timer = setTimeout(() => {
      for (const connection of this.#draining.values()) void connection.close();
    }, limitMs);
    await Promise.all(this.#draining.keys());
    clearTimeout(timer);
  }

  /** Resolves when nothing is under way on the connection, when it has ended, at the time limit, or when all shall end. */
  async #idle(connection: NatsConnection): Promise<void> {
    const uses = this.#uses.get(connection);
    if (uses === undefined || uses.count === 0) return;
    const over = new AbortController();
    const onOver = (): void => over.abort();
    this.#hurry.signal.addEventListener("abort", onOver, { once: true });
    if (this.#hurry.signal.aborted) onOver();
    uses.onIdle = onOver;
    void connection.closed().then(onOver);
    await delay(Math.max(natsDrainMs, this.#usesLastMs()), over.signal);
    uses.onIdle = undefined;
    this.#hurry.signal.removeEventListener("abort", onOver);
  }
}

/** Has the server say that it has read all until here. False if it does not within `natsConnectTimeoutMs`. */
async function confirmedInTime(connection: NatsConnection): Promise<boolean> {
  return (await within(natsConnectTimeoutMs, confirmed(connection))) ?? false;
}

async function drainByLibrary(connection: NatsConnection): Promise<void> {
  // One that has ended, or that its user drains already, has nothing more to send.
  const drained = connection.drain().catch(() => undefined);
  // The end of the connection does not end a drain that waits for the server's answer.
  await within(natsConnectTimeoutMs, Promise.race([drained, connection.closed()]));
  await connection.close();
}
