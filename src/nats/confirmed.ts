/**
 * Waiting until the NATS server has read what was sent, and until its cluster knows of new subscriptions.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";

/** What waits for the end of each connection. Waiting for `closed()` each time would keep every wait in memory. */
const waiting = new WeakMap<NatsConnection, Set<() => void>>();

/** Calls the listener when the connection ends. @returns what takes the listener away */
export function onEnd(connection: NatsConnection, listener: () => void): () => void {
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
 * Resolves when the server has read all until here, or the connection has ended. Never rejects.
 *
 * @returns whether the server has
 */
export function confirmed(connection: NatsConnection): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (hasTaken: boolean): void => {
      forget();
      resolve(hasTaken);
    };
    const forget = onEnd(connection, () => done(false));
    // The end of the connection leaves a flush that waits for its answer unsettled; one that is begun after it rejects.
    connection.flush().then(
      () => done(true),
      () => done(false),
    );
  });
}

/**
 * Resolves when the old subscriptions may be ended because the new ones take over. A server tells the others of its
 * cluster of new subscriptions, and of ended ones, without waiting for them: a server that hears of the end first
 * knows no subscriber for a moment, and drops messages. So on another server of the same cluster both stay for
 * `clusterInterestMs`.
 * Never rejects.
 *
 * @param before the connection with the old subscriptions
 * @param after the one with the new subscriptions, which its server has confirmed
 * @param signal ends the wait
 */
export async function takenOver(before: NatsConnection, after: NatsConnection, signal?: AbortSignal): Promise<void> {
  const [old, current] = [before.info, after.info];
  const isOther =
    old?.server_id !== current?.server_id && old?.cluster !== undefined && old.cluster === current?.cluster;
  if (!isOther) return;
  await delay(bridgeConstants.clusterInterestMs, undefined, { ref: false, ...(signal && { signal }) }).catch(
    () => undefined,
  );
}
