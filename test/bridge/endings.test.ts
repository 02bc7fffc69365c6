/**
 * A connection to NATS, a leader or a process ends: what was received is run all the same, what is missing is told, and
 * nothing that is silent keeps anybody waiting. The tests wait most of the time, so that they run side by side.
 */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { natsDatabase } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { slowDescribe, slowIt } from "../support/slow-it.js";
import { noTimersAbove } from "../support/timers.js";
import { keptLog } from "./role/log.js";
import { bridgeWorld } from "./support/bridge-world.js";
import { lossyNetwork } from "./support/lossy-network.js";

const nothing = "CREATE FUNCTION nothing(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'";
const stopTimeoutMs = 500;
/** Timers that are set for longer are not the reserve of a stop, and not its deadline. */
const longestMs = 1_000;

describe.concurrent("hawser serve whose connection to NATS is lost while messages wait for a slow function", () => {
  it.each([0, 10_000].slice(0, atDepth(10)))(
    "what was received is run all the same, takeoverBufferMs %i",
    async (takeoverBufferMs) => {
      await using first = await startNatsServer();
      await using world = await bridgeWorld({
        natsUrl: first.url,
        tuning: { takeoverBufferMs },
        sql: `
          CREATE TABLE done (n int);
          CREATE FUNCTION slow(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
          BEGIN
            IF payload <> '' THEN
              PERFORM pg_sleep(0.05);
              INSERT INTO done SELECT convert_from(payload, 'UTF8')::int;
            END IF;
          END $$`,
      });
      await world.subscribe("blip", "slow(bytea)");
      for (let n = 1; n <= 20; n++) world.nats.publish("blip", `${n}`);
      await world.nats.flush();
      await eventually("some have run", async () => (await world.count("SELECT count(*) FROM done")) > 3);
      await first.kill();
      await first.restart();
      await world.counts(20, "SELECT count(DISTINCT n) FROM done");
    },
  );
});

slowDescribe.concurrent("`hawser serve` that is told to stop", () => {
  it("runs all that it has received, if the functions call its gateway", async () => {
    await using world = await bridgeWorld({
      stopTimeoutMs: 60_000,
      sql: `
        CREATE TABLE done (n int);
        CREATE FUNCTION pass_on(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
          IF payload = '' THEN RETURN; END IF;
          PERFORM nats_publish_text('stop.passed.on', convert_from(payload, 'UTF8'));
          PERFORM pg_sleep(0.002);
          INSERT INTO done SELECT convert_from(payload, 'UTF8')::int;
        END $$`,
    });
    const subject = `${world.prefix}.work`;
    await world.subscribe(subject, "pass_on(bytea)");
    const published = 50;
    for (let n = 1; n <= published; n++) world.nats.publish(subject, `${n}`);
    await world.nats.flush();
    await eventually("some are done", async () => (await world.count("SELECT count(*) FROM done")) > 0);
    await world.serve.stop();
    expect(await world.count("SELECT count(DISTINCT n) FROM done")).toBe(published);
  });

  it("while it starts ends at once, though Postgres keeps it waiting, and leaves no session behind", async () => {
    await using gateway = await natsDatabase();
    const { database } = gateway;
    const holder = await gateway.connect();
    await holder.query("BEGIN");
    await holder.query("LOCK TABLE hawser_bridge_data.executor_login IN ACCESS EXCLUSIVE MODE");
    const waiting = `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database()
      AND application_name = 'hawser serve: bridge' AND wait_event_type = 'Lock'`;
    const isWaiting = async () => (await gateway.value<number>(waiting)) > 0;
    const controller = new AbortController();
    const started = startServer({
      databaseUrl: database.url,
      listen: "127.0.0.1:0",
      signal: controller.signal,
    }).catch((error: unknown) => error);
    await eventually("the bridge waits", isWaiting);
    controller.abort(new Error("told to stop"));
    expect(await started).toEqual(new Error("told to stop"));
    await holder.query("ROLLBACK");
    await holder.end();
    await eventually("all sessions have ended", async () => {
      const open = `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'hawser serve%'`;
      return (await gateway.value<number>(open)) === 0;
    });
  });
});

describe("`hawser serve` that is told to stop where NATS is silent", () => {
  it("ends in time if the NATS server hangs", async () => {
    await using server = await startNatsServer();
    await using world = await bridgeWorld({ natsUrl: server.url, stopTimeoutMs, sql: nothing });
    await world.subscribe(`${world.prefix}.a`, "nothing(bytea)");
    server.signal("SIGSTOP");
    noTimersAbove(longestMs);
    await world.serve.stop();
    server.signal("SIGCONT");
  });

  slowIt("follows what is subscribed, and ends in time, if the connection of responders alone is silent", async () => {
    await using network = await lossyNetwork(testNatsUrl());
    await using world = await bridgeWorld({ natsUrl: network.url, stopTimeoutMs, sql: nothing });
    await world.subscribe(`${world.prefix}.a`, "nothing(bytea)");
    expect(network.freeze("hawser responders")).toBe(1);
    for (const name of ["b", "c"]) {
      await world.client.query("SELECT nats_subscribe($1, 'nothing')", [`${world.prefix}.${name}`]);
      await eventually(`${name} is live`, () => world.hears(`${world.prefix}.${name}`));
    }
    noTimersAbove(longestMs);
    await world.serve.stop();
  });
});

/** The value of a series, summed up. */
async function metric(serve: HawserServer, series: RegExp): Promise<number> {
  const text = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  return text
    .split("\n")
    .filter((line) => series.test(line))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const missingSeries = /^hawser_bridge_messages_discarded_total\{reason="standby_buffer_full"/;
const discardedSeries = /^hawser_bridge_messages_discarded_total\{reason="buffer_full"/;

slowDescribe.concurrent("a process that takes over without room for all that the leader has not done", () => {
  it("counts what it would have run but could not keep, and nothing before it leads", async () => {
    await using world = await bridgeWorld({
      stopTimeoutMs: 100,
      sql: `
        CREATE TABLE got (n int);
        CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$
          INSERT INTO got SELECT split_part(convert_from(payload, 'UTF8'), ' ', 1)::int WHERE payload <> ''$$;
      `,
    });
    const messages = 250;
    const [subject, ended] = [`${world.prefix}.x`, `${world.prefix}.ended`];
    await world.subscribe(subject, "capture(bytea)");
    await world.subscribe(ended, "capture(bytea)");
    const { logger, lines } = keptLog();
    await using other = await startServer({
      databaseUrl: world.database.url,
      listen: "127.0.0.1:0",
      monitor: "127.0.0.1:0",
      // The least that there may be: a quarter of what comes.
      bufferBytes: 1_048_576,
      logger,
    });
    const received = () => metric(other, /^hawser_bridge_messages_received_total\{/);
    await eventually("the other one receives", async () => {
      world.nats.publish(subject, "");
      return (await received()) > 0;
    });
    // What was done long before is not missed after a clean end, though there was no room for it.
    const filler = randomBytes(8_000).toString("hex");
    for (let n = 1; n <= 100; n++) world.nats.publish(subject, `0 ${filler}`);
    await world.counts(100, "SELECT count(*) FROM got");
    const beats = () => world.count("SELECT beat FROM hawser.bridge_lead");
    const before = await beats();
    await eventually("the leader has said so several times", async () => (await beats()) > before + 3);

    const blocker = await world.connect();
    // Nor can the leader save what it has not run.
    await blocker.query("BEGIN; LOCK TABLE got IN SHARE MODE; LOCK TABLE hawser_bridge_data.saved_messages");
    const receivedBefore = await received();
    for (let n = 1; n <= messages; n++) {
      world.nats.publish(subject, `${n} ${filler}`);
      // Of a subscription that is ended before the takeover nothing is missed.
      if (n % 10 === 0) world.nats.publish(ended, `0 ${filler}`);
    }
    await eventually("the other one has received all", async () => {
      return (await received()) === receivedBefore + messages + messages / 10;
    });
    await world.client.query("SELECT nats_unsubscribe($1, 'capture')", [ended]);
    expect(await metric(other, missingSeries)).toBe(0);
    await world.serve.stop();
    await eventually("the other one leads", async () => (await metric(other, /^hawser_bridge_leading\{/)) === 1);
    // Its last statement, which still waits for the lock, ends with the process.
    await blocker.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'INSERT INTO hawser_bridge_data.saved_messages%'",
    );
    await blocker.query("ROLLBACK");
    await blocker.end();
    const numbers = "SELECT count(DISTINCT n) FROM got WHERE n > 0";
    await eventually("it has begun", async () => (await metric(other, missingSeries)) > 0);
    const missing = await metric(other, missingSeries);
    await eventually("the rest is there", async () => (await world.count(numbers)) === messages - missing);
    // About three quarters.
    expect(missing).toBeGreaterThan(messages / 2);
    expect(await metric(other, discardedSeries)).toBe(0);
    const rest = await world.value<number[]>("SELECT array_agg(DISTINCT n ORDER BY n) FROM got WHERE n > 0");
    expect(rest).toEqual(Array.from({ length: messages - missing }, (_, n) => missing + 1 + n));
    const told = lines.filter(({ message }) => message.includes("are missing"));
    expect(told).toMatchObject([{ level: "warn", details: { bySubject: { [subject]: missing } } }]);
  });
});
