/**
 * JetStream for one operation: its domain, and timeouts that end with the operation.
 *
 * These objects of the library cost no round trip, so each operation makes its own, and nothing is kept that a stream
 * deleted or made again by others would break.
 */
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";

/** What an operation needs of JetStream. */
export interface JetStreamSession {
  readonly connection: NatsConnection;
  readonly client: JetStreamClient;
  readonly manager: JetStreamManager;
}

/** @param timeoutMs of each single request */
export async function jetStreamSession(
  connection: NatsConnection,
  domain: string | undefined,
  timeoutMs: number,
): Promise<JetStreamSession> {
  const options = {
    // Asked for only where it is needed: it takes a round trip, and a right that the user may not have.
    checkAPI: false,
    timeout: timeoutMs,
  };
  // The library takes the domain out of the options that it is given.
  const named = () => (domain === undefined ? { ...options } : { ...options, domain });
  return { connection, client: jetstream(connection, named()), manager: await jetstreamManager(connection, named()) };
}
