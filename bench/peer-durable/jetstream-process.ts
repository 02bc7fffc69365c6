/**
 * The baseline `jetstream`: publishing to a stream with file storage, with so many acknowledgements under way at a time.
 * Nobody consumes: a message counts as soon as the server has it.
 */
import { randomFillSync } from "node:crypto";
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { serveRequests } from "../serve-requests.js";

const stream = `bench-${process.pid}`;
const subject = `bench.${process.pid}`;

/** Publishes whose acknowledgement has not come. */
const inFlight = 1_000;

let connection: NatsConnection | undefined;
let client: JetStreamClient | undefined;
let manager: JetStreamManager | undefined;

const requests = {
  /** Connects, and makes the stream. */
  async open(natsUrl: string): Promise<void> {
    connection = await connect({ servers: natsUrl, reconnect: false });
    client = jetstream(connection);
    manager = await jetstreamManager(connection);
    await manager.streams.add({ name: stream, subjects: [subject], storage: "file" });
  },
  /** Publishes, until all is acknowledged. @returns seconds */
  async publish({ payloadBytes, messages }: { payloadBytes: number; messages: number }): Promise<number> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const acknowledged = new Array<Promise<unknown>>(Math.min(inFlight, messages));
    const began = performance.now();
    for (let i = 0; i < messages; i++) {
      // The oldest one that is under way makes room for the next.
      if (i >= inFlight) await acknowledged[i % inFlight];
      acknowledged[i % inFlight] = client!.publish(subject, payload, { timeout: 30_000 });
    }
    await Promise.all(acknowledged);
    const seconds = (performance.now() - began) / 1000;
    await manager!.streams.purge(stream);
    return seconds;
  },
};

/** What the publishing process can be asked. */
export type JetStreamRequests = typeof requests;

serveRequests(requests, async () => {
  await manager?.streams.delete(stream);
  await connection?.close();
});
