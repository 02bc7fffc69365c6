import { describe, expect, it } from "vitest";
import { atDepth } from "../../../support/depth.js";
import { mutants } from "./mutants.js";
import { runHistories } from "./world.js";

/** Events that every long run must have reached; otherwise the simulation no longer covers them. */
const mustHappen = [
  ...["committed", "failed", "timed_out", "transient", "session_lost", "unavailable", "deposed"].flatMap((outcome) => [
    `batch ${outcome}`,
    `retried batch ${outcome}`,
  ]),
  ...["committed", "transient", "session_lost", "unavailable", "deposed"].flatMap((outcome) => [
    `dead_letter ${outcome}`,
    `retried dead_letter ${outcome}`,
  ]),
  ...["committed but lost", "session lost otherwise", "woken", "closed", "held back", "discarded"],
];

describe("the simulation of queues", () => {
  it("finds no broken rule, and reaches every outcome of every step", { timeout: 300_000 }, () => {
    const { counts, failure } = runHistories(Math.max(2_000, atDepth(20_000)));
    expect(failure).toBeUndefined();
    expect(mustHappen.filter((name) => !counts.has(name))).toEqual([]);
  });

  it("does the same thing for the same seed", () => {
    const [one, other] = [1, 2].map(() => runHistories(50).counts);
    expect(one).toEqual(other);
  });

  it.each(Object.entries(mutants))("catches a queue that %s", (_name, variant) => {
    expect(runHistories(5_000, variant).failure).toMatch(/^seed \d+: /);
  });
});
