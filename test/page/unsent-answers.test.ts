import { expect, it } from "vitest";
import { UnsentAnswers } from "../../src/operating/page/unsent-answers.js";
import { ManualClock } from "../support/manual-clock.js";

const mebibyte = 1024 * 1024;
const answer = (bytes: number): Response =>
  new Response(new Uint8Array(bytes).fill(120), { status: 201, headers: { a: "b" } });

it("counts answers until they are read, left, or not read for a minute, and refuses what exceeds the limit", async () => {
  const clock = new ManualClock();
  const unsent = new UnsentAnswers(clock, 3 * mebibyte);
  const added: Response[] = [];
  const add = async (): Promise<boolean> => {
    const held = await unsent.add(answer(mebibyte));
    if (held !== undefined) added.push(held);
    return held !== undefined;
  };
  expect([await add(), await add(), await add(), await add()]).toEqual([true, true, true, false]);
  expect(unsent.isFull).toBe(true);
  const [first, second, third] = added as [Response, Response, Response];
  expect([first.status, first.headers.get("a"), first.headers.get("content-length")]).toEqual([201, "b", "1048576"]);
  expect(await first.text()).toBe("x".repeat(mebibyte));
  expect([unsent.isFull, await add(), await add()]).toEqual([false, true, false]);
  await second.body!.cancel();
  expect([await add(), await add()]).toEqual([true, false]);
  const reader = third.body!.getReader();
  clock.advance(59_000);
  expect((await reader.read()).value).toHaveLength(65_536);
  clock.advance(59_000);
  // That one was read in time; the two others have been cut.
  expect((await reader.read()).value).toHaveLength(65_536);
  for (const cut of added.slice(3)) await expect(cut.text()).rejects.toThrow("read nothing for 60000 ms");
  expect([await add(), await add(), await add()]).toEqual([true, true, false]);
});

it("holds a single answer that is larger than the limit, and none without a body", async () => {
  const clock = new ManualClock();
  const unsent = new UnsentAnswers(clock, 10);
  const large = await unsent.add(answer(100));
  expect([large?.status, unsent.isFull, await unsent.add(answer(1))]).toEqual([201, true, undefined]);
  // An answer that nobody reads does not keep its process from ending.
  expect([clock.timers, clock.keepsAlive]).toEqual([1, false]);
  const none = new Response(null, { status: 303 });
  expect(await unsent.add(none)).toBe(none);
  expect(await large!.text()).toBe("x".repeat(100));
  expect([unsent.isFull, clock.timers]).toEqual([false, 0]);
});
