/**
 * Acknowledgements of NATS are lost, for longer than the duplicate window of streams too, `hawser serve` is killed while they are, and the
 * clock of Postgres is not that of NATS. Each message is in its stream once, or it is a dead letter in doubt: where messages are
 * consumed and removed, nobody can tell. A replay of what is not lost adds nothing. HAWSER_FAULT_SEED repeats the choices of a run (not its
 * timing), HAWSER_FAULT_KILLS says how many kills each of the runs has, HAWSER_FAULT_WINDOW_MS how long the window is.
 */
import { setTimeout as delay } from "node:timers/promises";
import { AckPolicy, jetstream, jetstreamManager, RetentionPolicy, type StreamConfig } from "@nats-io/jetstream";
import { connect, type NatsConnection, nanos } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, problems, type Sent } from "./support/ledger.js";
import { textsIn } from "./support/outbox-stream.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeProcess } from "./support/serve-process.js";
import { prepareForSql } from "./support/sql-database.js";

const kills = killsPerLoop(2);
const windowMs = Number(process.env["HAWSER_FAULT_WINDOW_MS"] ?? 2_000);
const streams: Readonly<Record<string, Partial<StreamConfig>>> = {
  plain: {},
  transformed: { subject_transform: { src: ">", dest: "stored.>" } },
  full: { max_consumers: 1 },
  queue: { retention: RetentionPolicy.Workqueue },
  interest: { retention: RetentionPolicy.Interest },
};
const names = Object.keys(streams);

// Side by side, each with servers of its own: they mostly wait, for the window and for what a relay before may still be publishing.
it(`messages whose acknowledgements are lost are there once, or dead letters in doubt; Postgres is 300 s behind, or ahead (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) + 10 * windowMs,
}, async () => {
  await Promise.all([-300, 300].map(loseAcknowledgements));
});

async function loseAcknowledgements(aheadS: number): Promise<void> {
  const random = new Random(faultSeed + aheadS);
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await using wire = await startProxy(nats.url);
  await setClock(postgres.url, aheadS);
  await prepareForSql(postgres.url, wire.url);
  const watcher = await connect({ servers: nats.url });
  const received = await consume(watcher);
  await using serve = await ServeProcess.start(postgres.url);
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  const value = async (sql: string): Promise<number> => Number(Object.values((await client.query(sql)).rows[0])[0]);
  const isDone = async (): Promise<boolean> =>
    (await value("SELECT waiting FROM hawser.outbox_status WHERE kind = 'nats'")) === 0;

  let written = 0;
  const write = async (): Promise<void> => {
    const sql = names.map((_, nth) => `hawser.enqueue($${nth + 2}, 'm' || n, stream => true)`).join(", ");
    const numbers = `generate_series(${written + 1}, ${written + 20})`;
    await client.query(`SELECT ${sql} FROM ${numbers} AS n WHERE $1`, [true, ...names.map((name) => `${name}.new`)]);
    written += 20;
  };
  const writeFor = async (ms: number): Promise<void> => {
    for (const until = performance.now() + ms; performance.now() < until; ) {
      await write();
      await delay(20);
    }
  };
  await write();
  await eventually("the outbox is empty", isDone, 60_000);
  for (let made = 0; made < kills; made += 1) {
    wire.keepAnswersBack();
    await writeFor(random.between(100, 400));
    if (made === 0) await delay(5 * windowMs);
    await serve.crash();
    wire.cut();
    if (random.chance(0.5)) await delay(Math.min(windowMs, 3_000));
    await serve.start();
    await writeFor(random.between(100, 400));
    // The next kill meets a relay that has published all, or one that still waits.
    if (made % 3 === 1) await eventually("the outbox is empty", isDone, 120_000);
  }
  // The process lives on, too, after its acknowledgements were lost.
  wire.keepAnswersBack();
  await writeFor(300);
  await delay(windowMs);
  wire.cut();
  await eventually("the outbox is empty", isDone, 120_000);

  const inDoubt = async (): Promise<Map<string, Set<string>>> => {
    const { rows } = await client.query(
      "SELECT topic, convert_from(payload, 'UTF8') AS text, error_code FROM hawser_data.dead_letters",
    );
    expect(rows.filter((row) => row.error_code !== "outcome_unknown")).toEqual([]);
    return new Map(
      names.map((name) => [name, new Set(rows.filter(({ topic }) => topic === `${name}.new`).map(({ text }) => text))]),
    );
  };
  const check = async (): Promise<string> => {
    const dead = await inDoubt();
    const told: string[] = [];
    for (const name of names) {
      const sent = Array.from({ length: written }, (_, nth): Sent => {
        const id = `m${nth + 1}`;
        return { id, consumers: [name], outcome: dead.get(name)!.has(id) ? "unknown" : "confirmed" };
      });
      const texts = await received(name);
      expect(
        problems(
          audit(
            sent,
            texts.map((id) => ({ consumer: name, id })),
          ),
        ),
      ).toEqual([]);
      told.push(`${name} ${texts.length} and ${dead.get(name)!.size} in doubt`);
    }
    return told.join(", ");
  };
  const before = await check();
  console.log(`Postgres ${aheadS} s ahead, ${kills} kills, ${written} messages for each: ${before}`);
  const sizes = await Promise.all(names.map(async (name) => (await received(name)).length));
  await client.query("SELECT hawser.outbox_replay(clock_timestamp() - interval '2 h')");
  await eventually("the outbox is empty again", isDone, 120_000);
  console.log(`after the replay: ${await check()}`);
  expect(await Promise.all(names.map(async (name) => (await received(name)).length))).toEqual(sizes);
  // Streams from which nothing is removed leave no message in doubt.
  const dead = await inDoubt();
  for (const name of ["plain", "transformed", "full"]) expect(dead.get(name)).toEqual(new Set());
  await client.end();
  await watcher.close();
}

/** Makes the streams. @returns the texts of all messages that one has had */
async function consume(watcher: NatsConnection): Promise<(name: string) => Promise<string[]>> {
  const manager = await jetstreamManager(watcher);
  const consumed = new Map<string, string[]>();
  for (const [name, config] of Object.entries(streams)) {
    await manager.streams.add({ name, subjects: [`${name}.>`], duplicate_window: nanos(windowMs), ...config });
    if (name === "plain" || name === "transformed") continue;
    await manager.consumers.add(name, { durable_name: "worker", ack_policy: AckPolicy.Explicit });
    const texts: string[] = [];
    consumed.set(name, texts);
    const messages = await (await jetstream(watcher).consumers.get(name, "worker")).consume();
    void (async () => {
      for await (const message of messages) {
        texts.push(message.string());
        message.ack();
      }
    })();
  }
  return async (name) => {
    const texts = consumed.get(name);
    if (texts === undefined) return await textsIn(watcher, name);
    await eventually("all are consumed, and have come", async () => {
      const { delivered, num_pending } = await manager.consumers.info(name, "worker");
      return num_pending === 0 && delivered.consumer_seq <= texts.length;
    });
    return texts;
  };
}

/** The clock of a database is wrong, in all that is made there later. */
async function setClock(databaseUrl: string, aheadS: number): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  for (const name of ["clock_timestamp", "now", "statement_timestamp", "transaction_timestamp"]) {
    await client.query(`ALTER FUNCTION pg_catalog.${name}() RENAME TO right_${name}`);
    await client.query(
      `CREATE FUNCTION pg_catalog.${name}() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
         AS 'SELECT pg_catalog.right_${name}() + interval ''${aheadS} s'''`,
    );
  }
  await client.end();
}
