import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { runSeeds, simulations } from "./run.js";

/** More than it takes to reach everything that must happen, from that seed on. */
const fewestSeeds = { channels: 1_600, outbox: 200, streams: 200 };
const firstSeed = { channels: 1_001, outbox: 1, streams: 1 };

describe.each(simulations)("the simulator of the $name", ({ name, world, mustHappen, mutants, seeds = 2_000 }) => {
  it("finds no broken rule, and reaches every fault and transition", () => {
    const count = Math.min(seeds, Math.max(fewestSeeds[name], atDepth(seeds)));
    const { failures, counts } = runSeeds(world, { first: firstSeed[name], count, maxFailures: 1 });
    expect(failures).toEqual([]);
    expect(mustHappen.filter((name) => !counts.values.has(name))).toEqual([]);
  });

  it("does the same thing for the same seed", () => {
    const [one, other] = [1, 2].map(() => runSeeds(world, { first: 77, count: 5, maxFailures: 1 }).counts.values);
    expect(one).toEqual(other);
  });

  // Those that show only in many seeds are tried at full depth.
  const tried = mutants.filter((mutant) => mutant.seeds <= atDepth(20_000));
  it.each(tried)("catches a program that $name", (mutant) => {
    const { failures } = runSeeds(mutant.world, { first: 1, count: mutant.seeds, maxFailures: 1 });
    expect(failures).toHaveLength(1);
  });
});
