/**
 * The leader ends while a function takes its time, and its connection to NATS is dead or cut: the next leader has what it
 * has not done, and nothing is run in another order. The tests wait most of the time, so that they run side by side.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../src/nats/serve/index.js";
import { login } from "../installation/support/logins.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, testGateway } from "../support/gateway.js";
import { keptLog } from "./role/log.js";
import { bridgeWorld } from "./support/bridge-world.js";
import { lossyNetwork } from "./support/lossy-network.js";

const takesTime = `
  CREATE TABLE done (n int);
  CREATE FUNCTION take_time(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF payload = 'slow' THEN
      PERFORM pg_sleep(3);
    ELSIF payload <> '' THEN
      INSERT INTO done SELECT convert_from(payload, 'UTF8')::int;
    END IF;
  END $$;
`;

/** Asks until another process receives what comes on its own. */
const receives = (serve: HawserServer, publish: () => void) =>
  eventually("the other one receives", async () => {
    publish();
    const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
    return /^hawser_bridge_messages_received_total\{.*\} [1-9]/m.test(metrics);
  });

const missing = (published: number) =>
  `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT d.n FROM done AS d)`;

describe.concurrent("a leader", () => {
  it("that ends loses nothing of what arrives while its last function still runs", async () => {
    await using world = await bridgeWorld({ sql: takesTime });
    await using _other = await startServer({ databaseUrl: world.database.url, listen: "127.0.0.1:0" });
    const subject = `${world.prefix}.slow`;
    await world.subscribe(subject, "take_time(bytea)");
    // Both know what the leader has done.
    const beat = await world.count("SELECT beat FROM hawser.bridge_lead");
    await eventually("the leader has said what it has done", async () => {
      return (await world.count("SELECT beat FROM hawser.bridge_lead")) > beat + 4;
    });
    world.nats.publish(subject, "slow");
    await world.nats.flush();
    await eventually("the function runs", async () => {
      return (
        (await world.count(
          "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        )) === 1
      );
    });
    let published = 0;
    let hasEnded = false;
    const ended = world.serve.stop().then(() => {
      hasEnded = true;
    });
    while (!hasEnded) {
      for (let n = 0; n < 5; n++) world.nats.publish(subject, `${++published}`);
      await world.nats.flush();
      await delay(20);
    }
    await ended;
    await eventually("another one leads, and has run the last one", async () => {
      return (await world.count(`SELECT count(*) FROM done WHERE n = ${published}`)) > 0;
    });
    expect(published).toBeGreaterThan(20);
    expect(await world.count(missing(published))).toBe(0);
  });

  it("whose executor login is refused hands over to a process whose own works", async () => {
    await using world = await bridgeWorld({ sql: takesTime });
    const subject = `${world.prefix}.refused`;
    await world.subscribe(subject, "take_time(bytea)");
    await using able = await login(world.database.url, "IN ROLE hawser_executor");
    await using other = await startServer({
      databaseUrl: world.database.url,
      executorUrl: able.url,
      listen: "127.0.0.1:0",
      monitor: "127.0.0.1:0",
    });
    const canLead = "SELECT count(*) FROM hawser_bridge_data.gateways WHERE can_lead";
    await world.counts(2, canLead);
    const refused = await world.value<string>("SELECT quote_ident(user_name) FROM hawser_bridge_data.executor_login");
    await world.client.query(`ALTER ROLE ${refused} NOLOGIN`);
    await world.client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", [refused]);
    world.nats.publish(subject, "1");
    await world.counts(1, "SELECT count(*) FROM done");
    const metrics = await (await fetch(`http://${other.monitorAddress}/metrics`)).text();
    expect(metrics).toMatch(/^hawser_bridge_leading\{.*\} 1$/m);
    const line = world.log.lines.find(({ message }) => message === "is no longer the leader of the subscriptions");
    expect(line?.details).toMatchObject({ reason: expect.stringMatching(/^the executor's login is refused here/) });
  });

  it("with a dead connection: messages that it does not receive count as unfinished, and the next leader has them", async () => {
    await using net = await lossyNetwork(testNatsUrl());
    await using gateway = await testGateway({ serverOptions: false });
    await gateway.client.query(`
      CREATE TABLE done (n int);
      CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE sql AS $$
        INSERT INTO done SELECT convert_from(payload, 'UTF8')::int $$;
      SELECT nats_subscribe('half.open.${gateway.database.name}', 'note')`);
    await defineServer(gateway.client, net.url);
    const subject = `half.open.${gateway.database.name}`;
    const count = async (sql: string): Promise<number> => Number(await gateway.value(sql));
    await eventually("it leads", async () => (await count("SELECT epoch FROM hawser.bridge_lead")) > 0);
    await eventually("it is subscribed", async () => {
      gateway.nats.publish(subject, "0");
      return (await count("SELECT count(*) FROM done")) > 0;
    });
    net.freeze();
    await using other = await startServer({
      databaseUrl: gateway.database.url,
      listen: "127.0.0.1:0",
      monitor: "127.0.0.1:0",
    });
    await receives(other, () => gateway.nats.publish(subject, "0"));
    const beats = await count("SELECT beat FROM hawser.bridge_lead");
    let published = 0;
    await eventually("the leader has said several times what it has done", async () => {
      gateway.nats.publish(subject, `${++published}`);
      await gateway.nats.flush();
      return (await count("SELECT beat FROM hawser.bridge_lead")) > beats + 4;
    });
    await gateway.serve.stop();
    gateway.nats.publish(subject, `${++published}`);
    await eventually("another one leads, and has run the last one", async () => {
      return (await count(`SELECT count(*) FROM done WHERE n = ${published}`)) > 0;
    });
    expect(published).toBeGreaterThan(20);
    expect(await count(missing(published))).toBe(0);
  });

  it("whose connection was lost runs nothing from after the gap before the next leader has run the gap", async () => {
    await using net = await lossyNetwork(testNatsUrl());
    const { logger, lines } = keptLog();
    await using gateway = await testGateway({ serverOptions: false, logger });
    const subject = `leader.cut.${gateway.database.name}`;
    await gateway.client.query(`
      CREATE TABLE done (at bigserial, n int);
      CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE sql AS $$
        INSERT INTO done (n) SELECT p.n FROM (SELECT convert_from(payload, 'UTF8')::int AS n) AS p,
                                             pg_sleep(CASE WHEN p.n > 0 AND p.n % 500 = 0 THEN 0.4 ELSE 0 END)$$`);
    await gateway.client.query("SELECT nats_subscribe($1, 'note')", [subject]);
    await defineServer(gateway.client, net.url);
    const count = async (sql: string): Promise<number> => Number(await gateway.value(sql));
    await eventually("it is subscribed", async () => {
      gateway.nats.publish(subject, "0");
      return (await count("SELECT count(*) FROM done")) > 0;
    });
    await using other = await startServer({
      databaseUrl: gateway.database.url,
      listen: "127.0.0.1:0",
      monitor: "127.0.0.1:0",
      logger,
    });
    await receives(other, () => gateway.nats.publish(subject, "0"));
    // It knows what the leader has done, and takes over as soon as that one gives the lead back.
    const beats = () => count("SELECT beat FROM hawser.bridge_lead");
    const before = await beats();
    await eventually("the leader has said so several times", async () => (await beats()) > before + 3);
    let published = 0;
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) {
        for (let n = 0; n < 3; n++) gateway.nats.publish(subject, `${++published}`);
        await gateway.nats.flush();
        await delay(10);
      }
    })();
    const leads = () => lines.filter(({ message }) => message === "became the leader of the subscriptions").length;
    const sleeps =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    await eventually("the slow one runs", async () => (await count(sleeps)) > 0, 60_000);
    const terms = leads();
    expect(net.cut("hawser subscriptions")).toBe(true);
    await eventually("somebody leads after it", () => leads() > terms);
    isOver = true;
    await publishing;
    await eventually("the last one has run", async () => {
      return (await count(`SELECT count(*) FROM done WHERE n = ${published}`)) > 0;
    });
    expect(published).toBeGreaterThan(500);
    expect(await count(missing(published))).toBe(0);
    const firstRuns = await gateway.value<number[]>(
      "SELECT array_agg(n ORDER BY at) FROM (SELECT n, min(at) AS at FROM done WHERE n > 0 GROUP BY n) AS f",
    );
    expect(firstRuns).toEqual(Array.from({ length: published }, (_, n) => n + 1));
  });
});
