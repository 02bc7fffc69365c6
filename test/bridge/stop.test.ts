/**
 * `hawser serve` ends: what it has received is run, and nothing that is silent keeps it longer than its deadline.
 */
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { bridgeWorld } from "./support/bridge-world.js";
import { silentNetwork } from "./support/silent-network.js";

const nothing = "CREATE FUNCTION nothing(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'";
const stopDeadlineMs = 2_000;
/** What closing may take beyond: the reserve of a stop, and other work of the machine. */
const slackMs = 3_000;

it("runs all that it has received, where the functions call its gateway", async () => {
  await using world = await bridgeWorld({
    stopDeadlineMs: 60_000,
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
  const published = 500;
  for (let n = 1; n <= published; n++) world.nats.publish(subject, `${n}`);
  await world.nats.flush();
  await eventually("some are done", async () => (await world.count("SELECT count(*) FROM done")) > 0);
  await world.serve.stop();
  expect(await world.count("SELECT count(DISTINCT n) FROM done")).toBe(published);
});

it("ends in time where the NATS server hangs", async () => {
  await using server = await startNatsServer();
  await using world = await bridgeWorld({ natsUrl: server.url, stopDeadlineMs, sql: nothing });
  await world.subscribe(`${world.prefix}.a`, "nothing(bytea)");
  server.signal("SIGSTOP");
  const begun = performance.now();
  await world.serve.stop();
  expect(performance.now() - begun).toBeLessThan(stopDeadlineMs + slackMs);
  server.signal("SIGCONT");
});

it("follows what is subscribed, and ends in time, where the connection of responders alone is silent", async () => {
  await using network = await silentNetwork(testNatsUrl());
  await using world = await bridgeWorld({ natsUrl: network.url, stopDeadlineMs, sql: nothing });
  await world.subscribe(`${world.prefix}.a`, "nothing(bytea)");
  expect(network.freeze("hawser responders")).toBe(1);
  for (const name of ["b", "c"]) {
    await world.client.query("SELECT nats_subscribe($1, 'nothing')", [`${world.prefix}.${name}`]);
    // Nobody notices a silent connection as soon as that.
    await eventually(`${name} is live`, () => world.hears(`${world.prefix}.${name}`), 10_000);
  }
  const begun = performance.now();
  await world.serve.stop();
  expect(performance.now() - begun).toBeLessThan(stopDeadlineMs + slackMs);
});
