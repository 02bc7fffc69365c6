import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { afterBatch, batchLimit, type RunOutcome } from "../../../src/nats/bridge/queue/rules.js";
import { context, message, subscription } from "./support.js";

const error = { code: "P0001", message: "no" };

/** Limit of the batches of a queue, after the outcomes that it is told. */
class BatchSize {
  limit = 1;
  readonly #settings;

  constructor(maxBatchMessages: number, batchTargetMs: number) {
    this.#settings = context({ maxBatchMessages, batchTargetMs }).settings;
  }

  committed(count: number, durationMs: number): void {
    this.#ended(count, { kind: "committed", durationMs });
  }

  deadLettered(): void {
    this.#ended(1, { kind: "failed", error });
  }

  failedBatch(count: number): void {
    this.#ended(count, { kind: "transient", error });
  }

  timedOut(): void {
    this.#ended(2, { kind: "timed_out", error });
  }

  #ended(count: number, outcome: RunOutcome): void {
    const step = { kind: "batch", subscription, messages: [message(1)], savedIds: [] } as const;
    const part = { count, attempts: 0, losses: 0, isOneByOne: false };
    const run = { step, part, isRetry: false, settings: this.#settings };
    this.limit = batchLimit(this.limit, run, outcome, afterBatch(run, outcome));
  }
}

describe("the size of batches", () => {
  it("doubles with each full batch up to the limit, and not with smaller ones", () => {
    const size = new BatchSize(1000, 1000);
    for (let batches = 0; batches < 10; batches++) size.committed(size.limit, 1);
    expect(size.limit).toBe(1000);
    const other = new BatchSize(1000, 1000);
    other.committed(1, 1);
    other.committed(1, 1);
    expect(other.limit).toBe(2);
  });

  it("is what takes the target time at the pace of the last batch", () => {
    const size = new BatchSize(1000, 1000);
    while (size.limit < 1000) size.committed(size.limit, 1);
    size.committed(3, 150);
    expect(size.limit).toBe(20);
    size.committed(1, 7000);
    expect(size.limit).toBe(1);
  });

  it("is halved by a dead letter, one after a timeout, and half of a batch that was abandoned", () => {
    const size = new BatchSize(1000, 1000);
    while (size.limit < 1000) size.committed(size.limit, 1);
    size.deadLettered();
    expect(size.limit).toBe(500);
    size.failedBatch(20);
    expect(size.limit).toBe(10);
    size.timedOut();
    expect(size.limit).toBe(1);
  });

  it("never lets messages of one pace exceed the target time, and reaches half of it", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 900, noNaN: true }), (messageMs) => {
        const size = new BatchSize(1000, 1000);
        for (let batches = 0; batches < 20; batches++) {
          expect(size.limit * messageMs).toBeLessThanOrEqual(1000.001);
          size.committed(size.limit, size.limit * messageMs);
        }
        expect(size.limit).toBeGreaterThanOrEqual(Math.min(1000, Math.floor(500 / messageMs)));
      }),
    );
  });

  it("is a whole number from 1 to the limit, whatever happens", () => {
    const event = fc.oneof(
      fc.record({ count: fc.integer({ min: 1, max: 1000 }), durationMs: fc.double({ min: 0, noNaN: true }) }),
      fc.constantFrom("deadLettered", "timedOut"),
      fc.integer({ min: 1, max: 1000 }),
    );
    fc.assert(
      fc.property(fc.array(event), (events) => {
        const size = new BatchSize(64, 1000);
        for (const one of events) {
          if (one === "deadLettered") size.deadLettered();
          else if (one === "timedOut") size.timedOut();
          else if (typeof one === "number") size.failedBatch(one);
          else if (typeof one === "object") size.committed(one.count, one.durationMs);
          expect(Number.isInteger(size.limit) && size.limit >= 1 && size.limit <= 64).toBe(true);
        }
      }),
    );
  });
});
