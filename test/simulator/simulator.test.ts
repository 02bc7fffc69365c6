import { describe, expect, it } from "vitest";
import { mutants } from "./mutants.js";
import { runSeeds } from "./run.js";

describe("the channel simulator", () => {
  it("finds no broken rule in 2,000 seeds, and reaches every fault and transition", () => {
    const result = runSeeds({ first: 1, count: 2_000, stopAtFailure: true });
    expect(result.failures).toEqual([]);
    expect(result.neverHappened).toEqual([]);
  });

  it("does the same thing for the same seed", () => {
    const [one, other] = [1, 2].map(() => runSeeds({ first: 77, count: 5, stopAtFailure: true }).counts.values);
    expect(one).toEqual(other);
  });

  it.each(mutants.map(({ name, ...rest }) => [name, rest] as const))(
    "catches a program that %s",
    (_, { mutant, seeds }) => {
      const result = runSeeds({ first: 1, count: seeds, mutant, stopAtFailure: true });
      expect(result.failures).toHaveLength(1);
    },
  );
});
