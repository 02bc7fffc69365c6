/**
 * Frames: what their generated code has, and the rules that hold between the fields of a batch.
 */
import { type Batch, Delivery, type Hello, type Welcome } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { validateFrame } from "../../generated/ts/rules/peer/frames.js";
import type { Frame } from "../../generated/ts/wire/frames.js";
import { type ErrorCode, HawserError } from "../errors/index.js";

export type { Frame };

/** The kinds of frames. */
export type FrameKind = Frame["$case"];

/** Who calls whom on which channel: what a Hello says beside its proof. */
export type HelloFields = Pick<Hello, "senderName" | "sourceTopic" | "listenerName" | "connectionKey" | "epoch">;

/** What a listener says of a channel when it accepts a connection. */
export type WelcomeFields = Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit">;

/**
 * Checks a frame against the spec: the rules on single fields, and what it says in words of the fields of a batch.
 *
 * @param code what a breach is called: `protocol_violation` coming in; going out `invalid_argument` (the default), told
 * to the caller who made it and not to the other side
 * @throws HawserError with that code, naming the field, its value and the rule
 */
export function checkFrame(
  frame: Frame,
  code: Extract<ErrorCode, "protocol_violation" | "invalid_argument"> = "invalid_argument",
): void {
  const violation = validateFrame({ kind: frame });
  if (violation !== undefined) {
    const { path, value, rule, remedy } = violation;
    throw new HawserError(code, `${path} is ${value}; it ${rule}. ${remedy}`);
  }
  const fault = frame.$case === "batch" ? faultOfBatch(frame.value) : undefined;
  if (fault !== undefined) throw new HawserError(code, fault);
}

/**
 * What is wrong between the fields of a batch, or undefined:
 * - it has at least one payload;
 * - at-least-once numbers begin at 1 or above and end at 2^53 − 1 or below; at-most-once has 0;
 * - compressions and headers name payloads of the batch, in ascending order, each once.
 */
export function faultOfBatch({ delivery, firstNumber, payloads, compressions, headers }: Batch): string | undefined {
  const count = payloads.length;
  if (count === 0) return "a Batch has no payload";
  if (delivery === Delivery.AT_MOST_ONCE) {
    if (firstNumber !== 0) return `an at-most-once Batch has first_number ${firstNumber}; it must be 0`;
  } else if (firstNumber === 0) {
    return "an at-least-once Batch has first_number 0; numbers begin at 1";
  } else if (firstNumber > Number.MAX_SAFE_INTEGER - count + 1) {
    return `a Batch of ${count} messages from ${firstNumber} leaves the range of numbers, 2^53 − 1`;
  }
  // Most batches have neither.
  const fault = compressions.length === 0 ? undefined : faultOfIndexes(compressions, count, "compressions");
  return fault ?? (headers.length === 0 ? undefined : faultOfIndexes(headers, count, "headers"));
}

function faultOfIndexes(
  entries: readonly { readonly index: number }[],
  count: number,
  field: string,
): string | undefined {
  let previous = -1;
  for (const { index } of entries) {
    if (!Number.isInteger(index)) return `Batch.${field} names index ${index}, which is no integer`;
    if (index <= previous) return `Batch.${field} names index ${index} after ${previous}; indexes must ascend`;
    if (index >= count) return `Batch.${field} names index ${index} of ${count} payloads`;
    previous = index;
  }
  return undefined;
}
