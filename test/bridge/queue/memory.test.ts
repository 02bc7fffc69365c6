import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type InboundMessage, memoryOf } from "../../../src/nats/bridge/message.js";
import { ByteBudget, Discards, type QueueMemory } from "../../../src/nats/bridge/queue/index.js";
import { message } from "./support.js";

const sized = (bytes: number): InboundMessage => message(0, bytes - memoryOf(message(0, 0)));

describe("the budget of bytes", () => {
  it("has room for what was kept within the limit, whatever another one's part is", () => {
    const budget = new ByteBudget(4_000);
    const [queue] = [budget.addQueue("app"), budget.addQueue("other")];
    for (let count = 0; count < 10; count++) expect(budget.reserve(queue!, sized(400), { isKept: true })).toBe(true);
    expect(budget.reserve(queue!, sized(400))).toBe(false);
  });

  it("counts a message once, until the last queue has given it, in all and for each role", () => {
    const action = fc.record({ queue: fc.nat(3), size: fc.integer({ min: 300, max: 900 }), sharers: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(fc.oneof(action, fc.record({ give: fc.nat(3) })), { maxLength: 150 }), (actions) => {
        const budget = new ByteBudget(12_000);
        const queues = ["one", "one", "other", "third"].map((role) => budget.addQueue(role));
        const has = queues.map((): InboundMessage[] => []);
        const usedBy = (role?: string): number => {
          const messages = queues.flatMap((queue, at) =>
            role === undefined || queue.role.name === role ? has[at]! : [],
          );
          return [...new Set(messages)].reduce((sum, one) => sum + memoryOf(one), 0);
        };
        for (const one of actions) {
          if ("give" in one) {
            const given = has[one.give]!.shift();
            if (given !== undefined) budget.release(queues[one.give]!, given);
          } else {
            const holders: QueueMemory[] = [];
            const shared = sized(one.size);
            for (let n = 0; n <= one.sharers; n++) {
              const at = (one.queue + n) % queues.length;
              if (budget.reserve(queues[at]!, shared, { holders })) has[at]!.push(shared);
            }
          }
          expect(budget.usedBytes).toBe(usedBy());
          expect(budget.usedBytes).toBeLessThanOrEqual(12_000);
          for (const [at, { role, usedBytes }] of queues.entries()) {
            expect(role.held).toBe(usedBy(role.name));
            expect(usedBytes).toBe(has[at]!.reduce((sum, message) => sum + memoryOf(message), 0));
          }
        }
        for (const [at, queue] of queues.entries()) {
          for (const left of has[at]!) budget.release(queue, left);
          budget.removeQueue(queue);
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
