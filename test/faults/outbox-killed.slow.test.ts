/**
 * `hawser serve`, nats-server or Postgres is killed at random while many sessions write into the outbox, each message for a stream
 * and for a worker, in one transaction. The stream and the worker have everything that is committed, once, and nothing else, each key
 * in the order of its commits. NATS is also away for longer than a part of the outbox stays; the worker goes on meanwhile.
 * `campaign.nightly.test.ts` has what the peers' side can do. HAWSER_FAULT_SEED repeats the choices of a run (not its timing),
 * HAWSER_FAULT_KILLS says how many kills there are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { Worker } from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { rowsOf } from "../support/on-server.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, createLedger, problems, readDone, readSent } from "./support/ledger.js";
import { countIn, textsIn } from "./support/outbox-stream.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeGroup } from "./support/serve-group.js";
import { prepareForSql } from "./support/sql-database.js";
import { restartPostgres, storm } from "./support/storm.js";

/** Each of the kinds at least once. */
const kills = Math.max(5, killsPerLoop(2));
const writers = 32;
const keys = 12;
/** Minimum retention of a part of the outbox, and the duration of one outage of NATS. */
const retentionMs = 1_000;
const absenceMs = 4 * retentionMs;

it(`a stream and a worker have what was committed, once and in order, when serve, NATS and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) * 2 + absenceMs,
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  const { url } = postgres;
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(url, nats.url);
  await createLedger(url);
  await using group = await ServeGroup.start(url, 2, ["--outbox-retention", `${retentionMs}ms`]);
  const watcher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  await (await jetstreamManager(watcher)).streams.add({ name: "OUT", subjects: ["out.>"] });
  await using worker = new Worker({
    databaseUrl: url,
    ...{ concurrency: 8, poolSize: 9, defaults: { retry: { attempts: 1_000 } } },
  });
  await worker.handle("warehouse", { transactional: true }, async (message) => {
    await message.client.query("INSERT INTO done (consumer, id) VALUES ('worker', $1)", [message.text()]);
  });
  await worker.start();

  const ending = new AbortController();
  const load = Array.from({ length: writers }, (_, nth) => write(url, new Random(faultSeed + nth), ending.signal));
  const booked = async (): Promise<number> =>
    (await rowsOf(url, "SELECT count(*)::float8 AS n FROM done"))[0]!["n"] as number;
  // NATS is away for longer than a part of the outbox stays.
  await nats.kill();
  const before = await booked();
  await delay(absenceMs);
  await eventually("the worker goes on", async () => (await booked()) > before);
  await nats.restart();
  const made = await storm({
    ...{ random, count: kills },
    faults: {
      async NATS() {
        await nats.kill();
        await delay(random.between(0, 1_000));
        await nats.restart();
      },
      Postgres: () => restartPostgres(postgres),
      async oneServe() {
        const serve = random.pick(group.members);
        await serve.crash();
        await delay(random.between(0, 500));
        await serve.start();
      },
      async allServe() {
        await Promise.all(group.members.map((serve) => serve.crash()));
        await Promise.all(group.members.map((serve) => serve.start()));
      },
      async serveStops() {
        for (const serve of group.members) {
          await serve.stop();
          await serve.start();
        }
      },
    },
    progress: () => delay(random.between(300, 2_000)),
  });
  ending.abort();
  const tried = (await Promise.all(load)).reduce((sum, one) => sum + one, 0);
  const sent = await readSent(url);
  expect(sent.length).toBeGreaterThan(kills);
  await eventually("the stream has all", async () => (await countIn(watcher, "OUT")) >= sent.length);
  await eventually("the worker has all", async () => (await booked()) >= sent.length, 120_000 + 30 * sent.length);
  // Without processes nothing comes again.
  await Promise.all([worker.stop(), ...group.members.map((serve) => serve.stop())]);
  const inStream = (await textsIn(watcher, "OUT")).map((id) => ({ consumer: "stream", id }));
  await watcher.close();
  console.log(`${JSON.stringify(made)}: ${tried} transactions were tried, ${sent.length} messages are committed`);
  expect(problems(audit(sent, [...(await readDone(url)), ...inStream]))).toEqual([]);
  expect(await rowsOf(url, "SELECT topic, error_code, error_message FROM hawser_data.dead_letters")).toEqual([]);
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
    // The number of the row is drawn while the key is locked, so that for one key numbers grow in the order of the commits.
    await client.query(
      `WITH drawn AS (SELECT gen_random_uuid()::text AS id),
            queued AS (
              SELECT id, hawser.enqueue('out.' || $2::text, id, stream => true, key => $1) AS number,
                     hawser.enqueue('warehouse', id, key => $1)
                FROM drawn
            )
       INSERT INTO sent (id, consumers, lane) SELECT id, '{stream,worker}'::text[], $1 FROM queued`,
      [key, key ?? "none"],
    );
    if (isTakenBack) await client.query("ROLLBACK TO s");
    // Handlers of a channel run one after another, in transactions: more than they can take would only pile up.
    await delay(random.between(20, 120));
  }
  await client.query(random.chance(0.15) ? "ROLLBACK" : "COMMIT");
}
