import assert from "node:assert/strict";
import { expect, it } from "vitest";
import { eventually } from "../../src/development/testing/index.js";

it("returns what the assertion returns once it holds", async () => {
  let calls = 0;
  const result = await eventually(() => {
    calls++;
    assert.ok(calls > 2, "not yet");
    return calls;
  });
  expect(result).toBe(3);
});

it("takes rejections and false as not yet", async () => {
  const answers: (() => Promise<unknown>)[] = [
    () => Promise.reject(new Error("no")),
    () => Promise.resolve(false),
    () => Promise.resolve("yes"),
  ];
  expect(await eventually(() => answers.shift()!(), { everyMs: 1 })).toBe("yes");
});

it("throws what the assertion threw last, as it was", async () => {
  const error = await eventually(() => assert.deepEqual([1], [2]), { withinMs: 50, everyMs: 5 }).catch((each) => each);
  expect(error).toBeInstanceOf(assert.AssertionError);
  expect(error).toMatchObject({ actual: [1], expected: [2] });
});

it("does not wait for an assertion that hangs", async () => {
  const hanging = new Promise<void>(() => undefined);
  await expect(eventually(() => hanging, { withinMs: 30 })).rejects.toThrow("did not end within 30 ms");
  let calls = 0;
  const onceOnly = (): Promise<void> => {
    if (calls++ > 0) return hanging;
    throw new Error("what was wrong");
  };
  await expect(eventually(onceOnly, { withinMs: 50, everyMs: 1 })).rejects.toThrow("what was wrong");
});

it("says that it was still false", async () => {
  await expect(eventually(() => false, { withinMs: 20, everyMs: 5 })).rejects.toMatchObject({
    code: "aborted",
    message: expect.stringContaining("still returned false after 20 ms"),
  });
});

it("refuses times that are none", async () => {
  await expect(eventually(() => true, { withinMs: -1 })).rejects.toThrow(
    "withinMs -1: must be a number of milliseconds",
  );
  await expect(eventually(() => true, { everyMs: Number.NaN })).rejects.toThrow("everyMs NaN");
});
