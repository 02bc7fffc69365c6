/**
 * Peers, `hawser serve` or Postgres are killed at random while many sessions enqueue messages for peers. What is committed is
 * booked once, by handlers whose effects are exactly once, and told by them to a further topic, where it is booked once, too;
 * nothing else is; and each key is in the order of its commits. HAWSER_FAULT_SEED repeats the choices of a run (not its timing),
 * HAWSER_FAULT_KILLS says how many kills there are.
 */
import { setTimeout as delay } from "node:timers/promises";
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

const kills = killsPerLoop(1);
const writers = 6;
const keys = 12;
const peers = [
  ["warehouse-1", "warehouse", "ledger"],
  ["warehouse-2", "warehouse", "ledger"],
  ["ledger-1", "ledger"],
] as const;

it(`what is committed is booked once, from transaction to transaction, when peers, serve and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) * 2,
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  const setUp = new pg.Client({ connectionString: postgres.url });
  await setUp.connect();
  // The number is drawn while the key is locked, so that for one key numbers grow in the order of the commits.
  await setUp.query("CREATE TABLE written (id text PRIMARY KEY, key text, nth bigserial)");
  await setUp.query("CREATE TABLE booked (topic text, id text, key text, peer text, nth bigserial)");
  await setUp.end();
  await using group = await ServeGroup.start(postgres.url, 1);
  const running = new Map<string, Program>();
  const start = ([name, topic, further]: (typeof peers)[number]): void => {
    const args = [name, topic, ...(further === undefined ? [] : [further])];
    const program = startProgram("test/faults/programs/booking-peer.ts", args, {
      env: { HAWSER_DATABASE_URL: postgres.url },
    });
    program.firstLine.catch(() => undefined);
    running.set(name, program);
  };
  onTestFinished(() => {
    for (const { child } of running.values()) child.kill("SIGKILL");
  });
  // The first ones come when messages wait for them.
  const ending = new AbortController();
  const load = Array.from({ length: writers }, (_, nth) =>
    write(postgres.url, new Random(faultSeed + nth), ending.signal),
  );
  await delay(500);
  for (const peer of peers) start(peer);
  for (let made = 0; made < kills; made += 1) {
    await delay(random.between(300, 2_000));
    const victim = made % 4;
    if (victim === 0) await postgres.kill("SIGKILL").then(() => postgres.start());
    else if (victim === 1) {
      await group.members[0]!.crash();
      await delay(random.between(0, 500));
      await group.members[0]!.start();
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
  const rowsOf = async (text: string) =>
    (await client.query<{ id: string; key: string | null; nth: string }>(text)).rows;
  const committed = await rowsOf("SELECT id, key, nth FROM written");
  expect(committed.length).toBeGreaterThan(kills);
  const count = async (topic: string) =>
    Number((await client.query("SELECT count(*) FROM booked WHERE topic = $1", [topic])).rows[0].count);
  await eventually(
    "everything is booked",
    async () => (await count("ledger")) >= committed.length,
    120_000 + 30 * committed.length,
  );
  // What would come twice would come now.
  await delay(2_000);
  const { rows: dead } = await client.query("SELECT topic, error_code, error_message FROM hawser.dead_letters");
  for (const topic of ["warehouse", "ledger"]) {
    const booked = await rowsOf(`SELECT id, key, nth FROM booked WHERE topic = '${topic}' ORDER BY nth`);
    console.log(
      `${topic}: ${kills} kills, ${written.reduce((sum, one) => sum + one, 0)} transactions were tried, ${committed.length} messages committed, ${booked.length} booked`,
    );
    expect(dead).toEqual([]);
    expect(booked.map(({ id }) => id).sort()).toEqual(committed.map(({ id }) => id).sort());
    const nthOf = new Map(committed.map(({ id, nth }) => [id, BigInt(nth)]));
    const last = new Map<string, bigint>();
    const disordered = booked.filter(({ id, key }) => {
      if (key === null) return false;
      const before = last.get(key);
      last.set(key, nthOf.get(id)!);
      return before !== undefined && before > nthOf.get(id)!;
    });
    expect(disordered).toEqual([]);
  }
  await client.end();
  for (const { child } of running.values()) child.kill("SIGTERM");
});

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
              SELECT id, hawser.peer_enqueue_text('warehouse', id, CASE WHEN $1::text IS NOT NULL THEN jsonb_build_object('key', $1::text) END, $1) AS number
                FROM drawn
            )
       INSERT INTO written (id, key) SELECT id, $1 FROM sent`,
      [key],
    );
    if (isTakenBack) await client.query("ROLLBACK TO s");
    // Handlers of a channel run one after another, in transactions: more than they can take would only pile up.
    await delay(random.between(5, 60));
  }
  await client.query(random.chance(0.15) ? "ROLLBACK" : "COMMIT");
}
