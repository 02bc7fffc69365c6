/**
 * `Calls` with a handler and a clock of the test's own.
 */
import { afterEach, beforeEach, expect, vi } from "vitest";
import type { NatsFunctionsHandler } from "../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../src/foundation/errors/index.js";
import { Semaphore } from "../../src/foundation/runtime/index.js";
import { type CallLimits, Calls, deadlineSlackMs, type GatewayCall } from "../../src/nats/gateway/calls.js";
import type { Answer, GatewayClient } from "../../src/nats/gateway/protocol/index.js";
import { recordingHandler } from "./recording-handler.js";

export const limits: CallLimits = { callTimeoutMs: 5000, maxCallTimeoutMs: 60_000, maxResponseBytes: 1000 };
export const slack = deadlineSlackMs;
export const publish = 'Publish {"subject":"a","payload":"QQ=="}';
export const getFile = 'GetFile {"store":"s","name":"n"}';
export const request = (timeout: number | null) => `Request {"subject":"a","payload":"QQ==","timeout":${timeout}}`;

const rejections: unknown[] = [];
const noteRejection = (reason: unknown) => void rejections.push(reason);

/** Gives each test of the file a clock that the test moves, and sees to it that nothing is left of its calls. */
export function useTestClock(): void {
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
}

/** Calls whose outcome is looked at later. */
export function tested(
  handler: Partial<NatsFunctionsHandler<GatewayCall>> = {},
  changes: Partial<CallLimits & { capacity: number }> = {},
) {
  const capacity = new Semaphore(changes.capacity ?? 10);
  const session = { id: 1, isOpen: true };
  const full = { ...recordingHandler().handler, ...handler };
  const calls = new Calls(full, capacity, { ...limits, ...changes });
  /** Outcome of a call and its duration in ms; `waiting` until then. */
  const start = (query: string | Uint8Array, by: GatewayClient = session) => {
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
export function pending<T>() {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}

export const never = () => new Promise<never>(() => undefined);
export const codeOf = ({ outcome }: { outcome: unknown }) => (outcome instanceof HawserError ? outcome.code : outcome);
export const flush = () => vi.advanceTimersByTimeAsync(0);
