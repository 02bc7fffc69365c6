/**
 * What a reader makes of answers that are late, or of somebody who changes its consumer or its stream. What is delivered is for
 * the simulator.
 */
import { expect, it } from "vitest";
import {
  type ConsumerLook,
  type ReaderOutcome,
  type ReaderStep,
  type StreamLook,
  StreamReader,
  type StreamState,
} from "../../../src/bridge/streams/reader.js";

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

const consumer: ConsumerLook = { fits: true, delivered: 5, deliveries: 5, ackFloor: 5, pending: 0 };

const look: StreamLook = {
  created: "today",
  first: 1,
  last: 5,
  retention: "limits",
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
  one.settle(step!, outcome, 0);
}

function reading(): StreamReader {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look });
  settle(one, "prepare", prepared);
  expect(one.reading).toBeDefined();
  return one;
}

it("goes on when a message overtakes the answer to a look at the stream", () => {
  const one = reading();
  const check = one.next(0)!;
  expect(check.kind).toBe("check");
  expect(one.receive({ number: 6, nth: 6, at: 0n, bytes: 1, reply: "" }, 0, 0)).toBeDefined();
  one.settle(check, { kind: "seen", look }, 0);
  expect(one.reading).toBeDefined();
});

it("begins anew when the stream ends before what it had received", () => {
  const one = reading();
  one.receive({ number: 6, nth: 6, at: 0n, bytes: 1, reply: "" }, 0, 0);
  settle(one, "check", { kind: "seen", look });
  expect(one.reading).toBeUndefined();
});

it("begins anew when somebody has changed its consumer", () => {
  const one = reading();
  settle(one, "check", { kind: "seen", look: { ...look, consumers: [{ ...consumer, fits: false }, undefined] } });
  expect(one.reading).toBeUndefined();
});

it("looks again when its consumer turns out to be in another stream than the one that it saw", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look });
  settle(one, "prepare", { ...prepared, created: "tomorrow" });
  expect(one.reading).toBeUndefined();
  const step = one.next(1);
  expect(step?.kind).toBe("take");
});

it("does not read a consumer from which another process has taken since the look", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look });
  settle(one, "prepare", { ...prepared, delivered: 6, deliveries: 6 });
  expect(one.reading).toBeUndefined();
  one.wake();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look });
  expect(one.next(0)).toMatchObject({ kind: "prepare", isThere: false, from: { number: 6 }, deleteAfter: [0] });
});

it("says that it cannot count so far, rather than taking two messages for one", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look: { ...look, last: 2 ** 53 } });
  const step = one.next(1);
  expect(step).toMatchObject({ kind: "record", state: { problem: expect.stringContaining("9007199254740991") } });
});

it("pauses where the stream ends before what is done behind the position", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: { ...fresh, done: [[8, 9]] } });
  settle(one, "look", { kind: "seen", look: { ...look, last: 7 } });
  expect(one.next(0)).toMatchObject({ kind: "record", state: { paused: true } });
});

it("keeps a problem that the server has with its consumer until there is one", () => {
  const one = reader();
  settle(one, "take", { kind: "taken", state: fresh });
  settle(one, "look", { kind: "seen", look });
  settle(one, "prepare", { kind: "problem", problem: "filters overlap" });
  const record = one.next(9)!;
  expect(record).toMatchObject({ kind: "record", state: { problem: "filters overlap" } });
  one.settle(record, { kind: "written" }, 9);
  for (let time = 20; time < 100; time += 20) {
    const again = one.next(time)!;
    expect(again.kind).toBe("look");
    one.settle(again, { kind: "seen", look }, time);
    const prepare = one.next(time)!;
    expect(prepare.kind).toBe("prepare");
    one.settle(prepare, { kind: "problem", problem: "filters overlap" }, time);
  }
  const [last, made] = [one.next(200)!, { kind: "seen", look } as const];
  one.settle(last, made, 200);
  one.settle(one.next(200)!, prepared, 200);
  expect(one.next(200)).toMatchObject({ kind: "record", state: { problem: undefined } });
});
