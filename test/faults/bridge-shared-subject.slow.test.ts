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
import { patienceMs } from "./support/kills.js";
import type { ServeProcess } from "./support/serve-process.js";
import { sqlDatabase } from "./support/sql-database.js";

const functions = 4;
const bufferBytes = 1_048_576;
const filler = randomBytes(400).toString("hex");

/** The sum of the series that match. */
async function metric({ log }: ServeProcess, series: RegExp): Promise<number> {
  const line = log.find(({ msg }) => msg === "serving metrics and health");
  const { port } = line!["address"] as { port: number };
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const lines = text.split("\n").filter((one) => series.test(one));
  return lines.reduce((sum, one) => sum + Number(one.split(" ").at(-1)), 0);
}

const kept = /^hawser_bridge_standby_buffer_bytes\{/;
const lost = /^hawser_bridge_messages_discarded_total\{/;

it("loses nothing as long as what is kept has room", { timeout: patienceMs }, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  const client = new pg.Client(database.url);
  await client.connect();
  const nats = await connect({ servers: testNatsUrl() });
  try {
    const subject = `shared.${randomBytes(4).toString("hex")}`;
    await client.query("CREATE TABLE done (f int, n int)");
    for (let f = 1; f <= functions; f++) {
      await client.query(`CREATE FUNCTION f${f}(payload bytea) RETURNS void LANGUAGE sql AS $$
        INSERT INTO done SELECT ${f}, split_part(convert_from(payload, 'UTF8'), ' ', 1)::int$$`);
      await client.query("SELECT nats_subscribe($1, $2::regproc)", [subject, `f${f}`]);
    }
    const flags = ["--buffer", `${bufferBytes}B`, "--monitor", "127.0.0.1:0"];
    await using group = await ServeGroup.start(database.url, 2, flags);
    const leader = await group.leader();
    const [standby] = group.others as [ServeProcess];
    const count = async (sql: string): Promise<number> => Number(Object.values((await client.query(sql)).rows[0])[0]);
    let published = 0;
    const publish = async (more = ""): Promise<void> => {
      nats.publish(subject, `${++published} ${more}`);
      await nats.flush();
    };
    await eventually("both receive", async () => {
      await publish();
      return (await metric(standby, kept)) > 0 && (await count("SELECT count(DISTINCT f) FROM done")) === functions;
    });
    // Counted for each function it would be more than there is room for.
    await eventually("the other one has kept a third of what it may", async () => {
      for (let n = 0; n < 3; n++) await publish(filler);
      await delay(5);
      return (await metric(standby, kept)) > bufferBytes / 3;
    });
    leader.signal("SIGKILL");
    await eventually("the other one leads", async () => {
      await publish();
      return (await metric(standby, /^hawser_bridge_leading\{/)) === 1;
    });
    for (let n = 0; n < 50; n++) await publish();
    const missing = `
      SELECT count(*) FROM generate_series(1, ${published}) AS number, generate_series(1, ${functions}) AS function
       WHERE NOT EXISTS (SELECT FROM done AS d WHERE d.n = number AND d.f = function)`;
    await eventually("nothing is missing", async () => (await count(missing)) === 0, 60_000);
    expect(await metric(standby, lost)).toBe(0);
  } finally {
    await nats.close();
    await client.end();
  }
});
