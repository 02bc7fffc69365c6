import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { runSeeds, simulations } from "./run.js";

/** From that seed on, everything that must happen is reached soon. */
const firstSeed = { channels: 5_519, outbox: 371, groups: 1, streams: 196, schedules: 1 };

/** Each with a rare event that the model of Postgres once got wrong, where the rules were right. */
const knownSeeds = {
  // A message and its copy under the sender's next epoch wait to be parked at the same time.
  channels: [7_095_561],
  // A role commits more than a page shortly before a message.
  outbox: [7_037_061],
  groups: [],
  streams: [],
  // Schedules are read less than a millisecond after an occurrence is as late as one may be that is not missed.
  schedules: [7_088_952, 7_142_227, 7_177_355],
};

describe.each(simulations)("the simulator of the $name", ({ name, world, mustHappen, mutants, seeds = 2_000 }) => {
  it("finds no broken rule, and reaches every fault and transition", () => {
    const enough = { count: atDepth(seeds), happened: mustHappen };
    const { failures, counts } = runSeeds(world, { first: firstSeed[name], count: seeds, maxFailures: 1, enough });
    expect(failures).toEqual([]);
    expect(mustHappen.filter((name) => !counts.values.has(name))).toEqual([]);
  });

  it.each(knownSeeds[name])("finds no broken rule with seed %i", (first) => {
    expect(runSeeds(world, { first, count: 1, maxFailures: 1 }).failures).toEqual([]);
  });

  it("does the same thing for the same seed", () => {
    const [one, other] = [1, 2].map(() => runSeeds(world, { first: 77, count: 5, maxFailures: 1 }).counts.values);
    expect(one).toEqual(other);
  });

  it.each(mutants)("catches a program that $name", (mutant) => {
    const { failures } = runSeeds(mutant.world, { first: mutant.firstSeed, count: mutant.seeds, maxFailures: 1 });
    expect(failures).toHaveLength(1);
  });
});
