import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type BatchStep, Lane, type Outcome, type Step } from "../../../src/bridge/lanes/index.js";
import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";
import { context, message, settings, subscription } from "./support.js";

const committed: Outcome = { kind: "committed", durationMs: 1 };
const failed: Outcome = { kind: "failed", error: { code: "23505", message: "duplicate key" } };
const timedOut: Outcome = { kind: "timed_out", error: { code: "57014", message: "statement timeout" } };
const transient: Outcome = { kind: "transient", error: { code: "40P01", message: "deadlock detected" } };
const lost: Outcome = { kind: "session_lost", message: "terminating connection" };

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

  it("tries one by one what was in a batch that timed out", () => {
    const lane = warmLane(8);
    const messages = offer(lane, 8);
    const hanging = new Set([messages[5]!]);
    const steps = runAll(lane, (step) => (isBad(step, hanging) ? timedOut : committed));
    expect(sizes(steps)).toEqual([8, 1, 1, 1, 1, 1, 1, "bury", 1, 1]);
    expect(steps[7]).toMatchObject({ message: messages[5], error: { code: "57014" }, attempts: 2 });
  });

  it("buries what loses its session twice while it is alone, with a code that says so", () => {
    const lane = warmLane(4);
    const messages = offer(lane, 4);
    const killer = new Set([messages[1]!]);
    const steps = runAll(lane, (step) => (isBad(step, killer) ? lost : committed));
    expect(sizes(steps)).toEqual([4, 2, 1, 1, 1, "bury", 2]);
    expect(steps[5]).toMatchObject({ message: messages[1], error: { code: "session_lost" }, attempts: 4 });
  });

  it("does not bury what lost its session once while it was alone", () => {
    const lane = warmLane();
    offer(lane, 1);
    lane.settle(lane.next(0)!, lost, 0);
    expect(runAll(lane, () => committed).map(({ kind }) => kind)).toEqual(["batch"]);
  });

  it("tries a batch again as it was after pauses that double up to a limit, and later with fewer messages", () => {
    const lane = warmLane();
    offer(lane, 100);
    let now = 0;
    const pauses: number[] = [];
    const counts: number[] = [];
    for (let times = 0; times < 9; times++) {
      const step = lane.next(now) as BatchStep;
      counts.push(step.messages.length);
      lane.settle(step, transient, now);
      expect(lane.next(lane.readyAt - 1)).toBeUndefined();
      pauses.push(lane.readyAt - now);
      now = lane.readyAt;
    }
    expect(pauses).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    expect(counts).toEqual([100, 100, 100, 50, 25, 12, 6, 3, 1]);
    const steps = runAll(lane, () => committed);
    expect(steps.flatMap((step) => (step.kind === "batch" ? step.messages : [])).map(({ id }) => id)).toEqual(
      Array.from({ length: 100 }, (_, number) => `m${number}`),
    );
  });

  it("counts no attempt while Postgres is away, and goes on at once when it is woken", () => {
    const lane = warmLane();
    offer(lane, 1);
    for (let times = 0; times < 5; times++) lane.settle(lane.next(1e6 * times)!, { kind: "unavailable" }, 1e6 * times);
    expect(lane.readyAt).toBe(4e6 + 1600);
    lane.wake();
    const steps = runAll(lane, (step) => (step.kind === "batch" ? failed : committed));
    expect(steps[1]).toMatchObject({ kind: "bury", attempts: 1 });
  });

  it("is not woken from a pause that has another reason", () => {
    const lane = warmLane();
    offer(lane, 1);
    lane.settle(lane.next(0)!, transient, 0);
    lane.wake();
    expect(lane.readyAt).toBe(100);
  });

  it("asks for a burial until it is done, and holds back what is behind it", () => {
    const lane = warmLane();
    const messages = offer(lane, 1);
    lane.settle(lane.next(0)!, failed, 0);
    lane.offer(message(7));
    const told: Outcome[] = [{ kind: "unavailable" }, lost, failed, committed];
    const steps = runAll(lane, (step) => (step.kind === "bury" ? told.shift()! : committed));
    expect(sizes(steps)).toEqual(["bury", "bury", "bury", "bury", 1]);
    expect(steps[3]).toMatchObject({ message: messages[0], attempts: 1 });
  });

  it("hands out nothing more when it is deposed", () => {
    const lane = warmLane();
    offer(lane, 2);
    lane.settle(lane.next(0)!, { kind: "deposed" }, 0);
    expect(lane.readyAt).toBe(Number.POSITIVE_INFINITY);
    expect(lane.next(1e9)).toBeUndefined();
    expect(lane.offer(message(3))).toBe(false);
    expect(lane.length).toBe(2);
  });

  it("knows when the oldest message that is not done was received", () => {
    const lane = warmLane();
    expect(lane.oldestReceivedAt).toBeUndefined();
    offer(lane, 3);
    const step = lane.next(0)!;
    expect(lane.oldestReceivedAt).toBe(0);
    lane.settle(step, committed, 0);
    expect(lane.oldestReceivedAt).toBeUndefined();
  });

  it("refuses and counts what does not fit, and gives its memory back when it is closed", () => {
    const bytes = memoryOf(message(1));
    // All but an eighth of it, which is the other one's.
    const shared = context({}, 8 * bytes);
    const [one, other] = [new Lane(subscription, shared), new Lane(subscription, shared)];
    for (let n = 0; n < 7; n++) expect(one.offer(message(1))).toBe(true);
    expect([one, other, one, other].map((lane) => lane.offer(message(1)))).toEqual([false, true, false, false]);
    expect([...shared.discards.bySubject]).toEqual([["sensors.a", 3]]);
    const step = one.next(0)!;
    one.close();
    one.settle(step, committed, 0);
    expect(shared.budget.usedBytes).toBe(bytes);
    expect(other.offer(message(2))).toBe(true);
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

describe("a retried dead letter", () => {
  const job = (number: number) => ({ deadLetterId: BigInt(number), message: message(number) });

  it("is run alone, in turns with the batches", () => {
    const lane = warmLane(2);
    offer(lane, 4);
    for (const number of [1, 2, 3, 4]) lane.retry(job(number));
    expect(sizes(runAll(lane, () => committed))).toEqual(["retry", 2, "retry", 2, "retry", "retry"]);
    expect(lane.counts.retried).toBe(4);
  });

  it("stays, with its new error, when it fails again", () => {
    const lane = warmLane();
    lane.retry(job(1));
    const told: Outcome[] = [failed, { kind: "unavailable" }, committed];
    const steps = runAll(lane, () => told.shift()!);
    expect(sizes(steps)).toEqual(["retry", "keep", "keep"]);
    expect(steps[2]).toMatchObject({ job: { deadLetterId: 1n }, error: { code: "23505" }, attempts: 1 });
  });

  it.each([
    ["its second lost session", lost, 2, "session_lost"],
    ["too many transient failures", transient, settings.retryTries, "40P01"],
  ])("stays after %s", (_reason, outcome, attempts, code) => {
    const lane = warmLane();
    lane.retry(job(1));
    const steps = runAll(lane, ({ kind }) => (kind === "retry" ? outcome : committed));
    expect(steps).toHaveLength(attempts + 1);
    expect(steps.at(-1)).toMatchObject({ kind: "keep", attempts, error: { code } });
  });

  it("counts the tries of each one for itself", () => {
    const lane = warmLane();
    for (const number of [1, 2]) lane.retry(job(number));
    const steps = runAll(lane, ({ kind }) => (kind === "retry" ? lost : committed));
    expect(sizes(steps)).toEqual(["retry", "retry", "keep", "retry", "retry", "keep"]);
  });
});
