/**
 * A hostile pass over every SQL object, by one role. `hostile-objects.slow.test.ts` has that of each role;
 * `support/hostile/catalog.ts` says who may call what.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { longTest } from "../support/limits.js";
import { Canary } from "./support/hostile/canary.js";
import { functionsOf, objectsOf, surprises } from "./support/hostile/catalog.js";
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

  it("finds no object whose users nobody has decided on", async () => {
    const functions = await functionsOf(world.operator, world.logins);
    expect(functions.length).toBeGreaterThan(150);
    expect(surprises(functions, await objectsOf(world.operator, world.logins))).toEqual([]);
  });

  it("gains nothing by any function or table, ends nothing, and holds up no message of others", longTest, async () => {
    await expectNoGain(world, "hawser_bridge");
    await expectNobodyHeldUp(world, canary);
  });
});
