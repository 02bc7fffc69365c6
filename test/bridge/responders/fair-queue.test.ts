import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FairQueue, type Turn } from "../../../src/bridge/responders/fair-queue.js";

interface Item {
  readonly responder: string;
  readonly number: number;
  readonly bytes: number;
  readonly deadlineAt: number;
}

const item = (responder: string, number: number, more: Partial<Item> = {}): Item => ({
  ...{ responder, number, bytes: 1, deadlineAt: Number.POSITIVE_INFINITY },
  ...more,
});

function queueOf(limits: { maxRunning?: number; maxWaiting?: number; maxWaitingBytes?: number }, responders: string) {
  const queue = new FairQueue<string, Item>({ maxRunning: 8, maxWaiting: 1000, maxWaitingBytes: 1000, ...limits });
  for (const responder of responders) queue.open(responder);
  return queue;
}

/** Starts all that may start. */
function start(queue: FairQueue<string, Item>): Turn<Item>[] {
  const turns: Turn<Item>[] = [];
  for (let turn = queue.next(); turn !== undefined; turn = queue.next()) turns.push(turn);
  return turns;
}

const names = (turns: readonly Turn<Item>[]) => turns.map(({ item: { responder, number } }) => `${responder}${number}`);

describe("turns", () => {
  it("leave slots for other responders, the last one for a responder that runs nothing", () => {
    const queue = queueOf({ maxRunning: 8 }, "abcd");
    for (let number = 1; number <= 20; number++) queue.push("a", item("a", number));
    expect(start(queue)).toHaveLength(5);
    for (let number = 1; number <= 20; number++) queue.push("b", item("b", number));
    expect(names(start(queue))).toEqual(["b1", "b2"]);
    queue.push("c", item("c", 1));
    expect(names(start(queue))).toEqual(["c1"]);
    queue.push("d", item("d", 1));
    expect(start(queue)).toEqual([]);
  });

  it("give all slots to the only responder", () => {
    const queue = queueOf({ maxRunning: 8 }, "a");
    for (let number = 1; number <= 20; number++) queue.push("a", item("a", number));
    expect(start(queue)).toHaveLength(8);
  });
});

describe("a responder", () => {
  it("has room for so many, and for so many bytes; one always fits", () => {
    const queue = queueOf({ maxWaiting: 3, maxWaitingBytes: 100 }, "ab");
    expect(queue.hasRoom("a", 1_000_000)).toBe(true);
    queue.push("a", item("a", 1, { bytes: 60 }));
    expect([40, 41].map((bytes) => queue.hasRoom("a", bytes))).toEqual([true, false]);
    queue.push("a", item("a", 2));
    queue.push("a", item("a", 3));
    expect(queue.hasRoom("a", 1)).toBe(false);
    expect(queue.hasRoom("b", 1)).toBe(true);
    expect(queue.hasRoom("unknown", 1)).toBe(false);
    expect(queue.loadOf("a")).toEqual({ waiting: 3, waitingBytes: 62, running: 0 });
  });

  it("that is removed gives back what waits, while what runs keeps its slot", () => {
    const queue = queueOf({ maxRunning: 1 }, "a");
    for (let number = 1; number <= 3; number++) queue.push("a", item("a", number));
    const [turn] = start(queue);
    expect(queue.remove("a").map(({ number }) => number)).toEqual([2, 3]);
    queue.open("a");
    queue.push("a", item("a", 4));
    expect([queue.running, start(queue).length]).toEqual([1, 0]);
    turn!.end();
    expect(names(start(queue))).toEqual(["a4"]);
  });

  it("gives up what has waited too long", () => {
    const queue = queueOf({ maxRunning: 1 }, "ab");
    for (const [index, deadlineAt] of [10, 20, 30].entries()) queue.push("a", item("a", index, { deadlineAt }));
    queue.push("b", item("b", 0, { deadlineAt: 15 }));
    expect(queue.nextDeadline).toBe(10);
    expect(queue.expire(9)).toEqual([]);
    expect(queue.expire(20).map(({ responder, number }) => `${responder}${number}`)).toEqual(["a0", "a1", "b0"]);
    expect(queue.nextDeadline).toBe(30);
    expect(names(start(queue))).toEqual(["a2"]);
    expect(queue.nextDeadline).toBeUndefined();
  });
});

describe("whatever happens", () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant("push" as const),
        responder: fc.constantFrom(..."abcd"),
        bytes: fc.nat(60),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("start" as const) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("end" as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), responder: fc.constantFrom(..."abcd") }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("expire" as const) }) },
  );

  it("no item is lost or doubled, order and limits are kept, and no responder waits while another one has two turns", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 1, max: 9 }), (steps, maxRunning) => {
        const queue = queueOf({ maxRunning, maxWaiting: 5, maxWaitingBytes: 100 }, "abcd");
        const running: Turn<Item>[] = [];
        const out = new Set<number>();
        /** Model of the queue: waiting items by responder, in order. */
        const waiting = new Map<string, Item[]>([..."abcd"].map((responder) => [responder, []]));
        /** Turns that others had since a responder began to wait for its own. */
        const passed = new Map<string, Map<string, number>>();
        let number = 0;
        let now = 0;
        const leave = (gone: Item): void => {
          expect(out.has(gone.number)).toBe(false);
          out.add(gone.number);
          expect(waiting.get(gone.responder)!.shift()).toBe(gone);
        };
        const started = (turn: Turn<Item>): void => {
          const { responder } = turn.item;
          leave(turn.item);
          running.push(turn);
          passed.delete(responder);
          for (const [other, items] of waiting) {
            // A responder that runs something already may have to leave the rest to others.
            if (items.length === 0 || other === responder || queue.loadOf(other).running > 0) passed.delete(other);
            else {
              const counts = passed.get(other) ?? new Map<string, number>();
              passed.set(other, counts.set(responder, (counts.get(responder) ?? 0) + 1));
              expect(counts.get(responder)).toBeLessThanOrEqual(1);
            }
          }
          expect(running.length).toBeLessThanOrEqual(maxRunning);
        };
        for (const each of steps) {
          now += 1;
          if (each.do === "push" && queue.hasRoom(each.responder, each.bytes)) {
            const pushed = item(each.responder, number++, { bytes: each.bytes, deadlineAt: now + 30 });
            queue.push(each.responder, pushed);
            waiting.get(each.responder)!.push(pushed);
          } else if (each.do === "start") {
            for (const turn of start(queue)) started(turn);
          } else if (each.do === "end" && running.length > 0) {
            running.splice(each.which % running.length, 1)[0]!.end();
          } else if (each.do === "remove") {
            for (const removed of queue.remove(each.responder)) leave(removed);
            queue.open(each.responder);
            passed.delete(each.responder);
          } else if (each.do === "expire") {
            for (const expired of queue.expire(now)) leave(expired);
          }
          for (const [responder, items] of waiting) {
            const waitingBytes = items.reduce((sum, { bytes }) => sum + bytes, 0);
            expect(queue.loadOf(responder)).toMatchObject({ waiting: items.length, waitingBytes });
            expect(items.length).toBeLessThanOrEqual(5);
            expect(items.length <= 1 || waitingBytes <= 100).toBe(true);
          }
          expect(queue.running).toBe(running.length);
        }
        while (!queue.isIdle) {
          for (const turn of start(queue)) started(turn);
          running.shift()!.end();
        }
        expect(out.size).toBe(number);
      }),
    );
  });
});
