/**
 * A leader that ends while a function takes its time: it does not receive any more, and others have what arrives meanwhile.
 */
import { expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { eventually } from "../support/eventually.js";
import { bridgeWorld } from "./support/bridge-world.js";

const sql = `
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

it("loses nothing of what arrives while the last function of the leader that ends still runs", async () => {
  await using world = await bridgeWorld({ sql });
  await using _other = await Serve.start({ databaseUrl: world.database.url, gatewayListen: "127.0.0.1:0" });
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
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await ended;
  await eventually("another one leads, and has run the last one", async () => {
    return (await world.count(`SELECT count(*) FROM done WHERE n = ${published}`)) > 0;
  });
  const missing = `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT d.n FROM done AS d)`;
  expect(published).toBeGreaterThan(20);
  expect(await world.count(missing)).toBe(0);
});
