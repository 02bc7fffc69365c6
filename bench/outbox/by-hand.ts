/**
 * The program of a process that relays an outbox as one would write it by hand: it reads a page of what no other reads,
 * publishes all of it, deletes it, and commits, over and over.
 */
import { setTimeout as delay } from "node:timers/promises";
import { jetstream } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { connected } from "../postgres.js";
import type { BenchServers } from "../servers.js";
import { serveRequests } from "../worker.js";

/** Rows of a page. */
export const pageRows = 1_000;

/** Pause after a poll that found no rows: the same as that of Hawser's relay. */
export const idleMs = 1;

const ackTimeoutMs = 30_000;

let client: pg.Client | undefined;
let nats: NatsConnection | undefined;
let relaying: Promise<void> | undefined;
let isEnding = false;

interface Row {
  readonly id: string;
  readonly subject: string;
  readonly payload: string;
  readonly message_id: string;
}

/** @returns how many there were */
async function relayPage(): Promise<number> {
  await client!.query("BEGIN");
  const { rows } = await client!.query<Row>({
    name: "bench.page",
    text: `SELECT id, subject, payload, message_id FROM bench_outbox ORDER BY id LIMIT ${pageRows} FOR UPDATE SKIP LOCKED`,
  });
  const stream = jetstream(nats!);
  await Promise.all(
    rows.map(({ subject, payload, message_id }) =>
      stream.publish(subject, payload, { msgID: message_id, timeout: ackTimeoutMs }),
    ),
  );
  if (rows.length > 0) {
    const ids = rows.map(({ id }) => id);
    await client!.query({
      name: "bench.delete",
      text: "DELETE FROM bench_outbox WHERE id = ANY ($1::bigint[])",
      values: [ids],
    });
  }
  await client!.query("COMMIT");
  return rows.length;
}

const requests = {
  async open({ databaseUrl, natsUrl }: BenchServers): Promise<void> {
    client = await connected(databaseUrl);
    nats = await connect({ servers: natsUrl });
  },
  start(): void {
    isEnding = false;
    relaying = (async () => {
      while (!isEnding) if ((await relayPage()) === 0) await delay(idleMs);
    })();
    relaying.catch((error) => console.error(error));
  },
  async stop(): Promise<void> {
    isEnding = true;
    await relaying;
  },
};

/** Requests that the handwritten relay's process answers. */
export type ByHandRequests = typeof requests;

serveRequests(requests, async () => {
  await requests.stop();
  await client?.end();
  await nats?.close();
});
