/**
 * The connection to NATS is lost while messages wait for a slow function.
 */
import { it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { bridgeWorld } from "./support/bridge-world.js";

it.each([0, 10_000])("what was received is run all the same (takeoverBufferMs %i)", async (takeoverBufferMs) => {
  await using first = await startNatsServer();
  await using world = await bridgeWorld({
    natsUrl: first.url,
    takeoverBufferMs,
    sql: `
        CREATE TABLE done (n int);
        CREATE FUNCTION slow(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
          IF payload <> '' THEN
            PERFORM pg_sleep(0.1);
            INSERT INTO done SELECT convert_from(payload, 'UTF8')::int;
          END IF;
        END $$`,
  });
  await world.subscribe("blip", "slow(bytea)");
  for (let n = 1; n <= 50; n++) world.nats.publish("blip", `${n}`);
  await world.nats.flush();
  await eventually("some have run", async () => (await world.count("SELECT count(*) FROM done")) > 3);
  await first.kill();
  await first.restart();
  await eventually("all have run", async () => (await world.count("SELECT count(DISTINCT n) FROM done")) === 50);
});
