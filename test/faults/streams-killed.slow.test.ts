/**
 * `hawser serve`, nats-server or Postgres is killed at random while a stream lands in a table: each message is there once.
 * HAWSER_FAULT_KILLS says how many kills there are, HAWSER_STREAM_MESSAGES how many messages, HAWSER_FAULT_SEED repeats the
 * choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
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

/** NATS and Postgres once, and serve three times, by default. */
const kills = killsPerLoop(2);
const messages = Number(process.env["HAWSER_STREAM_MESSAGES"] ?? 30_000);

const names = ["in-order", "side-by-side"] as const;

it(`${messages} messages land once, in order and side by side, when serve, NATS and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) + messages,
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  await using group = await ServeGroup.start(postgres.url, 2);
  const publisher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  await (await jetstreamManager(publisher)).streams.add({ name: "IN", subjects: ["in.*"] });
  const query = async (sql: string) => {
    const client = new pg.Client({ connectionString: postgres.url });
    client.on("error", () => undefined);
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  };
  await query("CREATE TABLE landed (nth bigserial, name text, id integer, subject text)");
  for (const [nth, name] of names.entries())
    await query(`
        CREATE FUNCTION land_${nth}(payload bytea, subject text) RETURNS void LANGUAGE sql
          AS $$INSERT INTO public.landed (name, id, subject) SELECT '${name}', convert_from(payload, 'UTF8')::integer, subject$$`);
  await query("SELECT nats_subscribe_stream('IN', 'land_0', 'in-order')");
  await query("SELECT nats_subscribe_stream('IN', 'land_1', 'side-by-side', key_token => 2)");
  const publishing = (async () => {
    for (let id = 1; id <= messages; id += 1) {
      publisher.publish(`in.${id % 7}`, String(id));
      if (id % 500 === 0) await delay(5);
    }
    await publisher.flush();
  })();
  for (let made = 0; made < kills; made += 1) {
    await delay(random.between(200, 1_500));
    const victim = made % 5;
    // NATS is killed only after everything has arrived: messages published while it is down are lost.
    if (victim === 0) await publishing.then(() => nats.kill()).then(() => nats.restart());
    else if (victim === 1) await postgres.kill("SIGKILL").then(() => postgres.start());
    else {
      const leader = await group.leader();
      await leader.crash();
      await leader.start();
    }
  }
  await publishing;
  const { state } = await (await jetstreamManager(publisher)).streams.info("IN");
  const isDone = async () => {
    const rows = await query("SELECT done_to FROM hawser.stream_status").catch(() => []);
    return rows.length === names.length && rows.every(({ done_to }) => Number(done_to) >= state.last_seq);
  };
  await eventually("all are done", isDone, 60_000 + messages);
  // The subscription in order has no late row at all, the side-by-side one none within a subject.
  const found = await query(`
      SELECT name, count(*)::integer AS rows, count(DISTINCT id)::integer AS ids, count(*) FILTER (WHERE late)::integer AS late
        FROM (SELECT name, id, id < lag(id) OVER (PARTITION BY name, CASE name WHEN 'side-by-side' THEN subject END ORDER BY nth) AS late
                FROM landed) AS l
       GROUP BY name ORDER BY name`);
  const status = await query("SELECT missing::integer, problem FROM hawser.stream_status");
  console.log(
    `${kills} kills: ${state.messages} messages in the stream; ${found.map(({ name, rows, ids }) => `${name}: ${rows} rows, ${ids} different ones`).join("; ")}`,
  );
  const all = { rows: state.messages, ids: state.messages, late: 0 };
  expect(found).toEqual(names.map((name) => ({ name, ...all })));
  expect(status).toEqual(names.map(() => ({ missing: 0, problem: null })));
  await publisher.close();
});
