import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type BatchStep, Lane, type Outcome, type Step } from "../../../src/bridge/lanes/index.js";
import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";
import { context, message, subscription } from "./support.js";

const committed: Outcome = { kind: "committed", durationMs: 1 };
const failed: Outcome = { kind: "failed", error: { code: "23505", message: "duplicate key" } };
const transient: Outcome = { kind: "transient", error: { code: "40P01", message: "deadlock detected" } };

/** A lane whose batches may have so many messages from the beginning. */
function warmLane(most = 1000): Lane {
  const lane = new Lane(subscription, context({ maxBatchMessages: most }));
  for (let number = 0; number < 2 * most; number++) lane.offer(message(number));
  while (lane.length > 0) lane.settle(lane.next(0)!, committed, 0);
  return lane;
}

function offer(lane: Lane, count: number): InboundMessage[] {
  const messages = Array.from({ length: count }, (_, number) => message(number));
  for (const each of messages) lane.offer(each);
  return messages;
}

/** Runs all there is, and returns the steps. */
function runAll(lane: Lane, outcomeOf: (step: Step) => Outcome): Step[] {
  const steps: Step[] = [];
  for (let now = 0; lane.readyAt < Number.POSITIVE_INFINITY; now = Math.max(now, lane.readyAt)) {
    const step = lane.next(now);
    if (step === undefined) continue;
    steps.push(step);
    lane.settle(step, outcomeOf(step), now);
  }
  return steps;
}

const sizes = (steps: readonly Step[]) =>
  steps.map((step) => (step.kind === "batch" ? step.messages.length : step.kind));
const isBad = (step: Step, bad: ReadonlySet<InboundMessage>) =>
  step.kind === "batch" && step.messages.some((each) => bad.has(each));

describe("a lane", () => {
  it("hands out the first message at once, and what arrived meanwhile as the next batch", () => {
    const lane = warmLane();
    const [first, ...others] = [message(1), message(2), message(3)];
    lane.offer(first!);
    const step = lane.next(0) as BatchStep;
    for (const each of others) lane.offer(each);
    expect(step.messages).toEqual([first]);
    expect(lane.next(0)).toBeUndefined();
    lane.settle(step, committed, 0);
    expect(lane.next(0)).toMatchObject({ kind: "batch", messages: others });
  });

  it("ends a batch at its limits, but a single message may be larger", () => {
    const bytes = memoryOf(message(1, 1000));
    const lane = new Lane(subscription, context({ maxBatchMessages: 3, maxBatchBytes: 2 * bytes }));
    for (const payloadBytes of [10, 10, 10, 10, 10, 10, 1000, 1000, 1000, 5000, 1000]) {
      lane.offer(message(1, payloadBytes));
    }
    expect(sizes(runAll(lane, () => committed))).toEqual([1, 2, 3, 2, 1, 1, 1]);
  });

  it("finds one bad message in 1,000 with 21 transactions and one burial", () => {
    const lane = warmLane();
    const messages = offer(lane, 1000);
    const bad = new Set([messages[0]!]);
    const steps = runAll(lane, (step) => (isBad(step, bad) ? failed : committed));
    expect(sizes(steps).slice(0, 12)).toEqual([1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, "bury", 2]);
    expect(steps.length).toBeLessThanOrEqual(22);
    expect(lane.counts).toMatchObject({ buried: 1, committed: 2999 });
  });

  it("commits all good messages in order and buries all bad ones with no more than 21 transactions each", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(999), { maxLength: 20 }), (numbers) => {
        const lane = warmLane();
        const messages = offer(lane, 1000);
        const bad = new Set(numbers.map((number) => messages[number]!));
        const done: InboundMessage[] = [];
        const steps = runAll(lane, (step) => {
          if (isBad(step, bad)) return failed;
          if (step.kind === "batch") done.push(...step.messages);
          else if (step.kind === "bury") done.push(step.message);
          return committed;
        });
        expect(done).toEqual(messages);
        const buried = steps.flatMap((step) => (step.kind === "bury" ? [step.message] : []));
        expect(new Set(buried)).toEqual(bad);
        expect(steps.length).toBeLessThanOrEqual(11 + 22 * bad.size);
      }),
      { numRuns: 100 },
    );
  });

  it("does not bisect what always fails: 1,000 messages take little more than 1,000 transactions", () => {
    const lane = warmLane();
    offer(lane, 1000);
    const batches = runAll(lane, (step) => (step.kind === "batch" ? failed : committed)).filter(
      ({ kind }) => kind === "batch",
    );
    expect(lane.counts.buried).toBe(1000);
    expect(batches.length).toBeLessThan(1030);
  });

  it("makes large batches again when what always failed succeeds", () => {
    const lane = warmLane();
    offer(lane, 1000);
    runAll(lane, (step) => (step.kind === "batch" ? failed : committed));
    offer(lane, 3000);
    expect(sizes(runAll(lane, () => committed))).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 977]);
  });

  it("halves a batch at once after what no message is to blame for, and pauses, longer each time, for one that is alone", () => {
    const lane = warmLane();
    offer(lane, 100);
    let now = 0;
    const pauses: number[] = [];
    const counts: number[] = [];
    for (let times = 0; times < 14; times++) {
      const step = lane.next(now) as BatchStep;
      counts.push(step.messages.length);
      lane.settle(step, transient, now);
      pauses.push(Math.max(0, lane.readyAt - now));
      if (lane.readyAt > now) expect(lane.next(lane.readyAt - 1)).toBeUndefined();
      now = Math.max(now, lane.readyAt);
    }
    expect(counts).toEqual([100, 50, 25, 12, 6, 3, 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(pauses).toEqual([0, 0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    const steps = runAll(lane, () => committed);
    expect(steps.flatMap((step) => (step.kind === "batch" ? step.messages : [])).map(({ id }) => id)).toEqual(
      Array.from({ length: 100 }, (_, number) => `m${number}`),
    );
  });

  it("keeps what comes after it was told to hold, in order, and does not hand it out", async () => {
    const lane = new Lane(subscription, context());
    const before = offer(lane, 3);
    const first = lane.next(0)!;
    lane.hold();
    const after = offer(lane, 2);
    lane.settle(first, committed, 0);
    const drained = lane.drain();
    const steps = runAll(lane, () => committed);
    expect([first, ...steps].flatMap((step) => (step.kind === "batch" ? step.messages : []))).toEqual(before);
    expect(await drained).toBe(true);
    expect([...lane.unfinished]).toEqual(after);
    expect(lane.readyAt).toBe(Number.POSITIVE_INFINITY);
    // A dead letter that is tried again waits for none of these.
    lane.retry({ deadLetterId: 1n, message: message(9) });
    lane.retry({ deadLetterId: 2n, message: message(9) });
    expect(sizes(runAll(lane, () => committed))).toEqual(["retry", "retry"]);
  });

  it("keeps 50 ms messages far from a statement timeout of 30 s, from the first batch on", () => {
    const lane = new Lane(subscription, context());
    offer(lane, 1000);
    const steps = runAll(lane, (step) => ({ kind: "committed", durationMs: 50 * (step as BatchStep).messages.length }));
    expect(Math.max(...steps.map((step) => (step as BatchStep).messages.length))).toBe(20);
  });

  it("resolves drain when nothing is left, and says when that will not be", async () => {
    const lane = warmLane();
    expect(await lane.drain()).toBe(true);
    offer(lane, 2);
    const drained = lane.drain();
    runAll(lane, () => committed);
    expect(await drained).toBe(true);
    offer(lane, 2);
    const cut = lane.drain();
    lane.stop();
    expect(await cut).toBe(false);
  });
});
