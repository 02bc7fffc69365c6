/**
 * The simulation of leading and taking over: clean as the rules are, and able to fail.
 */
import { describe, expect, it } from "vitest";
import { atDepth } from "../../../support/depth.js";
import { mutants } from "./mutants.js";
import { type ProfileName, profiles } from "./profiles.js";
import { runSeeds } from "./run.js";

const mustHappen = [
  ...["kill", "stall", "session", "restart", "failover", "clean stop", "start", "refused login"].map(
    (fault) => `fault: ${fault}`,
  ),
  ...["free", "own", "silent"].map((how) => `taken: ${how}`),
  "leading",
  "deposed",
  "waiting",
  "released",
  "fence waited for",
  "batch refused",
  "batch failed",
  "batch ended by the next leader",
  "statement that lands late",
  "takeover watched",
  "gave way",
  "done again",
  "told behind",
  "saved by one that waited",
  "saved beside one that ends",
  "all have left",
];

describe("the simulation", () => {
  it("finds nothing, and reaches everything", { timeout: 300_000 }, async () => {
    const missing = new Set(mustHappen);
    // Once everything has happened, a few seeds of each are enough.
    for (let seed = 1; seed <= atDepth(40) || (missing.size > 0 && seed <= 40); seed++) {
      for (const profile of Object.keys(profiles) as ProfileName[]) {
        const { failures, counts } = await runSeeds(profile, { first: seed, count: 1 });
        expect(failures, profile).toEqual([]);
        for (const [name, times] of counts.values) if (times > 0) missing.delete(name);
      }
    }
    expect([...missing]).toEqual([]);
  });

  it.each(Object.entries(mutants))(
    "catches: %s",
    { timeout: 300_000 },
    async (_, { mutant, profile, says, ...seeds }) => {
      const first = seeds.firstSeed ?? 1;
      const { failures } = await runSeeds(profile, { first, count: seeds.seeds, mutant, stopAtFailure: true });
      expect(failures).toHaveLength(1);
      expect(failures[0]!.message).toMatch(says);
    },
  );
});
