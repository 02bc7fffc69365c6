/**
 * The connection of the leader to NATS is cut while a function of its runs, and those of the other processes are not.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, testGateway } from "../support/gateway.js";
import { keptLog } from "./role/log.js";
import { silentNetwork } from "./support/silent-network.js";

it("runs nothing that came after the gap before what the next leader has of the gap", async () => {
  await using net = await silentNetwork(testNatsUrl());
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
  await using other = await Serve.start({
    databaseUrl: gateway.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
    logger,
  });
  await eventually("the other one receives", async () => {
    gateway.nats.publish(subject, "0");
    const metrics = await (await fetch(`http://${other.monitorAddress}/metrics`)).text();
    return /^hawser_bridge_messages_received_total\{.*\} [1-9]/m.test(metrics);
  });
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
  const leads = () => lines.filter(({ message }) => message === "leads the subscriptions").length;
  const sleeps = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
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
  const missing = `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT d.n FROM done AS d)`;
  expect(await count(missing)).toBe(0);
  const firstRuns = await gateway.value<number[]>(
    "SELECT array_agg(n ORDER BY at) FROM (SELECT n, min(at) AS at FROM done WHERE n > 0 GROUP BY n) AS f",
  );
  expect(firstRuns).toEqual(Array.from({ length: published }, (_, n) => n + 1));
});
