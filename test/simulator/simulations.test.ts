import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { slowIt } from "../support/slow-it.js";
import { runSeeds } from "./simulation.js";
import { simulations } from "./simulations.js";

const timeout = 300_000;

describe.each(simulations)("the simulation of $name", (simulation) => {
  const { world, seeds, firstSeed, knownSeeds, mustHappen } = simulation;

  // `npm run simulate` does it with more seeds.
  slowIt("finds no broken rule, and reaches every fault and transition", { timeout }, async () => {
    const enough = { count: atDepth(seeds), happened: mustHappen };
    const { failures, counts } = await runSeeds(world, { first: firstSeed, count: seeds, enough });
    expect(failures).toEqual([]);
    expect(mustHappen.filter((each) => !counts.values.has(each))).toEqual([]);
  });

  it.each(knownSeeds)("finds no broken rule with seed %i", { timeout }, async (first) => {
    expect((await runSeeds(world, { first, count: 1 })).failures).toEqual([]);
  });

  it("finds no broken rule in some seeds, and does the same for the same one", { timeout }, async () => {
    const run = () => runSeeds(world, { first: 77, count: 5 });
    const { failures, counts } = await run();
    expect(failures).toEqual([]);
    expect((await run()).counts.values).toEqual(counts.values);
  });
});
