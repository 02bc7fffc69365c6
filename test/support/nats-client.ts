/**
 * A client of NATS that knows nothing of Hawser.
 */
import { type ConnectionOptions, connect, type NatsConnection } from "@nats-io/transport-node";

/** Connects, until the end of the block that has it. */
export async function natsClient(options: ConnectionOptions): Promise<NatsConnection & AsyncDisposable> {
  const connection = await connect(options);
  return Object.assign(connection, { [Symbol.asyncDispose]: () => connection.close() });
}
