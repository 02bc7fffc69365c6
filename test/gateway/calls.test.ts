/**
 * From a call's text to its answer, with a handler and a clock of the test's own.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { NatsFunctionsHandler } from "../../generated/ts/nats-functions/methods.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { GatewayError, HawserError } from "../../src/errors/index.js";
import { type CallLimits, Calls, type GatewayCall } from "../../src/gateway/calls.js";
import { Capacity } from "../../src/gateway/capacity.js";
import { type Answer, errorAnswerOf, type GatewaySession } from "../../src/gateway/protocol/index.js";
import { RecordingHandler } from "./recording-handler.js";

const limits: CallLimits = { callTimeoutMs: 5000, maxCallTimeoutMs: 60_000, maxResponseBytes: 1000 };
const slack = gatewayConstants.deadlineSlackMs;
const publish = 'Publish {"subject":"a","payload":"QQ=="}';
const getFile = 'GetFile {"store":"s","name":"n"}';
const request = (timeout: number | null) => `Request {"subject":"a","payload":"QQ==","timeout":${timeout}}`;

const rejections: unknown[] = [];
const noteRejection = (reason: unknown) => void rejections.push(reason);

beforeEach(() => {
  vi.useFakeTimers();
  process.on("unhandledRejection", noteRejection);
});

afterEach(async () => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
  // Unhandled rejections are told after the microtasks of a turn.
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", noteRejection);
  expect(rejections.splice(0)).toEqual([]);
});

/** Calls whose outcome is looked at later. */
function tested(
  handler: Partial<NatsFunctionsHandler<GatewayCall>> = {},
  changes: Partial<CallLimits & { capacity: number }> = {},
) {
  const capacity = new Capacity(changes.capacity ?? 10);
  const session = { id: 1, remoteAddress: "127.0.0.1:1", applicationName: "", isOpen: true };
  const full = new Proxy(new RecordingHandler(), {
    get: (recording, name) => {
      const given = (handler as Record<string | symbol, unknown>)[name] ?? Reflect.get(recording, name);
      return typeof given === "function" ? given.bind(recording) : given;
    },
  });
  const calls = new Calls(full, capacity, { ...limits, ...changes });
  /** How a call ends, and after how many ms; `waiting` until then. */
  const start = (query: string | Uint8Array, by: GatewaySession = session) => {
    const startedAt = performance.now();
    const end: { outcome: Answer | HawserError | "waiting"; afterMs: number } = { outcome: "waiting", afterMs: -1 };
    const settle = (outcome: unknown) => {
      end.outcome = outcome as Answer;
      end.afterMs = performance.now() - startedAt;
    };
    try {
      const answer = calls.answer(typeof query === "string" ? Buffer.from(query) : query, by);
      if (answer instanceof Promise) answer.then(settle, settle);
      else settle(answer);
    } catch (error) {
      settle(error);
    }
    return end;
  };
  return { calls, capacity, session, start };
}

/** A promise to settle by hand. */
function pending<T>() {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}

const never = () => new Promise<never>(() => undefined);
const codeOf = ({ outcome }: { outcome: unknown }) => (HawserError.is(outcome) ? outcome.code : outcome);
const flush = () => vi.advanceTimersByTimeAsync(0);

describe("an answer", () => {
  it("is there at once where the handler has it at once", () => {
    const { start } = tested();
    expect(start(publish).outcome).toEqual({ kind: "row", value: null });
    expect(start('PutValue {"bucket":"b","key":"k","data":""}').outcome).toEqual({ kind: "row", value: "7" });
  });

  it("comes later where the handler has it later, and without a timer that stays", async () => {
    const wait = pending<Uint8Array>();
    const { start } = tested({ request: () => wait.promise });
    const end = start(request(100));
    await flush();
    expect(end.outcome).toBe("waiting");
    wait.resolve(Buffer.from([0, 171, 255]));
    await flush();
    expect(end.outcome).toEqual({ kind: "row", value: "\\x00abff" });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("to a ping is NULL, without a place and without the handler", () => {
    const { start, capacity } = tested({}, { capacity: 1 });
    capacity.tryTake();
    expect(start("Ping").outcome).toEqual({ kind: "row", value: null });
    expect(start("Ping {}").outcome).toEqual({ kind: "row", value: null });
  });

  it("of rows is JSON by the names of the columns, with 64 bits as text", () => {
    const { outcome } = tested().start('PublishAck {"subject":"a","payload":"QQ=="}');
    expect(outcome).toEqual({ kind: "row", value: '[{"stream":"s","seq":"1","duplicate":false}]' });
  });

  it("that is no text is refused, with the place it was read from", () => {
    const { start } = tested({ getValue: () => Buffer.from([0xff]) });
    const call = 'GetValue {"bucket":"b","key":"k","type":"TYPE"}';
    const { outcome } = start(call.replace("TYPE", "json"));
    expect(outcome).toMatchObject({ code: "not_text", message: expect.stringContaining('bucket "b", key "k"') });
    expect(start(call.replace("TYPE", "binary")).outcome).toEqual({ kind: "row", value: "\\xff" });
  });
});

describe("a call that cannot be", () => {
  it.each(["constructor", "toString", "hasOwnProperty", "valueOf", "publish", "Pong"])(
    "is refused: the method %s",
    (method) => {
      expect(tested().start(`${method} {}`).outcome).toMatchObject({
        code: "gateway_protocol",
        message: `the gateway has no method ${method}`,
      });
    },
  );

  it.each([
    ["SELECT 1", "gateway_protocol"],
    ["Publish", "gateway_protocol"],
    ["Publish []", "gateway_protocol"],
    ['Publish {"subject":"a","payload":"QQ==","__proto__":{"headers":{}}}', "gateway_protocol"],
    ['Publish {"subject":"a","payload":"QQ==","constructor":1}', "gateway_protocol"],
    ['Publish {"subject":1,"payload":"QQ=="}', "gateway_protocol"],
    ['Publish {"subject":"a","payload":"Q"}', "gateway_protocol"],
    [`${publish}\nt\n`, "gateway_protocol"],
    ['PublishBatch {"subject":"a"}', "gateway_protocol"],
    ['GetValue {"bucket":"b","key":"k","type":"xml"}', "gateway_protocol"],
    ['Request {"subject":"a","payload":"","timeout":1e10}', "gateway_protocol"],
    ["Publish {}", "null_argument"],
    ['Publish {"subject":null,"payload":"QQ=="}', "null_argument"],
    ['PublishBatch {"subject":"a"}\nn\n', "null_argument"],
    ['PublishBatch {"subject":"a"}\nt1,-\nx', "null_argument"],
    ['Publish {"subject":"a.*","payload":"QQ=="}', "invalid_argument"],
    ['Publish {"subject":"a","payload":"QQ==","headers":"x"}', "invalid_argument"],
    [`Publish {"subject":"a","payload":"QQ==","headers":{"a":[${'"",'.repeat(100_000)}""]}}`, "gateway_limit"],
    [`PublishBatch {"subject":"a"}\nt${"0,".repeat(1_000_000)}0\n`, "gateway_limit"],
  ])("is refused without a place: %.60s", (query, code) => {
    const { start, capacity } = tested({}, { capacity: 1 });
    expect(codeOf(start(query))).toBe(code);
    expect(capacity.tryTake()).toBe(true);
  });

  it("is refused: values nested deeper than any stack, where an object of headers is wanted", () => {
    const deep = (open: string, close: string) => `${open.repeat(40_000)}1${close.repeat(40_000)}`;
    for (const headers of [deep("[", "]"), `{"a":${deep("[", "]")}}`, `{"a":${deep('{"b":', "}")}}`]) {
      const { outcome } = tested().start(`Publish {"subject":"a","payload":"QQ==","headers":${headers}}`);
      expect(outcome).toMatchObject({ code: "invalid_argument" });
      expect((outcome as HawserError).message.length).toBeLessThan(300);
    }
  });

  it("is told which element of an array is NULL, counted from 1 as SQL does", () => {
    expect(tested().start('PublishBatch {"subject":"a"}\nt1,1,-\nxy').outcome).toMatchObject({
      message: "nats_publish_*_batch: the argument payloads[3] is NULL, and needs a value",
    });
  });

  it("is told in a few words, however much it holds", () => {
    for (const query of [
      `Publish {"subject":"${"a b".repeat(1e5)}","payload":""}`,
      `Publish {"${"x".repeat(1e5)}":1}`,
      `Publish {"subject":"a","payload":"","headers":"${"x".repeat(1e5)}"}`,
    ]) {
      expect((tested().start(query).outcome as HawserError).message.length).toBeLessThan(400);
    }
  });
});

describe("the deadline", () => {
  it.each([
    ["of its own, and some slack for NATS", request(300), {}, 300],
    ["of its own, which may be 0", request(0), {}, 0],
    ["of its own, up to the cap", request(60_000), {}, 60_000],
    ["of 10 s for NULL", request(null), {}, 10_000],
    ["of 10 s for a negative number", request(-1), {}, 10_000],
    ["of 10 s for no timeout at all", 'Request {"subject":"a","payload":"QQ=="}', {}, 10_000],
    ["of the cap for NULL, where that is less", request(null), { maxCallTimeoutMs: 700 }, 700],
    ["of the gateway for other calls", getFile, { callTimeoutMs: 1234 }, 1234],
    ["of the gateway for other calls, whatever the cap", getFile, { callTimeoutMs: 5000, maxCallTimeoutMs: 100 }, 5000],
  ])("is the time limit %s", async (_, query, changes, timeoutMs) => {
    const told: number[] = [];
    const late = (_request: unknown, call: GatewayCall) => {
      told.push(call.timeoutMs);
      return never();
    };
    const end = tested({ request: late, getFile: late }, changes).start(query);
    await vi.advanceTimersByTimeAsync(timeoutMs + slack - 1);
    expect([end.outcome, told]).toEqual(["waiting", [timeoutMs]]);
    await vi.advanceTimersByTimeAsync(1);
    expect([HawserError.is(end.outcome), end.afterMs]).toEqual([true, timeoutMs + slack]);
  });

  it("may not be beyond the cap", () => {
    const { outcome } = tested({}, { maxCallTimeoutMs: 700 }).start(request(701));
    expect(outcome).toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/701 ms.*700 ms/),
      hint: expect.stringContaining("--max-call-timeout-ms"),
    });
  });

  it.each([
    [publish, "publish", "outcome_unknown", "08006"],
    [getFile, "getFile", "nats_timeout", "NA001"],
  ] as const)("passes: %s", async (query, method, code, sqlstate) => {
    const { start } = tested({ [method]: never });
    const end = start(query);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs + slack);
    expect(codeOf(end)).toBe(code);
    expect(errorAnswerOf(end.outcome)).toMatchObject({ sqlstate, hint: expect.stringMatching(/./) });
    expect((end.outcome as HawserError).message).toContain(`${limits.callTimeoutMs + slack} ms`);
  });

  it("passes with the handler's own error, if that comes before", async () => {
    const wait = pending<void>();
    const end = tested({ publish: () => wait.promise }).start(publish);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs);
    wait.reject(new GatewayError("nats_timeout", "late"));
    await flush();
    expect(codeOf(end)).toBe("nats_timeout");
  });

  it("has passed for whoever waited for a place, too", async () => {
    const first = pending<void>();
    const seen: GatewayCall[] = [];
    const { start } = tested(
      {
        publish: (_request, call) => {
          seen.push(call);
          return seen.length === 1 ? first.promise : never();
        },
      },
      { capacity: 1 },
    );
    start(publish);
    const second = start(publish);
    await vi.advanceTimersByTimeAsync(4000);
    first.resolve();
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs + slack - 4001);
    expect([seen.length, second.outcome]).toEqual([2, "waiting"]);
    // The handler sees how much of its time the wait has taken.
    expect(seen[1]!.startedAt).toBe(seen[0]!.startedAt);
    await vi.advanceTimersByTimeAsync(1);
    expect([codeOf(second), second.afterMs]).toEqual(["outcome_unknown", limits.callTimeoutMs + slack]);
  });
});

describe("the place of a command", () => {
  it("is given back by a handler that throws, one that rejects, and one whose answer cannot be sent", async () => {
    const failure = new GatewayError("no_responders", "nobody");
    const { start, capacity } = tested(
      {
        publish: () => {
          throw failure;
        },
        request: () => Promise.reject(failure),
        getFile: () => Buffer.alloc(1000),
      },
      { capacity: 1 },
    );
    const ends = [];
    for (const query of [publish, request(100), getFile]) {
      ends.push(start(query));
      await flush();
    }
    expect(ends.map(codeOf)).toEqual(["no_responders", "no_responders", "gateway_limit"]);
    expect([capacity.tryTake(), capacity.tryTake()]).toEqual([true, false]);
  });

  it.each(["resolves", "rejects"])("is given back when a command that was late %s", async (how) => {
    const wait = pending<void>();
    const { start, capacity } = tested({ publish: () => wait.promise }, { capacity: 1 });
    const end = start(publish);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs + slack);
    expect([codeOf(end), capacity.tryTake()]).toEqual(["outcome_unknown", false]);
    how === "resolves" ? wait.resolve() : wait.reject(new Error("much later"));
    await flush();
    expect(capacity.tryTake()).toBe(true);
  });

  it("goes to the call that came first", async () => {
    const waits: (() => void)[] = [];
    const order: string[] = [];
    const { start } = tested(
      {
        publish: ({ subject }) => {
          order.push(subject);
          return new Promise<void>((resolve) => waits.push(resolve));
        },
      },
      { capacity: 2 },
    );
    const ends = ["a", "b", "c", "d"].map((subject) => start(`Publish {"subject":"${subject}","payload":""}`));
    await flush();
    expect(order).toEqual(["a", "b"]);
    waits[1]!();
    await flush();
    expect([order, ends.map(({ outcome }) => outcome !== "waiting")]).toEqual([
      ["a", "b", "c"],
      [false, true, false, false],
    ]);
    waits[2]!();
    await flush();
    expect(order).toEqual(["a", "b", "c", "d"]);
    for (const resolve of waits) resolve();
    await flush();
    expect(ends.map(codeOf)).toEqual(new Array(4).fill({ kind: "row", value: null }));
  });

  it("that is not there by the deadline is an error, and nothing has been sent", async () => {
    let asked = 0;
    const { start, capacity } = tested({ publish: () => void asked++ }, { capacity: 1 });
    capacity.tryTake();
    const end = start(publish);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs - 1);
    expect(end.outcome).toBe("waiting");
    await vi.advanceTimersByTimeAsync(1);
    expect([codeOf(end), end.afterMs, asked]).toEqual(["gateway_busy", limits.callTimeoutMs, 0]);
    expect(errorAnswerOf(end.outcome)).toMatchObject({
      sqlstate: "53300",
      message: expect.stringMatching(/1 commands are under way.*capacity.*5000 ms; nothing was sent/),
    });
    capacity.release();
    expect(capacity.tryTake()).toBe(true);
  });

  it("is not taken by a session that has gone in the meantime", async () => {
    let asked = 0;
    const { start, capacity, session } = tested({ publish: () => void asked++ }, { capacity: 1 });
    capacity.tryTake();
    const end = start(publish);
    session.isOpen = false;
    capacity.release();
    await flush();
    expect([codeOf(end), asked, capacity.tryTake()]).toEqual(["aborted", 0, true]);
  });

  it("is there for more commands when the limit is raised", async () => {
    let asked = 0;
    const { start, capacity } = tested({ publish: () => void asked++ }, { capacity: 1 });
    capacity.tryTake();
    const ends = [start(publish), start(publish)];
    capacity.limit = 2;
    await flush();
    expect([asked, ends.map(codeOf)]).toEqual([2, new Array(2).fill({ kind: "row", value: null })]);
  });
});

describe("the largest answer", () => {
  it("is as long as the limit, in bytes on the way to Postgres", () => {
    const { start } = tested({ getFile: () => Buffer.alloc(499), getValue: () => Buffer.from("ä".repeat(500)) });
    expect(start(getFile).outcome).toEqual({ kind: "row", value: `\\x${"00".repeat(499)}` });
    expect(start('GetValue {"bucket":"b","key":"k","type":"text"}').outcome).toMatchObject({ value: "ä".repeat(500) });
  });

  it("is refused beyond it, with the limit and what to do", () => {
    const { start } = tested({ getFile: () => Buffer.alloc(500), getValue: () => Buffer.from("ä".repeat(501)) });
    const { outcome } = start(getFile);
    expect(outcome).toMatchObject({
      code: "gateway_limit",
      message: "nats_get_file: the answer has 1002 bytes on its way to Postgres, and the limit is 1000",
      hint: expect.stringContaining("--max-response-bytes"),
    });
    expect(codeOf(start('GetValue {"bucket":"b","key":"k","type":"text"}'))).toBe("gateway_limit");
  });
});
