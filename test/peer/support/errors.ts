import { expect } from "vitest";
import { type ErrorCode, HawserError } from "../../../src/jobs-and-peers/peer/index.js";

/** Resolves with the error of the spec that the promise rejects with, or the call throws, having checked its code. */
export async function failure(
  code: ErrorCode,
  act: Promise<unknown> | (() => unknown),
  what = "It",
): Promise<HawserError> {
  let outcome: unknown;
  try {
    outcome = await (typeof act === "function" ? act() : act);
  } catch (error) {
    if (!(error instanceof HawserError)) throw error;
    expect({ code: error.code, message: error.message }, what).toEqual({ code, message: expect.any(String) });
    return error;
  }
  throw new Error(`${what} did not fail with ${code}; it came to ${JSON.stringify(outcome)}`);
}
