/**
 * The baseline `nats-core`: publish and subscribe of nats.js through a local nats-server.
 *
 * The publisher flushes (a round trip to the server) at intervals, with one flush under way while the next messages are
 * published, so that neither its buffer nor the server's for the subscriber explodes: a server cuts off a subscriber
 * that is 64 MiB behind.
 */
import { connect } from "@nats-io/transport-node";
import type { BenchServers } from "../bench-servers.js";
import type { Tally } from "./tally.js";
import type { ReceivingHalf, SendingHalf } from "./ways.js";

/** Of the run's own: others may measure with the same nats-server. */
const subjectOf = ({ databaseUrl }: BenchServers): string =>
  `bench.peer-live${new URL(databaseUrl).pathname.replace("/", ".")}`;

/** Bytes published between two flushes; messages count with what the protocol adds to them. */
const flushBytes = 1 << 20;
const overheadBytes = 32;

/** Subscribes, and resolves when the server knows of it. */
export async function receiveByNats(servers: BenchServers, tally: Tally): Promise<ReceivingHalf> {
  const connection = await connect({ servers: servers.natsUrl, reconnect: false });
  connection.subscribe(subjectOf(servers), {
    callback: (error, message) => {
      if (error === null) tally.count(message.data.length);
      else console.error(error);
    },
  });
  await connection.flush();
  return { close: () => connection.close() };
}

/** Connects the publisher. */
export async function sendByNats(servers: BenchServers): Promise<SendingHalf> {
  const connection = await connect({ servers: servers.natsUrl, reconnect: false });
  const subject = subjectOf(servers);
  return {
    send: async (payload, count) => {
      const perFlush = Math.max(1, Math.floor(flushBytes / (payload.length + overheadBytes)));
      let flushed = Promise.resolve();
      for (let left = count; left > 0; ) {
        const now = Math.min(left, perFlush);
        left -= now;
        for (let i = 0; i < now; i++) connection.publish(subject, payload);
        const before = flushed;
        flushed = connection.flush();
        await before;
      }
      await flushed;
      return {};
    },
    close: () => connection.close(),
  };
}
