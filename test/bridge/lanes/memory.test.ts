import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteBudget, Discards, type LaneMemory } from "../../../src/bridge/lanes/index.js";
import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";
import { message } from "./support.js";

const sized = (bytes: number): InboundMessage => message(0, bytes - memoryOf(message(0, 0)));

describe("the budget of bytes", () => {
  it("has room for what was kept within the limit, whatever another one's part is", () => {
    const budget = new ByteBudget(4_000);
    const [lane] = [budget.join("app"), budget.join("other")];
    for (let count = 0; count < 10; count++) expect(lane!.take(sized(400), { isKept: true })).toBe(true);
    expect(lane!.take(sized(400))).toBe(false);
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
