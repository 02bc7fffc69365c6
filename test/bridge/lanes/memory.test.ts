import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteBudget, Discards } from "../../../src/bridge/lanes/index.js";

describe("the budget of bytes", () => {
  it("gives no more than the limit, except for one message when nothing is taken", () => {
    const budget = new ByteBudget(100);
    expect(budget.take(500)).toBe(true);
    expect(budget.take(1)).toBe(false);
    budget.give(500);
    expect([budget.take(60), budget.take(40), budget.take(1)]).toEqual([true, true, false]);
    expect(budget.usedBytes).toBe(100);
  });
});

describe("discarded messages", () => {
  it("are counted exactly, by subject for a limited number of subjects", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("a", "b", "c", "d", "__proto__", "")), (subjects) => {
        const discards = new Discards(3);
        for (const subject of subjects) discards.add(subject);
        const told = [...new Set(subjects)].slice(0, 3);
        expect(discards.total).toBe(subjects.length);
        expect([...discards.bySubject]).toEqual(
          told.map((subject) => [subject, subjects.filter((one) => one === subject).length]),
        );
        expect(discards.other).toBe(subjects.filter((one) => !told.includes(one)).length);
      }),
    );
  });
});
