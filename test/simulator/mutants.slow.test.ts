import { describe, expect, it } from "vitest";
import { runSeeds } from "./simulation.js";
import { simulations } from "./simulations.js";

describe.each(simulations)("the simulation of $name", ({ mutants }) => {
  it.each(mutants)("catches a mutant: $name", { timeout: 300_000 }, async ({ world, firstSeed, seeds, says }) => {
    const { failures } = await runSeeds(world, { first: firstSeed, count: seeds });
    expect(failures).toHaveLength(1);
    expect(failures[0]!.message).toMatch(says);
  });
});
