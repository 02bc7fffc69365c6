/**
 * A stream of NATS that messages of the outbox are for.
 */
import { DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";

/** Number of messages in a stream. */
export async function countIn(nats: NatsConnection, stream: string): Promise<number> {
  return (await (await jetstreamManager(nats)).streams.info(stream)).state.messages;
}

/** The texts of all messages in a stream, which must have some, in its order. */
export async function textsIn(nats: NatsConnection, stream: string): Promise<string[]> {
  const consumer = await jetstream(nats).consumers.get(stream, { deliver_policy: DeliverPolicy.All });
  const texts: string[] = [];
  for await (const message of await consumer.consume()) {
    texts.push(message.string());
    if (message.info.pending === 0) break;
  }
  return texts;
}
