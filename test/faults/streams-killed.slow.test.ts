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

const kills = killsPerLoop(1);
const messages = Number(process.env["HAWSER_STREAM_MESSAGES"] ?? 50_000);

it.each([
  ["in order", ""],
  ["side by side", ", key_token => 2"],
])(
  `${messages} messages land once, %s, when serve, NATS and Postgres are killed ${kills} times (HAWSER_FAULT_SEED=${faultSeed})`,
  { timeout: loopTimeoutMs(kills) + messages },
  async (_, more) => {
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
    await query(`
      CREATE TABLE landed (nth bigserial, id integer, subject text);
      CREATE FUNCTION land(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS 'INSERT INTO public.landed (id, subject) SELECT convert_from(payload, ''UTF8'')::integer, subject';
      SELECT nats_subscribe_stream('IN', 'land', 'in'${more});`);
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
      // What is published while NATS is away is lost on its way: not before all of it has arrived.
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
    const position = async () =>
      Number((await query("SELECT done_to FROM hawser.stream_status").catch(() => []))[0]?.done_to ?? 0);
    await eventually("all are done", async () => (await position()) >= state.last_seq, 60_000 + messages);
    const [found] = await query(`
      SELECT count(*)::integer AS rows, count(DISTINCT id)::integer AS ids,
             (SELECT count(*)::integer FROM (SELECT id < lag(id) OVER (PARTITION BY subject ORDER BY nth) AS late FROM landed) AS l WHERE late) AS late
        FROM landed`);
    const [status] = await query("SELECT missing::integer, problem FROM hawser.stream_status");
    console.log(
      `${kills} kills: ${state.messages} messages in the stream, ${found.rows} rows, ${found.ids} different ones`,
    );
    expect({ ...found, ...status }).toEqual({
      rows: state.messages,
      ids: state.messages,
      late: 0,
      missing: 0,
      problem: null,
    });
    await publisher.close();
  },
);
