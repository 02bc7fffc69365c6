/**
 * Waits until the NATS server has read what was sent, and until its cluster knows new subscriptions.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";

/**
 * Time for which subscriptions stay on a NATS server after another server of its cluster has taken them over, until
 * all servers of the cluster know the new ones.
 */
export const clusterInterestMs = 500;

/** Listeners for the end of each connection. A `closed().then()` per wait would keep every wait in memory. */
const waiting = new WeakMap<NatsConnection, Set<() => void>>();

/** Calls the listener when the connection closes. @returns function that removes the listener */
export function onClose(connection: NatsConnection, listener: () => void): () => void {
  let listeners = waiting.get(connection);
  if (listeners === undefined) {
    const all = new Set<() => void>();
    waiting.set(connection, (listeners = all));
    const end = (): void => {
      for (const each of all) each();
      all.clear();
    };
    connection.closed().then(end, end);
  }
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * Resolves when the server has read everything that was sent, or the connection has closed. Never rejects.
 *
 * @returns true if the server has read everything
 */
export function confirmed(connection: NatsConnection): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (hasTaken: boolean): void => {
      forget();
      resolve(hasTaken);
    };
    const forget = onClose(connection, () => done(false));
    // nats.js never settles a flush that is pending when the connection closes; it rejects a later one.
    connection.flush().then(
      () => done(true),
      () => done(false),
    );
  });
}

/**
 * Resolves when the old subscriptions may be ended because the new ones have replaced them. A server propagates new and
 * ended subscriptions to the other servers of its cluster asynchronously. A server that learns of the end first has no
 * subscriber for a moment, and drops messages. So if the new connection is to another server of the same cluster, both
 * subscriptions stay for `clusterInterestMs`. Never rejects.
 *
 * @param before connection with the old subscriptions
 * @param after connection with the new subscriptions, which its server has confirmed
 * @param signal ends the wait
 */
export async function interestPropagated(
  before: NatsConnection,
  after: NatsConnection,
  signal?: AbortSignal,
): Promise<void> {
  const [old, current] = [before.info, after.info];
  const isOther =
    old?.server_id !== current?.server_id && old?.cluster !== undefined && old.cluster === current?.cluster;
  if (!isOther) return;
  await delay(clusterInterestMs, undefined, { ref: false, ...(signal && { signal }) }).catch(() => undefined);
}
