/**
 * Subscriptions beside one that takes all it can get: memory and sessions are shared.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    bufferBytes: 1_048_576,
    sql: `
      CREATE TABLE got (n int);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')::int WHERE payload <> ''$$;
      CREATE FUNCTION slow(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1)';
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

describe("a subscription whose function is too slow for its messages", () => {
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
    await eventually(
      "all of the others are there",
      async () => (await world.count("SELECT count(*) FROM got")) === 100,
    );
    expect(await world.value("SELECT array_agg(n ORDER BY n) FROM got")).toEqual(
      Array.from({ length: 100 }, (_, n) => n),
    );
  });
});
