/**
 * `hawser serve`, nats-server or Postgres is killed at random while many sessions write into the outbox: everything that is
 * committed is in the stream once, nothing else is, and each key is in the order of its commits. HAWSER_FAULT_SEED repeats
 * the choices of a run (not its timing), HAWSER_FAULT_KILLS says how many kills there are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { ServeGroup } from "./support/bridge-group.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql } from "./support/sql-database.js";

const kills = killsPerLoop(1);
const writers = 32;
const keys = 12;

it(`a stream has what was committed, once and in order, when serve, NATS and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  await using group = await ServeGroup.start(postgres.url, 2);
  const watcher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  await (await jetstreamManager(watcher)).streams.add({ name: "OUT", subjects: ["out.>"] });
  const setUp = new pg.Client({ connectionString: postgres.url });
  await setUp.connect();
  // The number is drawn while the key is locked, so that for one key numbers grow in the order of the commits.
  await setUp.query("CREATE TABLE written (id text PRIMARY KEY, key text, nth bigserial)");
  await setUp.end();

  const ending = new AbortController();
  const load = Array.from({ length: writers }, (_, nth) =>
    write(postgres.url, new Random(faultSeed + nth), ending.signal),
  );
  for (let made = 0; made < kills; made += 1) {
    await delay(random.between(300, 2_000));
    const victim = made % 4;
    if (victim === 0)
      await nats
        .kill()
        .then(() => delay(random.between(0, 1_000)))
        .then(() => nats.restart());
    else if (victim === 1) await postgres.kill("SIGKILL").then(() => postgres.start());
    else {
      const leader = await group.leader();
      await leader.crash();
      await delay(random.between(0, 500));
      await leader.start();
    }
  }
  await delay(1_000);
  ending.abort();
  const written = await Promise.all(load);
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  const { rows } = await client.query<{ id: string; key: string | null; nth: string }>(
    "SELECT id, key, nth FROM written",
  );
  expect(rows.length).toBeGreaterThan(kills);
  await eventually("the outbox is empty", async () => (await stored(watcher)) >= rows.length, 120_000);
  // What would come twice would come now.
  await delay(2_000);
  const all = await messages(watcher);
  await client.end();
  await watcher.close();
  console.log(
    `${kills} kills: ${written.reduce((sum, one) => sum + one, 0)} transactions were tried, ${rows.length} messages committed, ${all.length} in the stream`,
  );
  const committed = new Map(rows.map((row) => [row.id, row]));
  expect(all.filter((id) => !committed.has(id))).toEqual([]);
  expect(all.length).toBe(new Set(all).size);
  const found = new Set(all);
  expect([...committed.keys()].filter((id) => !found.has(id))).toEqual([]);
  const last = new Map<string, bigint>();
  const disordered = all.filter((id) => {
    const { key, nth } = committed.get(id)!;
    if (key === null) return false;
    const before = last.get(key);
    last.set(key, BigInt(nth));
    return before !== undefined && before > BigInt(nth);
  });
  expect(disordered).toEqual([]);
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
            sent AS (SELECT id, nats_enqueue_text_stream('out.' || $2::text, id, key => $1) AS number FROM drawn)
       INSERT INTO written (id, key) SELECT id, $1 FROM sent`,
      [key, key ?? "none"],
    );
    if (isTakenBack) await client.query("ROLLBACK TO s");
    if (random.chance(0.2)) await delay(random.between(1, 30));
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
