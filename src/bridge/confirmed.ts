/**
 * When the server has dealt with what was sent.
 */
import type { NatsConnection } from "@nats-io/transport-node";

/** Who waits on a connection: told when it has ended. Its own promise would keep every one who ever waited. */
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
