/**
 * A stream of an example's own, so that a nats-server which holds other things is left as it was.
 */
import { randomBytes } from "node:crypto";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

/** A new stream; deleted when it is disposed of. */
export interface ExampleStream extends AsyncDisposable {
  readonly name: string;
  /** One of its subjects. */
  readonly subject: string;
}

/** Makes a stream on the nats-server of the URL. */
export async function createStream(natsUrl: string): Promise<ExampleStream> {
  const nats = await connect({ servers: natsUrl });
  const manager = await jetstreamManager(nats);
  const name = `orders-${randomBytes(4).toString("hex")}`;
  await manager.streams.add({ name, subjects: [`${name}.>`] });
  return {
    name,
    subject: `${name}.placed`,
    async [Symbol.asyncDispose]() {
      await manager.streams.delete(name);
      await nats.close();
    },
  };
}
