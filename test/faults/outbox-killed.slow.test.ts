/**
 * Peers, `hawser serve`, nats-server or Postgres is killed at random while many sessions write into the outbox, each message for
 * a stream and for a peer, in one transaction. Everything that is committed is in the stream once, and is booked once, by
 * handlers whose effects are exactly once, and told by them to a further topic, where it is booked once, too. Nothing else is,
 * and each key is in the order of its commits. NATS is also away for longer than a part of the outbox stays; peers are served
 * meanwhile. HAWSER_FAULT_SEED repeats the choices of a run (not its timing), HAWSER_FAULT_KILLS says how many kills there are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { type Program, startProgram } from "../support/program.js";
import { ServeGroup } from "./support/bridge-group.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql } from "./support/sql-database.js";

/** NATS and Postgres once, serve and a peer twice, at least. */
const kills = Math.max(6, killsPerLoop(2));
const writers = 32;
const keys = 12;
/** Minimum retention of a part of the outbox, and the duration of one outage of NATS. */
const retentionMs = 1_000;
const absenceMs = 4 * retentionMs;
/** The warehouses are a group. */
const peers = [
  ["warehouse-1", "warehouse", "ledger"],
  ["warehouse-2", "warehouse", "ledger"],
  ["ledger-1", "ledger"],
  ["ledger-2", "ledger"],
] as const;

interface Message {
  readonly id: string;
  readonly key: string | null;
  readonly nth: string;
}

it(`a stream and peers have what was committed, once and in order, when peers, serve, NATS and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) * 2 + absenceMs,
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  await using group = await ServeGroup.start(postgres.url, 2, ["--outbox-retention", `${retentionMs}ms`]);
  const watcher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  await (await jetstreamManager(watcher)).streams.add({ name: "OUT", subjects: ["out.>"] });
  const setUp = new pg.Client({ connectionString: postgres.url });
  await setUp.connect();
  // The number is drawn while the key is locked, so that for one key numbers grow in the order of the commits.
  await setUp.query("CREATE TABLE written (id text PRIMARY KEY, key text, nth bigserial)");
  await setUp.query("CREATE TABLE booked (topic text, id text, key text, peer text, nth bigserial)");
  await setUp.end();
  const running = new Map<string, Program>();
  const start = ([name, topic, further]: (typeof peers)[number]): void => {
    const args = [name, topic, ...(further === undefined ? [] : [further])];
    const program = startProgram("test/faults/programs/booking-peer.ts", args, {
      env: { HAWSER_DATABASE_URL: postgres.url, BOOKING_GROUP: topic === "warehouse" ? "warehouses" : "" },
    });
    program.firstLine.catch(() => undefined);
    running.set(name, program);
  };
  onTestFinished(() => {
    for (const { child } of running.values()) child.kill("SIGKILL");
  });

  // The first peers come when messages wait for them.
  const ending = new AbortController();
  const load = Array.from({ length: writers }, (_, nth) =>
    write(postgres.url, new Random(faultSeed + nth), ending.signal),
  );
  await delay(500);
  for (const peer of peers) start(peer);
  const bookedDuringAbsence = await without(nats, postgres.url);
  for (let made = 0; made < kills; made += 1) {
    await delay(random.between(300, 2_000));
    const victim = made % 6;
    if (victim === 0)
      await nats
        .kill()
        .then(() => delay(random.between(0, 1_000)))
        .then(() => nats.restart());
    else if (victim === 1) await postgres.kill("SIGKILL").then(() => postgres.start());
    else if (victim < 4) {
      const leader = await group.leader();
      await leader.crash();
      await delay(random.between(0, 500));
      await leader.start();
    } else {
      const peer = random.pick(peers);
      running.get(peer[0])!.child.kill("SIGKILL");
      await running.get(peer[0])!.ended;
      await delay(random.between(0, 1_000));
      start(peer);
    }
  }
  await delay(1_000);
  ending.abort();
  const written = await Promise.all(load);
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  const rowsOf = async (text: string) => (await client.query<Message>(text)).rows;
  const committed = await rowsOf("SELECT id, key, nth FROM written");
  expect(committed.length).toBeGreaterThan(kills);
  await eventually("the outbox is empty", async () => (await stored(watcher)) >= committed.length, 120_000);
  const count = async (topic: string) =>
    Number((await client.query("SELECT count(*) FROM booked WHERE topic = $1", [topic])).rows[0].count);
  await eventually(
    "everything is booked",
    async () => (await count("ledger")) >= committed.length,
    120_000 + 30 * committed.length,
  );
  // Duplicates would arrive within this time.
  await delay(2_000);
  const { rows: dead } = await client.query("SELECT topic, error_code, error_message FROM hawser_data.dead_letters");
  expect(dead).toEqual([]);
  const found: Record<string, readonly string[]> = { stream: await messages(watcher) };
  for (const topic of ["warehouse", "ledger"])
    found[topic] = (await rowsOf(`SELECT id, key, nth FROM booked WHERE topic = '${topic}' ORDER BY nth`)).map(
      ({ id }) => id,
    );
  await client.end();
  await watcher.close();
  for (const { child } of running.values()) child.kill("SIGTERM");
  console.log(
    `${kills} kills: ${written.reduce((sum, one) => sum + one, 0)} transactions were tried, ${committed.length} messages committed, ${Object.entries(
      found,
    )
      .map(([name, ids]) => `${ids.length} in ${name}`)
      .join(", ")}; ${bookedDuringAbsence} booked while NATS was away`,
  );
  expect(bookedDuringAbsence).toBeGreaterThan(0);
  for (const ids of Object.values(found)) expectOnceInOrder(ids, committed);
});

function expectOnceInOrder(ids: readonly string[], committed: readonly Message[]): void {
  expect([...ids].sort()).toEqual(committed.map(({ id }) => id).sort());
  const known = new Map(committed.map((message) => [message.id, message]));
  const last = new Map<string, bigint>();
  const disordered = ids.filter((id) => {
    const { key, nth } = known.get(id)!;
    if (key === null) return false;
    const before = last.get(key);
    last.set(key, BigInt(nth));
    return before !== undefined && before > BigInt(nth);
  });
  expect(disordered).toEqual([]);
}

/** NATS is away for longer than a part of the outbox stays. @returns how many messages peers have booked meanwhile */
async function without(nats: { kill(): Promise<void>; restart(): Promise<void> }, url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const booked = async () => Number((await client.query("SELECT count(*) FROM booked")).rows[0].count);
  await nats.kill();
  const before = await booked();
  await delay(absenceMs);
  await eventually("peers are served", async () => (await booked()) > before, 60_000);
  const after = await booked();
  await nats.restart();
  await client.end();
  return after - before;
}

/** Transactions until the end: with keys and without, with savepoints, pauses and rollbacks. @returns how many there were */
async function write(url: string, random: Random, signal: AbortSignal): Promise<number> {
  let transactions = 0;
  let client: pg.Client | undefined;
  while (!signal.aborted) {
    try {
      if (client === undefined) {
        client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
        client.on("error", () => undefined);
        await client.connect();
      }
      transactions += 1;
      await transaction(client, random);
    } catch {
      // Killed, or a deadlock between two keys.
      const failed = client;
      client = undefined;
      await failed?.end().catch(() => undefined);
      await delay(random.between(5, 100));
    }
  }
  await client?.end().catch(() => undefined);
  return transactions;
}

async function transaction(client: pg.Client, random: Random): Promise<void> {
  await client.query("BEGIN");
  if (random.chance(0.3)) await client.query("SELECT pg_current_xact_id()");
  const chosen = Array.from({ length: random.between(1, 4) }, () =>
    random.chance(0.7) ? `k${random.between(1, keys)}` : null,
  );
  // Locked in one order, transactions do not wait for each other in a circle; now and then they do.
  if (random.chance(0.98)) chosen.sort();
  for (const key of chosen) {
    const isTakenBack = random.chance(0.15);
    if (isTakenBack) await client.query("SAVEPOINT s");
    await client.query(
      `WITH drawn AS (SELECT gen_random_uuid()::text AS id),
            sent AS (
              SELECT id, hawser.enqueue('out.' || $2::text, id, stream => true, key => $1) AS number,
                     hawser.enqueue('warehouse', id, headers => CASE WHEN $1::text IS NOT NULL THEN jsonb_build_object('key', $1::text) END, key => $1)
                FROM drawn
            )
       INSERT INTO written (id, key) SELECT id, $1 FROM sent`,
      [key, key ?? "none"],
    );
    if (isTakenBack) await client.query("ROLLBACK TO s");
    // Handlers of a channel run one after another, in transactions: more than they can take would only pile up.
    await delay(random.between(20, 120));
  }
  await client.query(random.chance(0.15) ? "ROLLBACK" : "COMMIT");
}

type Connection = Awaited<ReturnType<typeof connect>>;

async function stored(connection: Connection): Promise<number> {
  return (await (await jetstreamManager(connection)).streams.info("OUT")).state.messages;
}

async function messages(connection: Connection): Promise<string[]> {
  const consumer = await jetstream(connection).consumers.get("OUT", { deliver_policy: DeliverPolicy.All });
  const found: string[] = [];
  for await (const message of await consumer.consume()) {
    found.push(message.string());
    if (message.info.pending === 0) break;
  }
  return found;
}
