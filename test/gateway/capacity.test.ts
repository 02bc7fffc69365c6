import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Capacity } from "../../src/gateway/capacity.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Names those that got a place, in their order, and with "late" those that got none in time. */
function queue(capacity: Capacity) {
  const order: string[] = [];
  const enter = (name: string, waitMs = 1000) =>
    void capacity.take(waitMs).then((admitted) => order.push(admitted ? name : `late ${name}`));
  /** What has happened since the last time. */
  const news = async () => {
    await vi.advanceTimersByTimeAsync(0);
    return order.splice(0);
  };
  return { enter, news };
}

it("gives as many places as the limit, and each again when it has been given back", () => {
  const capacity = new Capacity(2);
  expect([capacity.tryTake(), capacity.tryTake(), capacity.tryTake()]).toEqual([true, true, false]);
  capacity.release();
  expect([capacity.tryTake(), capacity.tryTake()]).toEqual([true, false]);
});

it("serves whoever came first, first", async () => {
  const capacity = new Capacity(1);
  const { enter, news } = queue(capacity);
  for (const name of ["a", "b", "c"]) enter(name);
  expect(await news()).toEqual(["a"]);
  capacity.release();
  expect(await news()).toEqual(["b"]);
  capacity.release();
  expect(await news()).toEqual(["c"]);
});

it("lets nobody in past those who wait", async () => {
  const capacity = new Capacity(1);
  const { enter, news } = queue(capacity);
  enter("a");
  enter("b");
  await news();
  capacity.release();
  // b has the place already, though it does not know yet.
  expect(capacity.tryTake()).toBe(false);
  expect(await news()).toEqual(["b"]);
});

it("lets whoever waited long enough go, without a place", async () => {
  const capacity = new Capacity(1);
  const { enter, news } = queue(capacity);
  enter("a");
  enter("b", 100);
  enter("c", 50);
  await news();
  await vi.advanceTimersByTimeAsync(49);
  expect(await news()).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await news()).toEqual(["late c"]);
  capacity.release();
  expect(await news()).toEqual(["b"]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(await news()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

it("waits not at all for 0 ms, where there is a place", async () => {
  const capacity = new Capacity(1);
  expect(await capacity.take(0)).toBe(true);
  const second = capacity.take(0);
  await vi.advanceTimersByTimeAsync(0);
  expect(await second).toBe(false);
});

it("lets as many in at once as a greater limit has room for", async () => {
  const capacity = new Capacity(1);
  const { enter, news } = queue(capacity);
  for (const name of ["a", "b", "c", "d", "e"]) enter(name);
  expect(await news()).toEqual(["a"]);
  capacity.limit = 4;
  expect([capacity.limit, await news()]).toEqual([4, ["b", "c", "d"]]);
  capacity.release();
  expect(await news()).toEqual(["e"]);
});

it("waits until fewer are under way than a smaller limit, and ends nobody", async () => {
  const capacity = new Capacity(3);
  const { enter, news } = queue(capacity);
  for (const name of ["a", "b", "c", "d"]) enter(name);
  expect(await news()).toEqual(["a", "b", "c"]);
  capacity.limit = 1;
  for (let ended = 1; ended <= 2; ended++) {
    capacity.release();
    expect(await news()).toEqual([]);
    expect(capacity.tryTake()).toBe(false);
  }
  capacity.release();
  expect(await news()).toEqual(["d"]);
});

it("knows all places again after a thousand turns with some who gave up", async () => {
  const capacity = new Capacity(5);
  let running = 0;
  let most = 0;
  const one = async (number: number) => {
    if (!(await capacity.take(number % 7 === 0 ? 3 : 10_000))) return "late";
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve, number % 5));
    running--;
    capacity.release();
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
  expect(Array.from({ length: 6 }, () => capacity.tryTake())).toEqual([true, true, true, true, true, false]);
});
