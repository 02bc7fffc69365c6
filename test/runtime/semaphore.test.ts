import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Semaphore } from "../../src/runtime/index.js";

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
