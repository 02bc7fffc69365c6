import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteBudget, Discards } from "../../../src/bridge/lanes/index.js";

describe("the budget of bytes", () => {
  it("gives no more than the limit, except for one message when nothing is taken", () => {
    const budget = new ByteBudget(100);
    budget.join();
    expect(budget.take(500, 0)).toBe(true);
    expect(budget.take(1, 500)).toBe(false);
    budget.give(500);
    expect([budget.take(60, 0), budget.take(40, 60), budget.take(1, 100)]).toEqual([true, true, false]);
    expect(budget.usedBytes).toBe(100);
  });

  it("keeps the last quarter for those that have not had their part of it", () => {
    const budget = new ByteBudget(1000);
    for (let lanes = 0; lanes < 5; lanes++) budget.join();
    // One lane takes what it can get: all but the parts of the four others.
    expect([budget.take(800, 0), budget.take(1, 800)]).toEqual([true, false]);
    for (let lanes = 0; lanes < 4; lanes++) expect([budget.take(50, 0), budget.take(1, 50)]).toEqual([true, false]);
    expect(budget.usedBytes).toBe(1000);
    // The others leave, and it has all there is.
    for (let lanes = 0; lanes < 4; lanes++) {
      budget.give(50);
      budget.leave();
    }
    expect(budget.take(200, 800)).toBe(true);
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
