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
    const happened = new Set<string>();
    for (const profile of Object.keys(profiles) as ProfileName[]) {
      const { failures, counts } = await runSeeds(profile, { count: Math.max(12, atDepth(40)) });
      expect(failures, profile).toEqual([]);
      for (const [name, times] of counts.values) if (times > 0) happened.add(name);
    }
    expect(mustHappen.filter((name) => !happened.has(name))).toEqual([]);
  });

  // Those that show only in many seeds are tried at full depth.
  const tried = Object.entries(mutants).filter(([, { seeds }]) => seeds <= atDepth(600));
  it.each(tried)("catches: %s", { timeout: 300_000 }, async (_, { mutant, profile, seeds, says }) => {
    const { failures } = await runSeeds(profile, { count: seeds, mutant, stopAtFailure: true });
    expect(failures).toHaveLength(1);
    expect(failures[0]!.message).toMatch(says);
  });
});
