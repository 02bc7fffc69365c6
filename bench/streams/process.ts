/**
 * The program of a process that fills a stream, and takes it into a table as one would with nats.js alone.
 */

import { setTimeout as delay } from "node:timers/promises";
import { AckPolicy, type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { streamBatchMessages } from "../../src/nats/bridge/streams/streams.js";
import { connected } from "../postgres.js";
import type { BenchServers } from "../servers.js";
import { BenchFailure } from "../suite.js";
import { serveRequests } from "../worker.js";

const stream = "bench-streams";
const subject = "bench.streams";

/** Index of the subject's token that is the key. */
const keyToken = 3;

/** Publishes under way while the stream is filled. */
const publishesInFlight = 1_000;
const ackTimeoutMs = 30_000;

/** A consumer that inserts in bulk takes as many at once as a batch of ours has at most. */
const bulkMessages = streamBatchMessages;

const lookEveryMs = 5;
const rowsTimeoutMs = 120_000;

/** Content of a stream. */
export interface Filling {
  readonly messages: number;
  readonly payloadBytes: number;
  readonly ofKeys?: number;
}

/** Subscriptions that take the messages of a stream. */
export interface Taking {
  readonly messages: number;
  readonly subscriptions?: number;
  readonly hasKeys?: boolean;
  /** True for a function that is called once per batch. */
  readonly inBatches?: boolean;
}

let client: pg.Client | undefined;
let nats: NatsConnection | undefined;
let manager: JetStreamManager | undefined;
let runs = 0;

const requests = {
  async open({ databaseUrl, natsUrl }: BenchServers): Promise<void> {
    client = await connected(databaseUrl);
    await client.query(`
      CREATE TABLE bench_rows (id bigint GENERATED ALWAYS AS IDENTITY, payload bytea NOT NULL);
      CREATE FUNCTION bench_row(payload bytea) RETURNS void LANGUAGE sql
        AS 'INSERT INTO bench_rows (payload) VALUES (payload)';
      CREATE FUNCTION bench_batch(payloads bytea[]) RETURNS void LANGUAGE sql
        AS 'INSERT INTO bench_rows (payload) SELECT unnest(payloads)';
      CREATE TABLE bench_position (consumer text PRIMARY KEY, done_to bigint NOT NULL)`);
    nats = await connect({ servers: natsUrl });
    manager = await jetstreamManager(nats);
  },

  /** Makes the stream anew, with so many messages, of so many keys in turn if any. */
  async fill({ messages, payloadBytes, ofKeys = 0 }: Filling): Promise<void> {
    await manager!.streams.delete(stream).catch(() => undefined);
    await manager!.streams.add({ name: stream, subjects: [subject, `${subject}.*`], storage: "file" });
    const publisher = jetstream(nats!);
    const payload = new Uint8Array(payloadBytes).fill(120);
    const acknowledged = new Array<Promise<unknown>>(Math.min(publishesInFlight, messages));
    for (let number = 0; number < messages; number++) {
      if (number >= publishesInFlight) await acknowledged[number % publishesInFlight];
      const to = ofKeys === 0 ? subject : `${subject}.${number % ofKeys}`;
      acknowledged[number % publishesInFlight] = publisher.publish(to, payload, { timeout: ackTimeoutMs });
    }
    await Promise.all(acknowledged);
  },

  /** New subscriptions take all of it. @returns seconds, from the call until rows and position are committed */
  async subscribe({ messages, subscriptions = 1, hasKeys = false, inBatches = false }: Taking): Promise<number> {
    await client!.query("TRUNCATE bench_rows RESTART IDENTITY");
    const names = Array.from({ length: subscriptions }, () => `bench_${(runs += 1)}`);
    const began = performance.now();
    await client!.query(
      `SELECT nats_subscribe_stream('${stream}', $3::regproc, name => n, start => 'all', key_token => $2)
       FROM unnest($1::text[]) AS n`,
      [names, hasKeys ? keyToken : null, inBatches ? "bench_batch" : "bench_row"],
    );
    while ((await doneTo(names)) < messages) {
      if (performance.now() - began > rowsTimeoutMs)
        throw new BenchFailure(`${await doneTo(names)} of ${messages} came`);
      await delay(lookEveryMs);
    }
    const seconds = (performance.now() - began) / 1000;
    await checkRows(messages * subscriptions);
    await client!.query("SELECT nats_unsubscribe_stream(n) FROM unnest($1::text[]) AS n", [names]);
    return seconds;
  },

  /** A consumer: a transaction with one row, then the acknowledgement, one message after another. @returns seconds */
  async consume(messages: number): Promise<number> {
    await client!.query("TRUNCATE bench_rows RESTART IDENTITY");
    const durable = `bench-${(runs += 1)}`;
    await manager!.consumers.add(stream, { durable_name: durable, ack_policy: AckPolicy.Explicit });
    const began = performance.now();
    const consumer = await jetstream(nats!).consumers.get(stream, durable);
    let left = messages;
    for await (const message of await consumer.consume()) {
      await client!.query({
        name: "bench.row",
        text: "INSERT INTO bench_rows (payload) VALUES ($1)",
        values: [Buffer.from(message.data)],
      });
      message.ack();
      left -= 1;
      if (left === 0) break;
    }
    await nats!.flush();
    const seconds = (performance.now() - began) / 1000;
    await checkRows(messages);
    await manager!.consumers.delete(stream, durable);
    return seconds;
  },

  /** A pull consumer: one transaction with a bulk INSERT and its position, then one acknowledgement. @returns seconds */
  async consumeInBulk(messages: number): Promise<number> {
    await client!.query("TRUNCATE bench_rows RESTART IDENTITY");
    const durable = `bench-${(runs += 1)}`;
    await client!.query("INSERT INTO bench_position VALUES ($1, 0)", [durable]);
    await manager!.consumers.add(stream, {
      durable_name: durable,
      ack_policy: AckPolicy.All,
      // The default of 1,000 is less than a batch, which would never be full.
      max_ack_pending: 2 * bulkMessages,
    });
    const began = performance.now();
    const consumer = await jetstream(nats!).consumers.get(stream, durable);
    let left = messages;
    let batch: Buffer[] = [];
    for await (const message of await consumer.consume({ max_messages: 2 * bulkMessages })) {
      batch.push(Buffer.from(message.data));
      if (batch.length < bulkMessages && batch.length < left && message.info.pending > 0) continue;
      await client!.query("BEGIN");
      await client!.query({
        name: "bench.bulk",
        text: "INSERT INTO bench_rows (payload) SELECT unnest($1::bytea[])",
        values: [batch],
      });
      await client!.query({
        name: "bench.position",
        text: "UPDATE bench_position SET done_to = $2 WHERE consumer = $1",
        values: [durable, message.seq],
      });
      await client!.query("COMMIT");
      message.ack();
      left -= batch.length;
      batch = [];
      if (left === 0) break;
    }
    await nats!.flush();
    const seconds = (performance.now() - began) / 1000;
    await checkRows(messages);
    await manager!.consumers.delete(stream, durable);
    return seconds;
  },
};

/** Lowest position of these subscriptions. */
async function doneTo(names: readonly string[]): Promise<number> {
  const text = `SELECT min(coalesce(s.done_to, 0)) AS done_to
    FROM unnest($1::text[]) AS n LEFT JOIN hawser.stream_status AS s ON s.name = n`;
  const { rows } = await client!.query<{ done_to: string }>({ name: "bench.done", text, values: [names] });
  return Number(rows[0]!.done_to);
}

async function checkRows(messages: number): Promise<void> {
  const { rows } = await client!.query<{ count: string }>("SELECT count(*) FROM bench_rows");
  if (Number(rows[0]!.count) !== messages) {
    throw new BenchFailure(`there are ${rows[0]!.count} rows of ${messages} messages`);
  }
}

/** Requests that the process answers. */
export type StreamRequests = typeof requests;

serveRequests(requests, async () => {
  await manager?.streams.delete(stream).catch(() => undefined);
  await nats?.close();
  await client?.end();
});
