import { describe, expect, it } from "vitest";
import { batched } from "../../src/jobs-and-peers/store/batched.js";
import { eventually } from "../support/eventually.js";

describe("batched lookups", () => {
  it("share a statement if they start together or while another one runs, and each has its own result", async () => {
    const asked: (readonly number[])[] = [];
    let answer: () => void = () => undefined;
    const ask = batched(async (numbers: readonly number[]) => {
      asked.push(numbers);
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
      return numbers.map((number) => `answer ${number}`);
    });
    const first = [ask(1), ask(2)];
    await eventually("the first are under way", () => asked.length === 1);
    const second = [ask(3), ask(4)];
    answer();
    expect(await Promise.all(first)).toEqual(["answer 1", "answer 2"]);
    await eventually("the second are under way", () => asked.length === 2);
    answer();
    expect(await Promise.all(second)).toEqual(["answer 3", "answer 4"]);
    expect(asked).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  it("fail together, and later ones do not", async () => {
    let isUp = false;
    const ask = batched(async (numbers: readonly number[]) => {
      if (!isUp) throw new Error("down");
      return numbers;
    });
    const results = await Promise.allSettled([ask(1), ask(2)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    isUp = true;
    expect(await ask(3)).toBe(3);
  });

  it("do not fail by a value of a neighbour that Postgres refuses", async () => {
    const asked: number[] = [];
    const ask = batched(async (numbers: readonly number[]) => {
      asked.push(numbers.length);
      if (!numbers.includes(2)) return numbers;
      throw Object.assign(new Error("has no equivalent in encoding LATIN1"), { severity: "ERROR", code: "22P05" });
    });
    const results = await Promise.allSettled([ask(1), ask(2), ask(3)]);
    expect(results).toMatchObject([{ value: 1 }, { reason: { code: "22P05" } }, { value: 3 }]);
    expect(asked).toEqual([3, 1, 1, 1]);
  });
});
