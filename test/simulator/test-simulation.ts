import { describe, expect, it } from "vitest";
import { atDepth } from "../support/depth.js";
import { runSeeds, type Simulation } from "./simulation.js";

const timeout = 300_000;

/** Tests that a simulation finds nothing, reaches everything, and catches its mutants. */
export function testSimulation(simulation: Simulation): void {
  const { name, world, seeds, firstSeed, knownSeeds, mustHappen, mutants } = simulation;

  describe(`the simulation of ${name}`, { timeout }, () => {
    it("finds no broken rule, and reaches every fault and transition", async () => {
      const enough = { count: atDepth(seeds), happened: mustHappen };
      const { failures, counts } = await runSeeds(world, { first: firstSeed, count: seeds, enough });
      expect(failures).toEqual([]);
      expect(mustHappen.filter((each) => !counts.values.has(each))).toEqual([]);
    });

    it.each(knownSeeds)("finds no broken rule with seed %i", async (first) => {
      expect((await runSeeds(world, { first, count: 1 })).failures).toEqual([]);
    });

    it("does the same thing for the same seed", async () => {
      const run = async () => (await runSeeds(world, { first: 77, count: 5 })).counts.values;
      expect(await run()).toEqual(await run());
    });

    it.each(mutants)("catches a mutant: $name", async ({ world, firstSeed, seeds, says }) => {
      const { failures } = await runSeeds(world, { first: firstSeed, count: seeds });
      expect(failures).toHaveLength(1);
      expect(failures[0]!.message).toMatch(says);
    });
  });
}
