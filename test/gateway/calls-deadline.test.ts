/**
 * When calls end, and which of them may be under way.
 */
import { describe, expect, it, vi } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import type { GatewayCall } from "../../src/nats/gateway/calls.js";
import { errorAnswerOf } from "../../src/nats/gateway/protocol/index.js";
import {
  codeOf,
  flush,
  getFile,
  limits,
  never,
  pending,
  publish,
  request,
  slack,
  tested,
  useTestClock,
} from "./tested-calls.js";

useTestClock();

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
    expect([end.outcome instanceof HawserError, end.afterMs]).toEqual([true, timeoutMs + slack]);
  });

  it("may not be beyond the cap", () => {
    const { outcome } = tested({}, { maxCallTimeoutMs: 700 }).start(request(701));
    expect(outcome).toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/701 ms.*700 ms/),
      remedy: expect.stringContaining("--tune maxCallTimeoutMs"),
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
    wait.reject(new HawserError("nats_timeout", "late"));
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
    await vi.advanceTimersByTimeAsync(2000);
    first.resolve();
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs + slack - 2001);
    expect([seen.length, second.outcome]).toEqual([2, "waiting"]);
    // The handler sees how much of its time the wait has taken.
    expect(seen[1]!.startedAt).toBe(seen[0]!.startedAt);
    await vi.advanceTimersByTimeAsync(1);
    expect([codeOf(second), second.afterMs]).toEqual(["outcome_unknown", limits.callTimeoutMs + slack]);
  });
});

describe("the place of a command", () => {
  it("is released by a handler that throws, one that rejects, and one whose answer cannot be sent", async () => {
    const failure = new HawserError("no_responders", "nobody");
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
    expect([capacity.tryAcquire(), capacity.tryAcquire()]).toEqual([true, false]);
  });

  it.each(["resolves", "rejects"])("is released when a command that was late %s", async (how) => {
    const wait = pending<void>();
    const { start, capacity } = tested({ publish: () => wait.promise }, { capacity: 1 });
    const end = start(publish);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs + slack);
    expect([codeOf(end), capacity.tryAcquire()]).toEqual(["outcome_unknown", false]);
    how === "resolves" ? wait.resolve() : wait.reject(new Error("much later"));
    await flush();
    expect(capacity.tryAcquire()).toBe(true);
  });

  it("that is not there after half of the time is an error, and nothing has been sent", async () => {
    let asked = 0;
    const { start, capacity } = tested({ publish: () => void asked++ }, { capacity: 1 });
    capacity.tryAcquire();
    const end = start(publish);
    await vi.advanceTimersByTimeAsync(limits.callTimeoutMs / 2 - 1);
    expect(end.outcome).toBe("waiting");
    await vi.advanceTimersByTimeAsync(1);
    expect([codeOf(end), end.afterMs, asked]).toEqual(["gateway_busy", limits.callTimeoutMs / 2, 0]);
    expect(errorAnswerOf(end.outcome)).toMatchObject({
      sqlstate: "53300",
      message: expect.stringMatching(/1 commands are running.*capacity.*2500 ms; nothing was sent/),
    });
    capacity.release();
    expect(capacity.tryAcquire()).toBe(true);
  });

  it("is not taken by a session that has gone in the meantime", async () => {
    let asked = 0;
    const { start, capacity, session } = tested({ publish: () => void asked++ }, { capacity: 1 });
    capacity.tryAcquire();
    const end = start(publish);
    session.isOpen = false;
    capacity.release();
    await flush();
    expect([codeOf(end), asked, capacity.tryAcquire()]).toEqual(["aborted", 0, true]);
  });
});
