/**
 * The `hawser serve` that leads is killed, with several functions for one subject and little memory for messages: what is
 * kept for the takeover counts once, however many functions it is for.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { ServeGroup } from "./support/bridge-group.js";
import type { ServeProcess } from "./support/serve-process.js";
import { sqlDatabase } from "./support/sql-database.js";

const functions = 4;
const bufferBytes = 1_048_576;
const flags = ["--buffer-bytes", `${bufferBytes}`, "--monitor-listen", "127.0.0.1:0"];

const filler = randomBytes(400).toString("hex");

/** The sum of the series that match. */
async function metric({ log }: ServeProcess, series: RegExp): Promise<number> {
  const line = log.find(({ msg }) => msg === "metrics and health are served");
  const { port } = line!["address"] as { port: number };
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const lines = text.split("\n").filter((one) => series.test(one));
  return lines.reduce((sum, one) => sum + Number(one.split(" ").at(-1)), 0);
}

const kept = /^hawser_bridge_standby_buffer_bytes /;
const lost = /^hawser_bridge_messages_discarded_total\{/;

/** A database, functions for one subject, and two processes, of which the first one leads. */
async function world() {
  const database = await sqlDatabase(testNatsUrl());
  const client = new pg.Client(database.url);
  await client.connect();
  const nats = await connect({ servers: testNatsUrl() });
  const subject = `shared.${randomBytes(4).toString("hex")}`;
  await client.query("CREATE TABLE done (f int, n int)");
  for (let f = 1; f <= functions; f++) {
    await client.query(`CREATE FUNCTION f${f}(payload bytea) RETURNS void LANGUAGE sql AS $$
      INSERT INTO done SELECT ${f}, split_part(convert_from(payload, 'UTF8'), ' ', 1)::int$$`);
    await client.query("SELECT nats_subscribe($1, $2::regproc)", [subject, `f${f}`]);
  }
  const group = await ServeGroup.start(database.url, 2, flags);
  const leader = await group.leader();
  const [standby] = group.others as [ServeProcess];
  let published = 0;
  const publish = async (filler = ""): Promise<void> => {
    nats.publish(subject, `${++published} ${filler}`);
    await nats.flush();
  };
  const count = async (sql: string): Promise<number> => Number(Object.values((await client.query(sql)).rows[0])[0]);
  await eventually("both receive", async () => {
    await publish();
    return (await metric(standby, kept)) > 0 && (await count("SELECT count(DISTINCT f) FROM done")) === functions;
  });
  return {
    ...{ url: database.url, count, leader, standby, publish },
    get published() {
      return published;
    },
    missing: () =>
      count(`
        SELECT count(*) FROM generate_series(1, ${published}) AS number, generate_series(1, ${functions}) AS function
         WHERE NOT EXISTS (SELECT FROM done AS d WHERE d.n = number AND d.f = function)`),
    leads: () =>
      eventually("the other one leads", async () => (await metric(standby, /^hawser_bridge_leading /)) === 1),
    async [Symbol.asyncDispose]() {
      await group[Symbol.asyncDispose]();
      await nats.close();
      await client.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

it("loses nothing as long as what is kept has room", { timeout: 180_000 }, async () => {
  await using shared = await world();
  // Counted for each function it would be more than there is room for.
  await eventually("the other one has kept a third of what it may", async () => {
    for (let n = 0; n < 3; n++) await shared.publish(filler);
    await delay(5);
    return (await metric(shared.standby, kept)) > bufferBytes / 3;
  });
  let isOver = false;
  const publishing = (async () => {
    while (!isOver) {
      await shared.publish();
      await delay(10);
    }
  })();
  shared.leader.signal("SIGKILL");
  await shared.leads();
  const taken = shared.published;
  await eventually("more has come", () => shared.published > taken + 50);
  isOver = true;
  await publishing;
  await eventually("nothing is missing", async () => (await shared.missing()) === 0, 60_000);
  expect(await metric(shared.standby, lost)).toBe(0);
});

it("counts what is missing when there is no room, before the takeover and after it", { timeout: 180_000 }, async () => {
  await using shared = await world();
  const blocker = new pg.Client(shared.url);
  await blocker.connect();
  await eventually("all is done", async () => (await shared.missing()) === 0);
  const before = shared.published;
  await blocker.query("BEGIN; LOCK TABLE done IN SHARE MODE");
  for (let n = 0; n < 1_500; n++) await shared.publish(filler);
  shared.leader.signal("SIGKILL");
  await shared.leads();
  for (let n = 0; n < 500; n++) await shared.publish(filler);
  await blocker.query("ROLLBACK");
  await blocker.end();
  // What comes last finds room again, and is run after all that was kept.
  const last = shared.published;
  await eventually("it goes on", async () => {
    await shared.publish();
    return (await shared.count(`SELECT count(DISTINCT f) FROM done WHERE n > ${last}`)) === functions;
  });
  const end = shared.published;
  await eventually("the last one has run", async () => {
    return (await shared.count(`SELECT count(*) FROM done WHERE n = ${end}`)) === functions;
  });
  const told = await metric(shared.standby, lost);
  const missing = await shared.missing();
  expect(missing).toBeGreaterThan(functions * 500);
  // What was there before was done by the leader, which the other one cannot know of the last seconds.
  expect(told).toBeGreaterThanOrEqual(missing);
  expect(told).toBeLessThanOrEqual(missing + functions * before);
});
