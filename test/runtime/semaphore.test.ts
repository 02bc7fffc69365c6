import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Semaphore, shareOf } from "../../src/foundation/runtime/index.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Waits for a place, so long. @returns false if there was none */
async function acquireWithin(semaphore: Semaphore, waitMs: number): Promise<boolean> {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort("late"), waitMs);
  try {
    await semaphore.acquire(1, waiting.signal);
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

/** Names those that got a place, in their order, and with "late" those that got none in time. */
function queue(semaphore: Semaphore) {
  const order: string[] = [];
  const enter = (name: string, waitMs = 1000) =>
    void acquireWithin(semaphore, waitMs).then((admitted) => order.push(admitted ? name : `late ${name}`));
  /** Takes the entries since the last call. */
  const news = async () => {
    await vi.advanceTimersByTimeAsync(0);
    return order.splice(0);
  };
  return { enter, news };
}

it("grants as many permits as its limit, and each again after its release", () => {
  const semaphore = new Semaphore(2);
  expect([semaphore.tryAcquire(), semaphore.tryAcquire(), semaphore.tryAcquire()]).toEqual([true, true, false]);
  semaphore.release();
  expect([semaphore.tryAcquire(), semaphore.tryAcquire()]).toEqual([true, false]);
});

it("serves waiters first come, first served", async () => {
  const semaphore = new Semaphore(1);
  const { enter, news } = queue(semaphore);
  for (const name of ["a", "b", "c"]) enter(name);
  expect(await news()).toEqual(["a"]);
  semaphore.release();
  expect(await news()).toEqual(["b"]);
  semaphore.release();
  expect(await news()).toEqual(["c"]);
});

it("serves the party with the fewest permits next, and those with as many in turn", async () => {
  const semaphore = new Semaphore(3);
  const order: string[] = [];
  const enter = (party: string) => semaphore.acquire(1, undefined, party).then(() => order.push(party));
  for (const party of ["busy", "busy", "busy", "busy", "busy", "a", "a", "b"]) void enter(party);
  await vi.advanceTimersByTimeAsync(0);
  for (let done = 0; done < 8; done += 1) {
    semaphore.release(1, order[done]);
    await vi.advanceTimersByTimeAsync(0);
  }
  expect(order).toEqual(["busy", "busy", "busy", "a", "b", "busy", "a", "busy"]);
});

it("lets no caller overtake the waiters", async () => {
  const semaphore = new Semaphore(1);
  const { enter, news } = queue(semaphore);
  enter("a");
  enter("b");
  await news();
  semaphore.release();
  // b has the place already, though it does not know yet.
  expect(semaphore.tryAcquire()).toBe(false);
  expect(await news()).toEqual(["b"]);
});

it("rejects a waiter whose signal is aborted, without a permit", async () => {
  const semaphore = new Semaphore(1);
  const { enter, news } = queue(semaphore);
  enter("a");
  enter("b", 100);
  enter("c", 50);
  await news();
  await vi.advanceTimersByTimeAsync(49);
  expect(await news()).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await news()).toEqual(["late c"]);
  semaphore.release();
  expect(await news()).toEqual(["b"]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(await news()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

it("does not wait for 0 ms if a permit is free", async () => {
  const semaphore = new Semaphore(1);
  expect(await acquireWithin(semaphore, 0)).toBe(true);
  const second = acquireWithin(semaphore, 0);
  await vi.advanceTimersByTimeAsync(0);
  expect(await second).toBe(false);
});

it("admits as many waiters at once as a greater limit permits", async () => {
  const semaphore = new Semaphore(1);
  const { enter, news } = queue(semaphore);
  for (const name of ["a", "b", "c", "d", "e"]) enter(name);
  expect(await news()).toEqual(["a"]);
  semaphore.limit = 4;
  expect([semaphore.limit, await news()]).toEqual([4, ["b", "c", "d"]]);
  semaphore.release();
  expect(await news()).toEqual(["e"]);
});

it("waits until fewer permits are held than a smaller limit, and revokes none", async () => {
  const semaphore = new Semaphore(3);
  const { enter, news } = queue(semaphore);
  for (const name of ["a", "b", "c", "d"]) enter(name);
  expect(await news()).toEqual(["a", "b", "c"]);
  semaphore.limit = 1;
  for (let ended = 1; ended <= 2; ended++) {
    semaphore.release();
    expect(await news()).toEqual([]);
    expect(semaphore.tryAcquire()).toBe(false);
  }
  semaphore.release();
  expect(await news()).toEqual(["d"]);
});

it("has all permits free after a thousand acquisitions, some of them aborted", async () => {
  const semaphore = new Semaphore(5);
  let running = 0;
  let most = 0;
  const one = async (number: number) => {
    if (!(await acquireWithin(semaphore, number % 7 === 0 ? 3 : 10_000))) return "late";
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve, number % 5));
    running--;
    semaphore.release();
    return "done";
  };
  const all = Promise.all(Array.from({ length: 1000 }, (_, number) => one(number)));
  // Longer than anybody waits.
  await vi.advanceTimersByTimeAsync(20_000);
  const ends = await all;
  expect([
    most,
    ends.filter((end) => end === "late").length > 50,
    ends.filter((end) => end === "done").length > 800,
  ]).toEqual([5, true, true]);
  expect(Array.from({ length: 6 }, () => semaphore.tryAcquire())).toEqual([true, true, true, true, true, false]);
});

it("lets each party hold its share, however much of another one waits", async () => {
  const semaphore = new Semaphore(Number.POSITIVE_INFINITY, (held, _free, parties) => held <= shareOf(4, parties));
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const work = (party: string, name: string) =>
    semaphore.run(party, () => {
      begun.push(name);
      return new Promise<void>((resolve) => ends.push(resolve));
    });
  for (let nth = 1; nth <= 100; nth++) void work("mallory", `mallory ${nth}`);
  void work("shop", "shop 1");
  void work("shop", "shop 2");
  await setImmediate();
  expect(begun.splice(0)).toEqual(["mallory 1", "mallory 2", "shop 1"]);
  // With two parties, the share of each is 1.
  ends[0]!();
  await setImmediate();
  expect(begun.splice(0)).toEqual([]);
  ends[1]!();
  ends[2]!();
  await setImmediate();
  expect(begun.splice(0).sort()).toEqual(["mallory 3", "shop 2"]);
});

it("releases the permit of work that fails", async () => {
  const semaphore = new Semaphore(1);
  await expect(semaphore.run("shop", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  await expect(semaphore.run("shop", () => Promise.resolve("yes"))).resolves.toBe("yes");
});

it("serves waiters that a changed rule lets pass when it is told so", async () => {
  let most = 1;
  const semaphore = new Semaphore(4, (held) => held <= most);
  const { enter, news } = queue(semaphore);
  for (const name of ["a", "b", "c"]) enter(name);
  expect(await news()).toEqual(["a"]);
  most = 2;
  semaphore.admit();
  expect(await news()).toEqual(["b"]);
});

it("loses no waiter, keeps the order of a party and the rule, and passes over no party without permits twice", async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant("acquire" as const), party: fc.constantFrom(..."abcd") }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("release" as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("abort" as const), which: fc.nat() }) },
  );
  interface Caller {
    readonly party: string;
    readonly leave: AbortController;
  }
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 200 }), fc.integer({ min: 1, max: 9 }), async (steps, limit) => {
      const mayHold = (held: number, free: number) => held === 1 || held <= 2 * (free - 1);
      const semaphore = new Semaphore(limit, mayHold);
      const running: Caller[] = [];
      const waiting: Caller[] = [];
      const left = new Set<Caller>();
      const broken: unknown[] = [];
      /** Permits that others got since a party without permits began to wait. */
      const passed = new Map<string, Map<string, number>>();
      const heldBy = (party: string): number => running.filter((each) => each.party === party).length;
      const served = (caller: Caller): void => {
        const { party } = caller;
        expect(waiting.find((each) => each.party === party)).toBe(caller);
        expect(mayHold(heldBy(party) + 1, limit - running.length)).toBe(true);
        waiting.splice(waiting.indexOf(caller), 1);
        running.push(caller);
        expect(running.length).toBeLessThanOrEqual(limit);
        passed.delete(party);
        for (const other of "abcd") {
          if (other === party) continue;
          if (heldBy(other) > 0 || !waiting.some((each) => each.party === other)) passed.delete(other);
          else {
            const counts = passed.get(other) ?? new Map<string, number>();
            passed.set(other, counts.set(party, (counts.get(party) ?? 0) + 1));
            expect(counts.get(party)).toBeLessThanOrEqual(1);
          }
        }
      };
      for (const each of steps) {
        if (each.do === "acquire") {
          const caller = { party: each.party, leave: new AbortController() };
          waiting.push(caller);
          void semaphore
            .acquire(1, caller.leave.signal, caller.party)
            .then(
              () => served(caller),
              () => left.add(caller),
            )
            .catch((error: unknown) => broken.push(error));
        } else if (each.do === "release" && running.length > 0) {
          semaphore.release(1, running.splice(each.which % running.length, 1)[0]!.party);
        } else if (each.do === "abort" && waiting.length > 0) {
          const [caller] = waiting.splice(each.which % waiting.length, 1);
          caller!.leave.abort();
          await setImmediate();
          expect(left.has(caller!)).toBe(true);
          if (!waiting.some(({ party }) => party === caller!.party)) passed.delete(caller!.party);
        }
        await setImmediate();
        expect(broken).toEqual([]);
        expect(semaphore.acquired).toBe(running.length);
        for (const party of "abcd") {
          expect(semaphore.acquiredBy(party)).toBe(heldBy(party));
          const waits = waiting.some((caller) => caller.party === party);
          const isFree = running.length < limit && mayHold(heldBy(party) + 1, limit - running.length);
          expect(waits && isFree).toBe(false);
        }
      }
      while (running.length > 0) {
        semaphore.release(1, running.shift()!.party);
        await setImmediate();
      }
      expect([waiting, broken]).toEqual([[], []]);
    }),
  );
});
