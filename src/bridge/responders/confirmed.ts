/**
 * When the server has dealt with what was sent.
 */
import type { NatsConnection } from "@nats-io/transport-node";

/** Who waits on a connection: told when it has ended. Its own promise would keep every one who ever waited. */
const waiting = new WeakMap<NatsConnection, Set<() => void>>();

/** Resolves when the server has read all until here, or the connection has ended. Never rejects. */
export function confirmed(connection: NatsConnection): Promise<void> {
  return new Promise((resolve) => {
    const waiters = waitersOf(connection);
    const done = (): void => {
      waiters.delete(done);
      resolve();
    };
    waiters.add(done);
    // The end of the connection leaves a flush that waits for its answer unsettled; one that is begun after it rejects.
    connection.flush().then(done, done);
  });
}

function waitersOf(connection: NatsConnection): Set<() => void> {
  let waiters = waiting.get(connection);
  if (waiters === undefined) {
    const all = new Set<() => void>();
    waiting.set(connection, (waiters = all));
    void connection.closed().then(() => {
      for (const done of all) done();
    });
  }
  return waiters;
}
