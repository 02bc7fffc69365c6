import { describe, expect, it } from "vitest";
import { type Outcome, QueueScheduler, type Step, SubscriptionQueue } from "../../../src/bridge/queue/index.js";
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
    scheduler.settle(next(), { kind: "unavailable" }, 0);
    let ready = 0;
    scheduler.onReady = () => ready++;
    scheduler.wake();
    expect(ready).toBe(1);
    expect(next(1).kind).toBe("batch");
  });

  it("tells when an idle queue gets a message, and not for each message", () => {
    const { scheduler, queues } = setUp(1, 1, 0);
    let ready = 0;
    scheduler.onReady = () => ready++;
    for (let number = 0; number < 10; number++) queues[0]!.offer(message(number));
    expect(ready).toBe(1);
  });

  it("drains all queues, or says that it was stopped before", async () => {
    const { scheduler, queues, next } = setUp(1, 2, 1);
    const drained = scheduler.drain();
    for (let steps = 0; steps < 2; steps++) scheduler.settle(next(), committed, 0);
    expect(await drained).toBe(true);
    queues[1]!.offer(message(1));
    const cut = scheduler.drain();
    scheduler.stop();
    expect(await cut).toBe(false);
    expect(scheduler.next(0)).toEqual(forever);
  });
});
