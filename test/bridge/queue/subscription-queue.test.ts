import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type InboundMessage, memoryOf } from "../../../src/nats/bridge/message.js";
import { type BatchStep, type Outcome, type Step, SubscriptionQueue } from "../../../src/nats/bridge/queue/index.js";
import { context, message, subscription } from "./support.js";

const committed: Outcome = { kind: "committed", durationMs: 1 };
const failed: Outcome = { kind: "failed", error: { code: "23505", message: "duplicate key" } };
const transient: Outcome = { kind: "transient", error: { code: "40P01", message: "deadlock detected" } };

/** A queue whose batches may have so many messages from the beginning. */
function warmQueue(most = 1000): SubscriptionQueue {
  const queue = new SubscriptionQueue(subscription, context({ maxBatchMessages: most }));
  for (let number = 0; number < 2 * most; number++) queue.offer(message(number));
  while (queue.length > 0) queue.onOutcome(queue.next(0)!, committed, 0);
  return queue;
}

function offer(queue: SubscriptionQueue, count: number): InboundMessage[] {
  const messages = Array.from({ length: count }, (_, number) => message(number));
  for (const each of messages) queue.offer(each);
  return messages;
}

/** Runs all there is, and returns the steps. */
function runAll(queue: SubscriptionQueue, outcomeOf: (step: Step) => Outcome): Step[] {
  const steps: Step[] = [];
  for (let now = 0; queue.readyAt < Number.POSITIVE_INFINITY; now = Math.max(now, queue.readyAt)) {
    const step = queue.next(now);
    if (step === undefined) continue;
    steps.push(step);
    queue.onOutcome(step, outcomeOf(step), now);
  }
  return steps;
}

const sizes = (steps: readonly Step[]) =>
  steps.map((step) => (step.kind === "batch" ? step.messages.length : step.kind));
const isBad = (step: Step, bad: ReadonlySet<InboundMessage>) =>
  step.kind === "batch" && step.messages.some((each) => bad.has(each));

describe("a queue", () => {
  it("returns the first message at once, and what arrived meanwhile as the next batch", () => {
    const queue = warmQueue();
    const [first, ...others] = [message(1), message(2), message(3)];
    queue.offer(first!);
    const step = queue.next(0) as BatchStep;
    for (const each of others) queue.offer(each);
    expect(step.messages).toEqual([first]);
    expect(queue.next(0)).toBeUndefined();
    queue.onOutcome(step, committed, 0);
    expect(queue.next(0)).toMatchObject({ kind: "batch", messages: others });
  });

  it("ends a batch at its limits, but a single message may be larger", () => {
    const bytes = memoryOf(message(1, 1000));
    const queue = new SubscriptionQueue(subscription, context({ maxBatchMessages: 3, maxBatchBytes: 2 * bytes }));
    for (const payloadBytes of [10, 10, 10, 10, 10, 10, 1000, 1000, 1000, 5000, 1000]) {
      queue.offer(message(1, payloadBytes));
    }
    expect(sizes(runAll(queue, () => committed))).toEqual([1, 2, 3, 2, 1, 1, 1]);
  });

  it("finds one bad message in 1,000 with 21 transactions and one dead letter", () => {
    const queue = warmQueue();
    const messages = offer(queue, 1000);
    const bad = new Set([messages[0]!]);
    const steps = runAll(queue, (step) => (isBad(step, bad) ? failed : committed));
    expect(sizes(steps).slice(0, 12)).toEqual([1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, "dead_letter", 2]);
    expect(steps.length).toBeLessThanOrEqual(22);
    expect(queue.counts).toMatchObject({ deadLettered: 1, committed: 2999 });
  });

  it("commits all good messages in order and dead-letters all bad ones with no more than 21 transactions each", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(999), { maxLength: 20 }), (numbers) => {
        const queue = warmQueue();
        const messages = offer(queue, 1000);
        const bad = new Set(numbers.map((number) => messages[number]!));
        const done: InboundMessage[] = [];
        const steps = runAll(queue, (step) => {
          if (isBad(step, bad)) return failed;
          if (step.kind === "batch") done.push(...step.messages);
          else if (step.kind === "dead_letter") done.push(step.message);
          return committed;
        });
        expect(done).toEqual(messages);
        const deadLettered = steps.flatMap((step) => (step.kind === "dead_letter" ? [step.message] : []));
        expect(new Set(deadLettered)).toEqual(bad);
        expect(steps.length).toBeLessThanOrEqual(11 + 22 * bad.size);
      }),
      { numRuns: 100 },
    );
  });

  it("does not bisect what always fails: 1,000 messages take little more than 1,000 transactions", () => {
    const queue = warmQueue();
    offer(queue, 1000);
    const batches = runAll(queue, (step) => (step.kind === "batch" ? failed : committed)).filter(
      ({ kind }) => kind === "batch",
    );
    expect(queue.counts.deadLettered).toBe(1000);
    expect(batches.length).toBeLessThan(1030);
  });

  it("makes large batches again when what always failed succeeds", () => {
    const queue = warmQueue();
    offer(queue, 1000);
    runAll(queue, (step) => (step.kind === "batch" ? failed : committed));
    offer(queue, 3000);
    expect(sizes(runAll(queue, () => committed))).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 977]);
  });

  it("halves a batch at once after what no message is to blame for, and pauses, longer each time, for one that is alone", () => {
    const queue = warmQueue();
    offer(queue, 100);
    let now = 0;
    const pauses: number[] = [];
    const counts: number[] = [];
    for (let times = 0; times < 14; times++) {
      const step = queue.next(now) as BatchStep;
      counts.push(step.messages.length);
      queue.onOutcome(step, transient, now);
      pauses.push(Math.max(0, queue.readyAt - now));
      if (queue.readyAt > now) expect(queue.next(queue.readyAt - 1)).toBeUndefined();
      now = Math.max(now, queue.readyAt);
    }
    expect(counts).toEqual([100, 50, 25, 12, 6, 3, 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(pauses).toEqual([0, 0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    const steps = runAll(queue, () => committed);
    expect(steps.flatMap((step) => (step.kind === "batch" ? step.messages : [])).map(({ id }) => id)).toEqual(
      Array.from({ length: 100 }, (_, number) => `m${number}`),
    );
  });

  it("keeps what comes after it was told to hold, in order, and does not hand it out", async () => {
    const queue = new SubscriptionQueue(subscription, context());
    const before = offer(queue, 3);
    const first = queue.next(0)!;
    queue.hold();
    const after = offer(queue, 2);
    queue.onOutcome(first, committed, 0);
    const drained = queue.drain();
    const steps = runAll(queue, () => committed);
    expect([first, ...steps].flatMap((step) => (step.kind === "batch" ? step.messages : []))).toEqual(before);
    await drained;
    expect([...queue.unfinished]).toEqual(after);
    expect(queue.readyAt).toBe(Number.POSITIVE_INFINITY);
  });

  it("keeps 50 ms messages far from a statement timeout of 30 s, from the first batch on", () => {
    const queue = new SubscriptionQueue(subscription, context());
    offer(queue, 1000);
    const steps = runAll(queue, (step) => ({
      kind: "committed",
      durationMs: 50 * (step as BatchStep).messages.length,
    }));
    expect(Math.max(...steps.map((step) => (step as BatchStep).messages.length))).toBe(20);
  });

  it("resolves drain when nothing is left, or the queue is stopped", async () => {
    const queue = warmQueue();
    await queue.drain();
    offer(queue, 2);
    let isDrained = false;
    const drained = queue.drain().then(() => (isDrained = true));
    const step = queue.next(0)!;
    await Promise.resolve();
    expect(isDrained).toBe(false);
    queue.onOutcome(step, committed, 0);
    await drained;
    offer(queue, 2);
    const cut = queue.drain();
    queue.stop();
    await cut;
    await queue.drain();
  });
});
