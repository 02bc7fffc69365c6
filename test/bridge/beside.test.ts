/**
 * Subscriptions beside one that takes all it can get: memory and sessions are shared.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    bufferBytes: 1_048_576,
    tuning: { savedBytes: 0 },
    sql: `
      CREATE TABLE got (n int);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')::int WHERE payload <> ''$$;
      CREATE FUNCTION slow(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1)';
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world.client.query("TRUNCATE got");
});

// The second leaves messages of its crowd behind, which take memory for as long as their function runs.
describe("a subscription whose function is too slow for its messages", { shuffle: false }, () => {
  it("does not take the memory of the others: they lose nothing", async () => {
    const [slow, quick] = [`${world.prefix}.slow`, `${world.prefix}.quick`];
    await world.subscribe(slow, "slow(bytea)");
    await world.subscribe(quick, "capture(bytea)");
    for (let n = 0; n < 100; n++) {
      // More than there is room for.
      for (let m = 0; m < 100; m++) world.nats.publish(slow, "x");
      world.nats.publish(quick, `${n}`);
      await world.nats.flush();
    }
    // What the slow one holds would take it far longer.
    await world.counts(100, "SELECT count(*) FROM got");
    expect(await world.value("SELECT array_agg(n ORDER BY n) FROM got")).toEqual(
      Array.from({ length: 100 }, (_, n) => n),
    );
    // What waits for it goes with it.
    await world.client.query("SELECT nats_unsubscribe($1, 'slow')", [slow]);
  });

  it("does not take the room of another role, however many subscriptions its own role has", async () => {
    const [crowd, alone] = [await world.user(), await world.user()];
    try {
      for (const { client, role } of [crowd, alone]) {
        await world.client.query(`GRANT INSERT ON got TO ${role}`);
        await client.query(`
          CREATE FUNCTION slow(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1)';
          CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
            AS $$INSERT INTO public.got SELECT convert_from(payload, 'UTF8')::int WHERE payload <> ''$$`);
      }
      for (let n = 0; n < 20; n++) {
        await crowd.client.query("SELECT nats_subscribe($1, 'slow')", [`${world.prefix}.crowd.${n}`]);
      }
      await alone.client.query("SELECT nats_subscribe($1, 'capture')", [`${world.prefix}.alone`]);
      await world.live(`${world.prefix}.crowd.19`);
      await world.live(`${world.prefix}.alone`);
      const blocker = await world.connect();
      await blocker.query("BEGIN; LOCK TABLE got IN SHARE MODE");
      const filler = "x".repeat(5_000);
      for (let n = 0; n < 300; n++) world.nats.publish(`${world.prefix}.crowd.0`, filler);
      for (let n = 0; n < 200; n++) world.nats.publish(`${world.prefix}.alone`, `${1_000 + n}`);
      await world.nats.flush();
      await eventually("the room is taken", () =>
        world.log.messages("error").some((line) => line.includes("discarded")),
      );
      await blocker.query("ROLLBACK");
      await blocker.end();
      const kept = "SELECT count(*) FROM got WHERE n >= 1000";
      await world.counts(200, kept);
    } finally {
      for (const { client } of [crowd, alone]) {
        await client
          .query("SELECT nats_unsubscribe(subject, callback::regprocedure) FROM pgnats.subscriptions")
          .catch(() => undefined);
      }
    }
  });
});
