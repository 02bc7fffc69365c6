import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteBudget, Discards, type LaneMemory } from "../../../src/bridge/lanes/index.js";
import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";
import { message } from "./support.js";

const sized = (bytes: number): InboundMessage => message(0, bytes - memoryOf(message(0, 0)));

/** Fills the lane with messages of this size. @returns how many there was room for */
function fill(lane: LaneMemory, bytes: number): number {
  let count = 0;
  while (lane.take(sized(bytes))) count += 1;
  return count;
}

describe("the budget of bytes", () => {
  it("gives no more than the limit, except for one message when nothing is taken", () => {
    const budget = new ByteBudget(1_000);
    const lane = budget.join("app");
    const large = sized(5_000);
    expect([lane.take(large), lane.take(sized(500))]).toEqual([true, false]);
    lane.give(large);
    expect([600, 400, 300].map((bytes) => lane.take(sized(bytes)))).toEqual([true, true, false]);
    expect(budget.usedBytes).toBe(1_000);
  });

  it("has room for what was kept within the limit, whatever another one's part is", () => {
    const budget = new ByteBudget(4_000);
    const [lane] = [budget.join("app"), budget.join("other")];
    for (let count = 0; count < 10; count++) expect(lane!.take(sized(400), { isKept: true })).toBe(true);
    expect(lane!.take(sized(400))).toBe(false);
  });

  it("keeps the last quarter for lanes that have had nothing of it", () => {
    const budget = new ByteBudget(120_000);
    const lanes = Array.from({ length: 3 }, () => budget.join("app"));
    // All but one of two parts; then one of three, of which half is left to the third; which has what is left.
    expect(lanes.map((lane) => fill(lane, 500))).toEqual([210, 15, 15]);
    expect(budget.usedBytes).toBe(120_000);
  });

  it("has as much room for a role, however many subscriptions another one has", () => {
    const roomBeside = (lanesOfOther: number): number => {
      const budget = new ByteBudget(1_000_000);
      const others = Array.from({ length: lanesOfOther }, () => budget.join("other"));
      const lane = budget.join("app");
      for (const other of others.slice(0, 4)) fill(other, 1_000);
      return fill(lane, 1_000);
    };
    expect(roomBeside(4)).toBe(125);
    expect(roomBeside(150)).toBe(125);
  });

  it("takes little room from a subscription of the same role for many that have nothing", () => {
    const budget = new ByteBudget(1_000_000);
    const lanes = Array.from({ length: 150 }, () => budget.join("app"));
    expect(fill(lanes[0]!, 1_000)).toBe(875);
    expect(fill(lanes[1]!, 1_000)).toBeGreaterThan(50);
  });

  it("counts a message once, until the last lane has given it, in all and for each role", () => {
    const action = fc.record({ lane: fc.nat(3), size: fc.integer({ min: 300, max: 900 }), sharers: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(fc.oneof(action, fc.record({ give: fc.nat(3) })), { maxLength: 150 }), (actions) => {
        const budget = new ByteBudget(12_000);
        const lanes = ["one", "one", "other", "third"].map((role) => budget.join(role));
        const has = lanes.map((): InboundMessage[] => []);
        const usedBy = (role?: string): number => {
          const messages = lanes.flatMap((lane, at) => (role === undefined || lane.role.name === role ? has[at]! : []));
          return [...new Set(messages)].reduce((sum, one) => sum + memoryOf(one), 0);
        };
        for (const one of actions) {
          if ("give" in one) {
            const given = has[one.give]!.shift();
            if (given !== undefined) lanes[one.give]!.give(given);
          } else {
            const holders: LaneMemory[] = [];
            const shared = sized(one.size);
            for (let n = 0; n <= one.sharers; n++) {
              const at = (one.lane + n) % lanes.length;
              if (lanes[at]!.take(shared, { holders })) has[at]!.push(shared);
            }
          }
          expect(budget.usedBytes).toBe(usedBy());
          expect(budget.usedBytes).toBeLessThanOrEqual(12_000);
          for (const [at, { role, usedBytes }] of lanes.entries()) {
            expect(role.held).toBe(usedBy(role.name));
            expect(usedBytes).toBe(has[at]!.reduce((sum, message) => sum + memoryOf(message), 0));
          }
        }
        for (const [at, lane] of lanes.entries()) {
          for (const left of has[at]!) lane.give(left);
          lane.leave();
        }
        expect(budget.usedBytes).toBe(0);
      }),
    );
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
