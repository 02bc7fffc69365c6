/**
 * The baselines of a local nats-server, by nats.js.
 *
 * `nats-core` is publish and subscribe. The publisher flushes (a round trip to the server) at intervals, with one flush
 * under way while the next messages are published, so that neither its buffer nor the server's for the subscriber
 * explodes: a server cuts off a subscriber that is 64 MiB behind.
 *
 * The three ways of JetStream publish to a stream with file storage. Nothing consumes.
 */
import { jetstream, jetstreamManager, type StreamConfig } from "@nats-io/jetstream";
import { connect, createInbox, type NatsConnection } from "@nats-io/transport-node";
import { BenchFailure } from "../suite.js";
import { systemMs } from "../worker.js";
import type { Opening, ReceivingHalf, SendingHalf, StreamWay, Tally } from "./ways.js";

/** A subject that is unique to the run, as other runs may use the same nats-server. */
const subjectOf = ({ databaseUrl, pair }: Opening, what: string): string =>
  `bench.${what}.${new URL(databaseUrl).pathname.slice(1)}.${pair}`;

/** Bytes published between two flushes; messages count with what the protocol adds to them. */
const flushBytes = 1 << 20;
const overheadBytes = 32;

/** Subscribes, and resolves when the server knows of it. */
export async function receiveByNats(opening: Opening, tally: Tally): Promise<ReceivingHalf> {
  const connection = await connect({ servers: opening.natsUrl, reconnect: false });
  connection.subscribe(subjectOf(opening, "core"), {
    callback: (error, message) => {
      if (error === null) tally.count(message.data.length);
      else console.error(error);
    },
  });
  await connection.flush();
  return { close: () => connection.close() };
}

/** Connects the publisher of `nats-core`. */
export async function sendByNats(opening: Opening): Promise<SendingHalf> {
  const connection = await connect({ servers: opening.natsUrl, reconnect: false });
  const subject = subjectOf(opening, "core");
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

/** Publishes so many times to the stream's subject, until all is acknowledged. */
type PublishToStream = (
  connection: NatsConnection,
  subject: string,
  payload: Uint8Array,
  count: number,
) => Promise<void>;

/** Connects, and makes a stream for one way of publishing. */
export async function sendToStream(opening: Opening, way: StreamWay): Promise<SendingHalf> {
  const connection = await connect({ servers: opening.natsUrl, reconnect: false });
  const subject = subjectOf(opening, way.replaceAll(" ", "-"));
  const name = subject.replaceAll(".", "_");
  const manager = await jetstreamManager(connection);
  // The types do not know the second option yet.
  const config: Partial<StreamConfig> & { name: string; allow_batched: boolean } = {
    name,
    subjects: [subject],
    storage: "file",
    allow_atomic: true,
    allow_batched: true,
  };
  await manager.streams.add(config);
  return {
    send: async (payload, count) => {
      await publishers[way](connection, subject, payload, count);
      const doneMs = systemMs();
      const { state } = await manager.streams.info(name);
      await manager.streams.purge(name);
      return { doneMs, kept: state.messages };
    },
    async close() {
      await manager.streams.delete(name);
      await connection.close();
    },
  };
}

/** Publishes of `jetstream` whose acknowledgement has not come. */
export const publishesInFlight = 1_000;
const ackTimeoutMs = 30_000;

/** The most messages that a server takes in one atomic batch; fewer, where they are long. */
export const batchMessages = 1_000;
const batchBytes = 4 << 20;

/** Batches under way at a time: of the numbers tried, 1 to 10, the fastest. A server takes 50 of one stream. */
export const batchesInFlight = 10;

/** Flow control of fast ingest: messages and bytes for each acknowledgement, and acknowledgements that may be outstanding. */
const flowMessages = 1_000;
const flowBytes = 4 << 20;
const answersInFlight = 3;

const publishers: Readonly<Record<StreamWay, PublishToStream>> = {
  jetstream: async (connection, subject, payload, count) => {
    const client = jetstream(connection);
    const acknowledged = new Array<Promise<unknown>>(Math.min(publishesInFlight, count));
    for (let i = 0; i < count; i++) {
      // The oldest one that is under way makes room for the next.
      if (i >= publishesInFlight) await acknowledged[i % publishesInFlight];
      acknowledged[i % publishesInFlight] = client.publish(subject, payload, { timeout: ackTimeoutMs });
    }
    await Promise.all(acknowledged);
  },

  "jetstream batches": async (connection, subject, payload, count) => {
    const client = jetstream(connection);
    const perBatch = Math.min(batchMessages, Math.max(2, Math.floor(batchBytes / payload.length)));
    let left = count;
    const loop = async (): Promise<void> => {
      while (left > 0) {
        const messages = Math.min(left, perBatch);
        left -= messages;
        // A batch needs at least two messages: the last one commits it.
        if (messages === 1) {
          await client.publish(subject, payload, { timeout: ackTimeoutMs });
          continue;
        }
        const batch = await client.startBatch(subject, payload, { timeout: ackTimeoutMs });
        for (let i = 2; i < messages; i++) batch.add(subject, payload);
        await batch.commit(subject, payload, { timeout: ackTimeoutMs });
      }
    };
    await Promise.all(Array.from({ length: batchesInFlight }, loop));
  },

  // By hand, as nats.js of this version does not have it; ADR-50 of NATS describes it. Each message says in its reply
  // subject which one of the batch it is, and the server answers every so many messages.
  "jetstream fast ingest": async (connection, subject, payload, count) => {
    const inbox = createInbox();
    const flow = Math.min(flowMessages, Math.max(1, Math.floor(flowBytes / payload.length)));
    let acknowledged = 0;
    let perAnswer = flow;
    let failure: Error | undefined;
    let committed = false;
    let answered: () => void = () => undefined;
    const subscription = connection.subscribe(`${inbox}.>`, {
      callback: (error, message) => {
        const answer = error === null ? message.json<FlowAnswer>() : undefined;
        if (answer?.type === "ack") {
          acknowledged = Math.max(acknowledged, answer.seq);
          perAnswer = answer.msgs;
        } else if (answer?.batch !== undefined && answer.count === count) committed = true;
        else failure = error ?? new BenchFailure(`fast ingest: the server has answered ${message.string()}`);
        answered();
      },
    });
    const nextAnswer = async (): Promise<void> => {
      await new Promise<void>((resolve) => {
        answered = resolve;
      });
      if (failure !== undefined) throw failure;
    };
    try {
      for (let number = 1; number <= count; number++) {
        while (number > acknowledged + perAnswer * answersInFlight) await nextAnswer();
        const operation = number === count ? 2 : number === 1 ? 0 : 1;
        connection.publish(subject, payload, { reply: `${inbox}.${flow}.fail.${number}.${operation}.$FI` });
        if (operation === 0) await nextAnswer();
      }
      while (!committed) await nextAnswer();
    } finally {
      subscription.unsubscribe();
    }
  },
};

/** Answer of the server to fast ingest: an ack up to `seq`, with the next one after `msgs` messages, or the end of the batch. */
type FlowAnswer =
  | { readonly type: "ack"; readonly seq: number; readonly msgs: number; readonly batch?: undefined }
  | { readonly type?: "gap" | "err"; readonly batch?: string; readonly count?: number };
