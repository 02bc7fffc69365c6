/**
 * Hostile calls, in process: each is answered, or refused with one of a few errors, whatever it holds.
 *
 * HAWSER_FUZZ_INPUTS says how many, and HAWSER_FUZZ_SEED repeats a run.
 */
import { randomInt } from "node:crypto";
import { expect, it } from "vitest";
import { methods } from "../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../src/foundation/errors/index.js";
import { Semaphore } from "../../src/foundation/runtime/index.js";
import { Calls } from "../../src/nats/gateway/calls.js";
import type { Answer, GatewayClient } from "../../src/nats/gateway/protocol/index.js";
import { Random } from "../simulator/random.js";
import { atDepth } from "../support/depth.js";
import { hostileCall } from "./hostile-calls.js";
import { recordingHandler } from "./recording-handler.js";

const mib = 1024 * 1024;
const inputs = Number(process.env["HAWSER_FUZZ_INPUTS"] ?? atDepth(50_000));
const seed = Number(process.env["HAWSER_FUZZ_SEED"] ?? randomInt(2 ** 31));

/** Error codes that a caller may get. */
const refusals = new Set(["gateway_protocol", "invalid_argument", "null_argument", "not_text", "gateway_limit"]);

const session: GatewayClient = { id: 1, isOpen: true };
const places = 3;
const capacity = new Semaphore(places);
const { handler, asked } = recordingHandler();
const calls = new Calls(handler, capacity, { callTimeoutMs: 5000, maxCallTimeoutMs: 60_000, maxResponseBytes: 601 });

/** Asks, and says how it ended. */
async function ask(query: Buffer): Promise<string> {
  let answer: Answer;
  try {
    const given = calls.answer(query, session);
    answer = given instanceof Promise ? await given : given;
  } catch (error) {
    if (!(error instanceof HawserError) || !refusals.has(error.code)) throw error;
    if (error.message.length > 1000) throw new Error(`a refusal of ${error.message.length} characters`);
    return error.code;
  }
  if (answer.kind !== "row" || (answer.value !== null && typeof answer.value !== "string")) {
    throw new Error(`the answer is ${JSON.stringify(answer)}`);
  }
  return "answered";
}

function bytesInUse(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return process.memoryUsage().rss;
}

it("refuses an object with a toString of its own where texts are", async () => {
  const call = 'UpdateStream {"stream":"s","subjects":[{"toString":1,"valueOf":2}]}';
  expect(await ask(Buffer.from(call))).toBe("invalid_argument");
});

it(
  `survives ${inputs} hostile calls, seed ${seed}`,
  async () => {
    console.log(`fuzz: HAWSER_FUZZ_INPUTS=${inputs} HAWSER_FUZZ_SEED=${seed}`);
    const ends = new Map<string, number>();
    let before = 0;
    for (let index = 0; index < inputs; index++) {
      if (index === Math.floor(inputs / 4)) before = bytesInUse();
      const query = hostileCall(new Random(seed + index));
      const end = await ask(query).catch((cause: unknown) => {
        const alone = `HAWSER_FUZZ_INPUTS=1 HAWSER_FUZZ_SEED=${seed + index}`;
        throw new Error(`call ${index} of seed ${seed}, alone: ${alone}: ${query.toString("latin1", 0, 300)}`, {
          cause,
        });
      });
      ends.set(end, (ends.get(end) ?? 0) + 1);
    }
    const after = bytesInUse();
    const told = [...ends].map(([end, count]) => `${end} ${count}`).join(", ");
    console.log(
      `fuzz: ${told}; ${(before / mib).toFixed(1)} MiB after the first quarter, ${(after / mib).toFixed(1)} at the end`,
    );

    expect(after - before).toBeLessThan(100 * mib);
    expect({}.constructor).toBe(Object);
    expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain("a");
    // Each place has been given back.
    expect(Array.from({ length: places + 1 }, () => capacity.tryAcquire())).toEqual([true, true, true, false]);
    if (inputs >= 5_000) {
      // Otherwise this would test the first check alone.
      expect(ends.get("answered")).toBeGreaterThan(inputs / 4);
      expect([...ends.keys()].sort()).toEqual(["answered", ...refusals].sort());
      expect([...asked.keys()].sort()).toEqual(Object.keys(methods).sort());
    }
  },
  process.env["HAWSER_FUZZ_INPUTS"] === undefined ? undefined : 24 * 3600 * 1000,
);
