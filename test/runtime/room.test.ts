import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Room } from "../../src/runtime/index.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Waits for a place, so long. @returns false if there was none */
async function take(room: Room, waitMs: number): Promise<boolean> {
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort("late"), waitMs);
  try {
    await room.take(1, waiting.signal);
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

/** Names those that got a place, in their order, and with "late" those that got none in time. */
function queue(room: Room) {
  const order: string[] = [];
  const enter = (name: string, waitMs = 1000) =>
    void take(room, waitMs).then((admitted) => order.push(admitted ? name : `late ${name}`));
  /** What has happened since the last time. */
  const news = async () => {
    await vi.advanceTimersByTimeAsync(0);
    return order.splice(0);
  };
  return { enter, news };
}

it("gives as many places as the limit, and each again when it has been given back", () => {
  const room = new Room(2);
  expect([room.tryTake(), room.tryTake(), room.tryTake()]).toEqual([true, true, false]);
  room.giveBack();
  expect([room.tryTake(), room.tryTake()]).toEqual([true, false]);
});

it("serves whoever came first, first", async () => {
  const room = new Room(1);
  const { enter, news } = queue(room);
  for (const name of ["a", "b", "c"]) enter(name);
  expect(await news()).toEqual(["a"]);
  room.giveBack();
  expect(await news()).toEqual(["b"]);
  room.giveBack();
  expect(await news()).toEqual(["c"]);
});

it("lets nobody in past those who wait", async () => {
  const room = new Room(1);
  const { enter, news } = queue(room);
  enter("a");
  enter("b");
  await news();
  room.giveBack();
  // b has the place already, though it does not know yet.
  expect(room.tryTake()).toBe(false);
  expect(await news()).toEqual(["b"]);
});

it("lets whoever waited long enough go, without a place", async () => {
  const room = new Room(1);
  const { enter, news } = queue(room);
  enter("a");
  enter("b", 100);
  enter("c", 50);
  await news();
  await vi.advanceTimersByTimeAsync(49);
  expect(await news()).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await news()).toEqual(["late c"]);
  room.giveBack();
  expect(await news()).toEqual(["b"]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(await news()).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

it("waits not at all for 0 ms, where there is a place", async () => {
  const room = new Room(1);
  expect(await take(room, 0)).toBe(true);
  const second = take(room, 0);
  await vi.advanceTimersByTimeAsync(0);
  expect(await second).toBe(false);
});

it("lets as many in at once as a greater limit has room for", async () => {
  const room = new Room(1);
  const { enter, news } = queue(room);
  for (const name of ["a", "b", "c", "d", "e"]) enter(name);
  expect(await news()).toEqual(["a"]);
  room.limit = 4;
  expect([room.limit, await news()]).toEqual([4, ["b", "c", "d"]]);
  room.giveBack();
  expect(await news()).toEqual(["e"]);
});

it("waits until fewer are under way than a smaller limit, and ends nobody", async () => {
  const room = new Room(3);
  const { enter, news } = queue(room);
  for (const name of ["a", "b", "c", "d"]) enter(name);
  expect(await news()).toEqual(["a", "b", "c"]);
  room.limit = 1;
  for (let ended = 1; ended <= 2; ended++) {
    room.giveBack();
    expect(await news()).toEqual([]);
    expect(room.tryTake()).toBe(false);
  }
  room.giveBack();
  expect(await news()).toEqual(["d"]);
});

it("knows all places again after a thousand turns with some who gave up", async () => {
  const room = new Room(5);
  let running = 0;
  let most = 0;
  const one = async (number: number) => {
    if (!(await take(room, number % 7 === 0 ? 3 : 10_000))) return "late";
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve, number % 5));
    running--;
    room.giveBack();
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
  expect(Array.from({ length: 6 }, () => room.tryTake())).toEqual([true, true, true, true, true, false]);
});
