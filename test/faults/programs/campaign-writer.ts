/**
 * A writer of the campaign, in a process of its own: it enqueues in transactions that note in `sent` what they have enqueued, cancels
 * some of it, and sends directly what it notes before, and again when it is confirmed. On SIGTERM it ends what it has begun. Arguments:
 * name, seed, scope. The database is that of HAWSER_DATABASE_URL.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { cancel, enqueue, enqueueBatch, Peer } from "../../../src/jobs-and-peers/peer/index.js";
import { Random } from "../../simulator/random.js";
import { eventually } from "../../support/eventually.js";
import {
  type CampaignKind,
  type CampaignPayload,
  type CampaignScope,
  consumersOf,
  heedClock,
  nameLostStatus,
  shortenConstants,
} from "../support/campaign-protocol.js";

const [name, seed, scope] = process.argv.slice(2) as [string, string, CampaignScope];
shortenConstants();
heedClock();
const random = new Random(Number(seed));
/** How many times as many messages and keys as by default. */
const scale = Number(process.env["HAWSER_CAMPAIGN_SCALE"] ?? 1);
/** The writers do not run further ahead of the handlers. */
const mostWaiting = 400 * scale;
/** The last transaction begins before the signal to stop. */
let isEnding = false;
process.once("SIGTERM", () => {
  isEnding = true;
});
const peer = new Peer({ name, nameWaitMs: 60_000, sendTimeoutMs: 120_000 });
peer.on("status", ({ kind }) => {
  if (kind === "name_lost") process.exit(nameLostStatus);
});
await eventually("Postgres takes the peer", () =>
  peer.start().then(
    () => true,
    () => false,
  ),
);
process.stdout.write("running\n");

/** Messages that may still be cancelled. */
const cancellable: { readonly id: string; readonly outbox: bigint }[] = [];

interface Item {
  readonly kind: CampaignKind;
  readonly topic: string;
  readonly key: string | undefined;
}

const kinds: readonly CampaignKind[] = [
  ...(["jobs", "jobs", "jobs", "batch", "readings", "readings", "work", "news", "news"] as const),
  // A failover that loses commits gives the number of what may be cancelled to another message.
  ...(scope === "all" ? (["later"] as const) : []),
];

function item(): Item {
  const kind = random.pick(kinds);
  const key = kind === "later" || random.chance(0.2) ? undefined : `${kind} ${random.between(1, 8 * scale)}`;
  return { kind, topic: kind === "batch" || kind === "later" ? "jobs" : kind, key };
}

function payload(asks = false): CampaignPayload {
  const roll = random.next();
  const fails = roll < 0.8 ? 0 : roll < 0.88 ? 1 : roll < 0.95 ? 2 : 3;
  return { id: randomUUID(), fails, ...(asks ? { asks } : {}) };
}

async function write(client: pg.Client): Promise<void> {
  const items = Array.from({ length: random.between(1, 8 * scale) }, item);
  // In one order, so that transactions do not wait for each other's keys in a circle.
  items.sort((one, other) => (`${one.topic} ${one.key}` < `${other.topic} ${other.key}` ? -1 : 1));
  const later: typeof cancellable = [];
  await client.query("BEGIN");
  for (const { kind, topic, key } of items) {
    const payloads = Array.from({ length: kind === "batch" ? random.between(2, 6) : 1 }, () =>
      payload(scope === "all" && kind === "work" && random.chance(0.4)),
    );
    const texts = payloads.map((each) => JSON.stringify(each));
    const deliverAt = kind === "later" ? await inSeconds(client, 0.2 + 4 * random.next()) : undefined;
    const options = { key, all: kind === "news", deliverAt };
    const outbox =
      kind === "batch"
        ? await enqueueBatch(client, topic, texts, options)
        : [await enqueue(client, topic, texts[0]!, options)];
    // Numbers are drawn while the key is locked: for one key they grow in the order of the commits.
    await client.query({
      name: "note",
      text: `INSERT INTO sent (id, kind, consumers, lane, due)
             SELECT m.id, $2, $3::text[], $4, $5 FROM unnest($1::text[]) WITH ORDINALITY AS m (id, n) ORDER BY m.n`,
      values: [payloads.map(({ id }) => id), kind, consumersOf[kind], key ?? null, deliverAt ?? null],
    });
    if (kind === "later" && random.chance(0.5)) later.push({ id: payloads[0]!.id, outbox: outbox[0]! });
  }
  const regretted = random.chance(0.3) ? cancellable.splice(0) : [];
  for (const { id, outbox } of regretted) {
    const cancelled = await cancel(client, outbox);
    const outcome = { cancelled: "withdrawn", cancelling: "unknown", not_waiting: undefined }[cancelled];
    if (outcome !== undefined) await client.query("UPDATE sent SET outcome = $2 WHERE id = $1", [id, outcome]);
  }
  if (random.chance(0.1)) {
    await client.query("ROLLBACK");
    return;
  }
  await client.query("COMMIT");
  cancellable.push(...later);
}

/** By the clock of Postgres, since that of this process may be wrong. */
async function inSeconds(client: pg.Client, seconds: number): Promise<Date> {
  const { rows } = await client.query("SELECT clock_timestamp() + make_interval(secs => $1) AS at", [seconds]);
  return rows[0].at;
}

const sends = new Set<Promise<void>>();
let sent = 0;

/** Sends one after another; the row is there before. Members of a group have no order among themselves, so no key is noted for them. */
async function send(client: pg.Client, topic: "direct" | "jobs"): Promise<void> {
  const message = { ...payload(), fails: random.chance(0.9) ? 0 : random.between(1, 2) };
  const key = `${name} ${sent++ % (4 * scale)}`;
  const kind = topic === "direct" ? "direct" : "shared";
  await client.query("INSERT INTO sent (id, kind, consumers, lane, outcome) VALUES ($1, $2, $3, $4, 'unknown')", [
    message.id,
    kind,
    consumersOf[kind],
    topic === "direct" ? key : null,
  ]);
  const confirmed: Promise<void> = peer
    .send(topic, JSON.stringify(message), { key })
    .then(
      () => noteConfirmed(message.id),
      () => undefined,
    )
    .finally(() => sends.delete(confirmed));
  sends.add(confirmed);
}

async function noteConfirmed(id: string): Promise<void> {
  await eventually(
    "the confirmation is noted",
    () =>
      onClient(async (client) => {
        await client.query("UPDATE sent SET outcome = 'confirmed' WHERE id = $1", [id]);
      }),
    600_000,
  );
}

const notes = { free: Promise.resolve() };
/** One connection for all confirmations. */
let noting: pg.Client | undefined;

/** @returns false if Postgres is away */
function onClient(use: (client: pg.Client) => Promise<void>): Promise<boolean> {
  const turn = notes.free.then(async () => {
    try {
      if (noting === undefined) {
        noting = connection();
        await noting.connect();
      }
      await use(noting);
      return true;
    } catch {
      void noting?.end().catch(() => undefined);
      noting = undefined;
      return false;
    }
  });
  notes.free = turn.then(() => undefined);
  return turn;
}

function connection(): pg.Client {
  const client = new pg.Client({
    connectionString: process.env["HAWSER_DATABASE_URL"],
    connectionTimeoutMillis: 5_000,
    query_timeout: 20_000,
  });
  client.on("error", () => undefined);
  return client;
}

while (!isEnding) {
  const client = connection();
  try {
    await client.connect();
    while (!isEnding) {
      const { rows } = await client.query(
        `SELECT count(*)::float8 AS waiting FROM (
           SELECT FROM hawser_peer_data.stored_messages UNION ALL SELECT FROM hawser_data.queue LIMIT ${mostWaiting}
         ) AS waiting`,
      );
      if (rows[0].waiting < mostWaiting) {
        await write(client);
        if (scope === "all" && sends.size < 200) await send(client, random.pick(["direct", "jobs"]));
      }
      await delay(random.between(50, 200));
    }
  } catch {
    // Postgres is away.
    await delay(50);
  } finally {
    await client.end().catch(() => undefined);
  }
}
await Promise.all(sends);
await peer.stop();
await noting?.end().catch(() => undefined);
