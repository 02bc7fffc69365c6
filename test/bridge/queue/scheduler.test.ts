import { describe, expect, it } from "vitest";
import { type Outcome, QueueScheduler, type Step, SubscriptionQueue } from "../../../src/nats/bridge/queue/index.js";
import { context, message, subscription } from "./support.js";

const committed: Outcome = { kind: "committed", durationMs: 1 };
const forever = { kind: "wait", waitMs: Number.POSITIVE_INFINITY };

function setUp(sessions: number, queues: number, messages: number) {
  const scheduler = new QueueScheduler(sessions);
  const shared = context({ maxBatchMessages: 1 });
  const all = Array.from(
    { length: queues },
    (_, id) => new SubscriptionQueue({ ...subscription, id: BigInt(id) }, shared),
  );
  for (const queue of all) {
    scheduler.add(queue);
    for (let number = 0; number < messages; number++) queue.offer(message(number));
  }
  const next = (now = 0): Step => {
    const step = scheduler.next(now);
    if (step.kind === "wait") throw new Error(`there is no step for ${step.waitMs} ms`);
    return step;
  };
  return { scheduler, queues: all, shared, next };
}

describe("the scheduler of queues", () => {
  it("goes on at once when Postgres answers again", () => {
    const { scheduler, next } = setUp(1, 1, 1);
    scheduler.onOutcome(next(), { kind: "unavailable" }, 0);
    let ready = 0;
    scheduler.onReady = () => ready++;
    scheduler.wake();
    expect(ready).toBe(1);
    expect(next(1).kind).toBe("batch");
  });

  it("lets a stream with many queues have no more turns than another subscription, and not all sessions", () => {
    const scheduler = new QueueScheduler(4);
    const shared = context({ maxBatchMessages: 1 });
    const made = (id: bigint) => new SubscriptionQueue({ ...subscription, id }, shared);
    const stream = Array.from({ length: 16 }, () => made(1n));
    const others = [made(2n), made(3n)];
    for (const queue of [...stream, ...others]) {
      scheduler.add(queue);
      for (let number = 0; number < 50; number++) queue.offer(message(number));
    }
    const out: Step[] = [];
    const fill = (): void => {
      for (let step = scheduler.next(0); step.kind !== "wait"; step = scheduler.next(0)) out.push(step);
    };
    const ran = new Map<bigint, number>();
    fill();
    for (let steps = 0; steps < 60; steps++) {
      // Steps of the stream that stand still would be the oldest ones.
      const step = out.shift()!;
      ran.set(step.subscription.id, (ran.get(step.subscription.id) ?? 0) + 1);
      scheduler.onOutcome(step, committed, 0);
      fill();
      expect(out.length).toBe(4);
      expect(out.filter(({ subscription: { id } }) => id === 1n).length).toBeLessThanOrEqual(3);
    }
    for (const id of [2n, 3n]) expect(ran.get(id)).toBeGreaterThan(10);
    for (const queue of others) scheduler.remove(queue);
    while (out.length > 0) scheduler.onOutcome(out.shift()!, committed, 0);
    fill();
    expect(out.length).toBe(4);
    expect(new Set(out.map((step) => step.subscription.id))).toEqual(new Set([1n]));
  });

  it("lets no queue of a stream wait while another one of them has all its messages run", () => {
    const scheduler = new QueueScheduler(2);
    const shared = context({ maxBatchMessages: 1 });
    const made = (id: bigint) => new SubscriptionQueue({ ...subscription, id }, shared);
    const stream = Array.from({ length: 4 }, () => made(1n));
    for (const queue of [...stream, made(2n)]) {
      scheduler.add(queue);
      for (let number = 0; number < 40; number++) queue.offer(message(number));
    }
    const out: Step[] = [];
    for (let steps = 0; steps < 60; steps++) {
      for (let step = scheduler.next(0); step.kind !== "wait"; step = scheduler.next(0)) out.push(step);
      scheduler.onOutcome(out.shift()!, committed, 0);
    }
    const left = stream.map((queue) => queue.length);
    expect(Math.max(...left) - Math.min(...left)).toBeLessThanOrEqual(2);
  });

  it("runs all that a stream has, whichever of its queues pause", () => {
    const scheduler = new QueueScheduler(2);
    const shared = context({ maxBatchMessages: 1 });
    const made = (id: bigint) => new SubscriptionQueue({ ...subscription, id }, shared);
    const queues = [...Array.from({ length: 5 }, () => made(1n)), made(2n)];
    for (const queue of queues) {
      scheduler.add(queue);
      for (let number = 0; number < 4; number++) queue.offer(message(number));
    }
    let [now, ran, turn] = [0, 0, 0];
    while (ran < 24) {
      const step = scheduler.next(now);
      if (step.kind === "wait") {
        expect(step.waitMs).toBeLessThan(Number.POSITIVE_INFINITY);
        now += step.waitMs;
        continue;
      }
      turn += 1;
      const fails = turn % 3 === 0;
      scheduler.onOutcome(step, fails ? { kind: "unavailable" } : committed, now);
      if (!fails) ran += 1;
    }
    expect(scheduler.next(now)).toEqual(forever);
  });

  it("leaves no session to a role whose queue is gone, though the queue has another role by then", () => {
    const scheduler = new QueueScheduler(2);
    const shared = context({ maxBatchMessages: 1 });
    const made = (id: bigint, runAs: string) => new SubscriptionQueue({ ...subscription, id, runAs }, shared);
    const gone = made(1n, "app");
    for (const queue of [gone, made(2n, "other"), made(2n, "other")]) {
      scheduler.add(queue);
      queue.offer(message(0));
    }
    gone.subscription = { ...gone.subscription, runAs: "new" };
    scheduler.remove(gone);
    expect([scheduler.next(0).kind, scheduler.next(0).kind]).toEqual(["batch", "batch"]);
  });

  it("tells when an idle queue gets a message, and not for each message", () => {
    const { scheduler, queues } = setUp(1, 1, 0);
    let ready = 0;
    scheduler.onReady = () => ready++;
    for (let number = 0; number < 10; number++) queues[0]!.offer(message(number));
    expect(ready).toBe(1);
  });

  it("drains all queues, or is stopped", async () => {
    const { scheduler, queues, next } = setUp(1, 2, 1);
    let isDrained = false;
    const drained = scheduler.drain().then(() => (isDrained = true));
    scheduler.onOutcome(next(), committed, 0);
    await Promise.resolve();
    expect(isDrained).toBe(false);
    scheduler.onOutcome(next(), committed, 0);
    await drained;
    queues[1]!.offer(message(1));
    const cut = scheduler.drain();
    scheduler.stop();
    await cut;
    expect(scheduler.next(0)).toEqual(forever);
  });
});
