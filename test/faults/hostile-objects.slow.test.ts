/**
 * A hostile pass over every SQL object: each role calls each function, and writes to each table, with hostile arguments, while
 * messages of others flow.
 */
import { afterAll, beforeAll, describe, it } from "vitest";
import { Canary } from "./support/hostile/canary.js";
import { attackerRoles } from "./support/hostile/catalog.js";
import { expectNobodyHeldUp, expectNoGain } from "./support/hostile/roles.js";
import { HostileWorld } from "./support/hostile/world.js";

describe("a hostile role", () => {
  let world: HostileWorld;
  let canary: Canary;
  beforeAll(async () => {
    world = await HostileWorld.open();
    canary = await Canary.start(world, "fast");
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  it("gains nothing by any function or table, ends nothing, and holds up no message of others", {
    timeout: 1_800_000,
  }, async () => {
    for (const role of attackerRoles) await expectNoGain(world, role);
    await expectNobodyHeldUp(world, canary);
  });
});
