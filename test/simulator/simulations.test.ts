import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { runSeeds } from "./simulation.js";
import { simulations } from "./simulations.js";

const timeout = 300_000;

describe.each(simulations)("the simulation of $name", (simulation) => {
  const { world, seeds, firstSeed, knownSeeds, mustHappen } = simulation;

  it("finds no broken rule, and reaches every fault and transition", { timeout }, async () => {
    const enough = { count: atDepth(seeds), happened: mustHappen };
    const { failures, counts } = await runSeeds(world, { first: firstSeed, count: seeds, enough });
    expect(failures).toEqual([]);
    expect(mustHappen.filter((each) => !counts.values.has(each))).toEqual([]);
  });

  it.each(knownSeeds)("finds no broken rule with seed %i", { timeout }, async (first) => {
    expect((await runSeeds(world, { first, count: 1 })).failures).toEqual([]);
  });

  it("does the same thing for the same seed", { timeout }, async () => {
    const run = async () => (await runSeeds(world, { first: 77, count: 5 })).counts.values;
    expect(await run()).toEqual(await run());
  });
});
