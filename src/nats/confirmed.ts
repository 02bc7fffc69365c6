/**
 * Waiting until the NATS server has read what was sent, and until its cluster knows of new subscriptions.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";

/** The waits on each connection, which end with it. Waiting for `closed()` each time would keep every wait in memory. */
const waiting = new WeakMap<NatsConnection, Set<(hasTaken: boolean) => void>>();

/**
 * Resolves when the server has read all until here, or the connection has ended. Never rejects.
 *
 * @returns whether the server has
 */
export function confirmed(connection: NatsConnection): Promise<boolean> {
  return new Promise((resolve) => {
    const waiters = waitersOf(connection);
    const done = (hasTaken: boolean): void => {
      waiters.delete(done);
      resolve(hasTaken);
    };
    waiters.add(done);
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

function waitersOf(connection: NatsConnection): Set<(hasTaken: boolean) => void> {
  let waiters = waiting.get(connection);
  if (waiters === undefined) {
    const all = new Set<(hasTaken: boolean) => void>();
    waiting.set(connection, (waiters = all));
    void connection.closed().then(() => {
      for (const done of all) done(false);
    });
  }
  return waiters;
}
