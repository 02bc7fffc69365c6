/**
 * Late answers to a reader, and changes to its consumer or stream. The simulator covers deliveries.
 */
import { expect, it } from "vitest";
import {
  type ConsumerState,
  type ReaderOutcome,
  type ReaderStep,
  type StreamInfo,
  StreamReader,
  type StreamState,
} from "../../../src/nats/bridge/streams/reader.js";

const fresh: StreamState = {
  generation: 1n,
  server: "1",
  start: { all: true },
  created: "today",
  position: 5,
  done: [],
  lastDone: undefined,
  nothingUntil: 0,
  paused: false,
  problem: undefined,
};

const consumer: ConsumerState = { fits: true, delivered: 5, deliveries: 5, ackFloor: 5, pending: 0 };

const info: StreamInfo = {
  created: "today",
  first: 1,
  last: 5,
  retention: "limits",
  overwrites: false,
  lastDoneAt: undefined,
  consumers: [consumer, undefined],
};

const prepared = { kind: "prepared", fits: true, created: "today", delivered: 5, deliveries: 5 } as const;

function reader(): StreamReader {
  return new StreamReader({
    ...{
      hasFilter: false,
      streamMessages: 100,
      streamBytes: 1e6,
      streamSpan: 100,
      streamSilenceMs: 5000,
      streamCheckMs: 2000,
    },
    ...{ streamRetryMinMs: 1, streamRetryMaxMs: 1, streamSkipMessages: 100 },
  });
}

/** Carries out a step. */
function settle(one: StreamReader, kind: ReaderStep["kind"], outcome: ReaderOutcome): void {
  const step = one.next(0);
  expect(step?.kind).toBe(kind);
  one.onOutcome(step!, outcome, 0);
}

function reading(): StreamReader {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info });
  settle(one, "prepare", prepared);
  expect(one.reading).toBeDefined();
  return one;
}

it("continues when a message overtakes the answer to an inspection of the stream", () => {
  const one = reading();
  const check = one.next(0)!;
  expect(check.kind).toBe("check");
  expect(one.receive({ number: 6, nth: 6, at: 0n, bytes: 1, reply: "" }, 0, 0)).toBeDefined();
  one.onOutcome(check, { kind: "inspected", info }, 0);
  expect(one.reading).toBeDefined();
});

it("restarts when the stream ends before what it had received", () => {
  const one = reading();
  one.receive({ number: 6, nth: 6, at: 0n, bytes: 1, reply: "" }, 0, 0);
  settle(one, "check", { kind: "inspected", info });
  expect(one.reading).toBeUndefined();
});

it("restarts when somebody has changed its consumer", () => {
  const one = reading();
  settle(one, "check", { kind: "inspected", info: { ...info, consumers: [{ ...consumer, fits: false }, undefined] } });
  expect(one.reading).toBeUndefined();
});

it("inspects the stream again if its consumer belongs to another stream", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info });
  settle(one, "prepare", { ...prepared, created: "tomorrow" });
  expect(one.reading).toBeUndefined();
  const step = one.next(1);
  expect(step?.kind).toBe("take");
});

it("does not read a consumer from which another process has read since the inspection", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info });
  settle(one, "prepare", { ...prepared, delivered: 6, deliveries: 6 });
  expect(one.reading).toBeUndefined();
  one.wake();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info });
  expect(one.next(0)).toMatchObject({ kind: "prepare", exists: false, from: { number: 6 }, deleteAfter: [0] });
});

it("says that it cannot count so far, rather than taking two messages for one", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info: { ...info, last: 2 ** 53 } });
  const step = one.next(1);
  expect(step).toMatchObject({ kind: "record", state: { problem: expect.stringContaining("9007199254740991") } });
});

it("pauses if the stream ends before what is done behind the position", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: { ...fresh, done: [[8, 9]] } });
  settle(one, "inspect", { kind: "inspected", info: { ...info, last: 7 } });
  expect(one.next(0)).toMatchObject({ kind: "record", state: { paused: true } });
});

it("tells what is gone before the first message as overwritten, if the stream keeps so many of each subject", () => {
  const reasonOf = (overwrites: boolean) => {
    const one = reader();
    settle(one, "take", { kind: "taken", state: fresh });
    settle(one, "inspect", { kind: "inspected", info: { ...info, first: 9, last: 9, overwrites } });
    const step = one.next(0);
    return step?.kind === "record" ? step.missing?.reason : step?.kind;
  };
  expect([true, false].map(reasonOf)).toEqual(["overwritten", "cut_short"]);
});

it("keeps a problem that the server has with its consumer until there is one", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "inspect", { kind: "inspected", info });
  settle(one, "prepare", { kind: "problem", problem: "filters overlap" });
  const record = one.next(9)!;
  expect(record).toMatchObject({ kind: "record", state: { problem: "filters overlap" } });
  one.onOutcome(record, { kind: "written" }, 9);
  for (let time = 20; time < 100; time += 20) {
    const again = one.next(time)!;
    expect(again.kind).toBe("inspect");
    one.onOutcome(again, { kind: "inspected", info }, time);
    const prepare = one.next(time)!;
    expect(prepare.kind).toBe("prepare");
    one.onOutcome(prepare, { kind: "problem", problem: "filters overlap" }, time);
  }
  const [last, made] = [one.next(200)!, { kind: "inspected", info } as const];
  one.onOutcome(last, made, 200);
  one.onOutcome(one.next(200)!, prepared, 200);
  expect(one.next(200)).toMatchObject({ kind: "record", state: { problem: undefined } });
});
