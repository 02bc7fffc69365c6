/**
 * A process takes over that had no room for all that the leader has not done: what is missing is counted, and told.
 */
import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { eventually } from "../support/eventually.js";
import { keptLog } from "./role/log.js";
import { bridgeWorld } from "./support/bridge-world.js";

const messages = 5_000;

/** The value of a series, summed up. */
async function metric(serve: Serve, series: RegExp): Promise<number> {
  const text = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  return text
    .split("\n")
    .filter((line) => series.test(line))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const missingSeries = /^hawser_bridge_messages_discarded_total\{reason="standby_buffer_full"\}/;
const discardedSeries = /^hawser_bridge_messages_discarded_total\{reason="buffer_full"\}/;

it("counts what it would have run and had no room for, and nothing before it leads", async () => {
  await using world = await bridgeWorld({
    stopDeadlineMs: 100,
    sql: `
      CREATE TABLE got (n int);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$
        INSERT INTO got SELECT split_part(convert_from(payload, 'UTF8'), ' ', 1)::int WHERE payload <> ''$$;
    `,
  });
  const [subject, ended] = [`${world.prefix}.x`, `${world.prefix}.ended`];
  await world.subscribe(subject, "capture(bytea)");
  await world.subscribe(ended, "capture(bytea)");
  const { logger, lines } = keptLog();
  await using other = await Serve.start({
    databaseUrl: world.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
    // The least that there may be: a fifth of what comes.
    bufferBytes: 1_048_576,
    logger,
  });
  const received = () => metric(other, /^hawser_bridge_messages_received_total\{/);
  await eventually("the other one receives", async () => {
    world.nats.publish(subject, "");
    return (await received()) > 0;
  });
  // What was done long before is not missed after a clean end, though there was no room for it.
  const filler = randomBytes(400).toString("hex");
  for (let n = 1; n <= 2_000; n++) world.nats.publish(subject, `0 ${filler}`);
  await eventually("these are done", async () => (await world.count("SELECT count(*) FROM got")) === 2_000);
  const beats = () => world.count("SELECT beat FROM hawser.bridge_lead");
  const before = await beats();
  await eventually("the leader has said so several times", async () => (await beats()) > before + 3);

  const blocker = await world.connect();
  await blocker.query("BEGIN; LOCK TABLE got IN SHARE MODE");
  const receivedBefore = await received();
  for (let n = 1; n <= messages; n++) {
    world.nats.publish(subject, `${n} ${filler}`);
    // Of a subscription that is ended before the takeover nothing is missed.
    if (n % 10 === 0) world.nats.publish(ended, `0 ${filler}`);
  }
  await eventually("the other one has received all", async () => {
    return (await received()) === receivedBefore + messages * 1.1;
  });
  await world.client.query("SELECT nats_unsubscribe($1, 'capture')", [ended]);
  expect(await metric(other, missingSeries)).toBe(0);
  await world.serve.stop();
  await eventually("the other one leads", async () => (await metric(other, /^hawser_bridge_leading /)) === 1);
  await blocker.query("ROLLBACK");
  await blocker.end();
  const numbers = "SELECT count(DISTINCT n) FROM got WHERE n > 0";
  const missing = await metric(other, missingSeries);
  await eventually("the rest is there", async () => (await world.count(numbers)) === messages - missing);
  // About four fifths.
  expect(missing).toBeGreaterThan(messages / 2);
  expect(await metric(other, discardedSeries)).toBe(0);
  const rest = await world.value<number[]>("SELECT array_agg(DISTINCT n ORDER BY n) FROM got WHERE n > 0");
  expect(rest).toEqual(Array.from({ length: messages - missing }, (_, n) => missing + 1 + n));
  const told = lines.filter(({ message }) => message.includes("are missing"));
  expect(told).toMatchObject([{ level: "warn", details: { bySubject: { [subject]: missing } } }]);
});
