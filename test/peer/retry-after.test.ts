/** `RetryAfter`: a handler says when it wants a message again. */

import { describe, expect, it } from "vitest";
import { enqueue, HawserError, RetryAfter, type WorkerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { tableNamed } from "../support/tables.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, RecordingWorker, TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const hourMs = 3_600_000;
/** One attempt, and pauses that no test waits for. */
const once = { defaults: { retry: { attempts: 1, delayMs: hourMs } } } satisfies WorkerOptions;

const starts = (peer: RecordingWorker | TestPeer): string[] =>
  peer.received.all.map(({ text, attempt }) => `${text} ${attempt}`);
const nothingIsLeft = () => eventually("nothing is left", async () => (await world.storedMessages()) === 0);
const due = async (table: string): Promise<{ attempts: number; inMs: number }[]> =>
  await world.query(
    `SELECT attempts, (extract(epoch FROM due_at - clock_timestamp()) * 1000)::float8 AS "inMs"
       FROM ${tableNamed(table)} WHERE due_at IS NOT NULL ORDER BY due_at`,
  );

/** Throws these one after another, and then nothing. */
function throwing(...errors: unknown[]): Handler {
  return () => {
    if (errors.length > 0) throw errors.shift();
  };
}

describe.each([{ transactional: false }, { transactional: true }])(
  "a handler that wants an enqueued message later (transactional: $transactional)",
  ({ transactional }) => {
    it("gets it again as the same attempt, however often, and what is behind it of its key waits", async () => {
      const wanted = Array.from({ length: 4 }, () => new RetryAfter(20));
      const b = await world.working("b-1", { ...once, transactional, concurrency: 1 }, throwing(...wanted));
      await world.query("SELECT hawser.enqueue_batch('b', ARRAY['x', 'y'], key => 'k')");
      await nothingIsLeft();
      expect(starts(b)).toEqual([...Array(5).fill("x 1"), "y 1"]);
      expect(await world.deadLetters(0)).toEqual([]);
      expect(b.statuses.all.filter(({ kind }) => kind === "attempt_failed")).toEqual([]);
    });

    it("waits until the time that it says, also a Date, and no longer than the message lives", async () => {
      const later = new RetryAfter(new Date(Date.now() + 2 * hourMs));
      await world.working("b-1", { ...once, transactional, concurrency: 1 }, throwing(later, new RetryAfter(hourMs)));
      await enqueue(world, "b", "x");
      await enqueue(world, "b", "y", { ttlMs: hourMs / 2 });
      await eventually("both are put off", async () => (await due("queue")).length === 2);
      const [y, x] = await due("queue");
      expect([y!.attempts, x!.attempts]).toEqual([0, 0]);
      expect(y!.inMs / hourMs).toBeCloseTo(0.5, 1);
      expect(x!.inMs / hourMs).toBeCloseTo(2, 1);
    });

    it("has a dead letter when the message's time to live ends before", async () => {
      const b = await world.working("b-1", { ...once, transactional }, throwing(new RetryAfter(hourMs)));
      await enqueue(world, "b", "x", { ttlMs: 1_000 });
      expect(await world.deadLetters(1)).toMatchObject([{ error_code: "expired", attempts: 1 }]);
      expect(starts(b)).toEqual(["x 1"]);
    });

    it("can have it count as an attempt, with a reason", async () => {
      const reason = "the limit of the provider is used up";
      const wanted = Array.from({ length: 2 }, () => new RetryAfter(5, { countsAttempt: true, reason }));
      const retry = { attempts: 2, delayMs: hourMs };
      const b = await world.working("b-1", { transactional, defaults: { retry } }, throwing(...wanted));
      await enqueue(world, "b", "x");
      expect(await world.deadLetters(1)).toMatchObject([
        {
          error_code: "handler_failed",
          error_message: reason,
          attempts: 2,
          failures: [{ attempt: 1 }, { attempt: 2 }],
        },
      ]);
      expect(starts(b)).toEqual(["x 1", "x 2"]);
      expect(await b.saw("attempt_failed")).toMatchObject({ attempt: 1, message: reason });
    });
  },
);

it("a handler that wants a sent message much later holds up its key alone", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1", once, (message) => {
    if (message.text() === "x") throw new RetryAfter(hourMs);
  });
  await Promise.all([a.send("b", "x", { key: "x" }), a.send("b", "behind it", { key: "x" })]);
  await a.send("b", "y", { key: "y" });
  await eventually("it is put off", async () => (await due("queue")).length === 1);
  const [putOff] = await due("queue");
  expect(putOff).toMatchObject({ attempts: 0 });
  expect(putOff!.inMs / hourMs).toBeCloseTo(1, 1);
  await b.received.length(2);
  expect(starts(b).toSorted()).toEqual(["x 1", "y 1"]);
});

it("a handler that wants a sent message a little later gets it as the same attempt, before what is behind it", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1", once, throwing(new RetryAfter(20), new RetryAfter(20)));
  await Promise.all([a.send("b", "x"), a.send("b", "y")]);
  await b.received.length(4);
  expect(starts(b)).toEqual(["x 1", "x 1", "x 1", "y 1"]);
});

it("an at-most-once message that its handler wants later is dropped", async () => {
  const a = await world.started("a-1");
  const b = await world.started("b-1", once, throwing(new RetryAfter(5)));
  await a.send("b", "x", { delivery: "at-most-once" });
  expect(await b.saw("dead_letter")).toMatchObject({ stored: false, code: "handler_failed" });
});

it.each([{ transactional: false }, { transactional: true }])(
  "a batch that its handler wants later comes again as a whole (%j)",
  async ({ transactional }) => {
    const sizes: number[] = [];
    const b = world.worker("b-1", once);
    await b.handleBatch("b", { transactional, maxMessages: 8, waitMs: 60_000 }, (messages) => {
      sizes.push(messages.length);
      if (sizes.length === 1) throw new RetryAfter(20);
    });
    await b.start();
    await world.query("SELECT hawser.enqueue_batch('b', ARRAY(SELECT n::text FROM generate_series(1, 8) AS n))");
    await nothingIsLeft();
    expect(sizes).toEqual([8, 8]);
    expect(await world.deadLetters(0)).toEqual([]);
  },
);

it("a message of a batch can be wanted later alone", async () => {
  const had: string[][] = [];
  const b = world.worker("b-1", once);
  await b.handleBatch("b", { maxMessages: 2, waitMs: 100 }, (messages, { fail }) => {
    had.push(messages.map((message) => `${message.text()} ${message.attempt}`).toSorted());
    const x = messages.find((message) => message.text() === "x");
    if (had.length === 1) fail(x!, new RetryAfter(20));
  });
  await b.start();
  await world.query("SELECT hawser.enqueue_batch('b', ARRAY['x', 'y'])");
  await nothingIsLeft();
  expect(had).toEqual([["x 1", "y 1"], ["x 1"]]);
});

it("is an error that another copy of the package knows, and refuses what is no time within ten years", () => {
  const error = new RetryAfter(0, { cause: "c" });
  expect(error).toBeInstanceOf(HawserError);
  expect(error).toMatchObject({ name: "RetryAfter", code: "handler_failed", cause: "c", countsAttempt: false });
  expect(new RetryAfter(new Date(0)).retryAt.getTime()).toBeGreaterThan(Date.now() - 60_000);
  for (const when of [
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    new Date(Number.NaN),
    new Date("2999-01-01"),
    "5" as never,
  ])
    expect(() => new RetryAfter(when)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
});
