/** Frame types, and the rules between fields of a batch, which the generated code does not check. */
import { type Batch, Delivery, type Hello, type Welcome } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { validateFrame } from "../../../generated/ts/rules/peer/frames.js";
import type { Frame } from "../../../generated/ts/wire/frames.js";
import { type ErrorCode, HawserError } from "../../foundation/errors/index.js";

export type { Frame };

/** Kind of a frame. */
export type FrameKind = Frame["$case"];

/** Fields of a Hello that the layers above `src/jobs-and-peers/transport` give and get. A new field reaches them only if it is named here. */
export type HelloFields = Pick<Hello, "senderName" | "sourceTopic" | "listenerName" | "channelId" | "epoch">;

/** State of a channel that a listener sends when it accepts a connection. */
export type WelcomeFields = Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit" | "queued">;

/**
 * Checks a frame against the spec: the rules for single fields and those between fields of a batch.
 *
 * @param code error code: `protocol_violation` for received frames; `invalid_argument` (default) for frames to send, so
 * that the error goes to the caller
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
 * Describes the first violated rule between fields of a batch; undefined if there is none:
 * - At-least-once numbers are between 1 and 2^53 − 1; the first number of an at-most-once batch is 0.
 * - Compressions and headers refer to payloads of the batch, in ascending order, each at most once.
 */
export function faultOfBatch({ delivery, firstNumber, payloads, compressions, headers }: Batch): string | undefined {
  const count = payloads.length;
  if (delivery === Delivery.AT_MOST_ONCE) {
    if (firstNumber !== 0) return `an at-most-once Batch has first_number ${firstNumber}; it must be 0`;
  } else if (firstNumber === 0) {
    return "an at-least-once Batch has first_number 0; numbers begin at 1";
  } else if (firstNumber > Number.MAX_SAFE_INTEGER - count + 1) {
    return `a Batch of ${count} messages from ${firstNumber} exceeds the maximum number, 2^53 − 1`;
  }
  // Most batches have neither compressions nor headers.
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
    if (!Number.isInteger(index)) return `Batch.${field} names index ${index}, which is not an integer`;
    if (index <= previous) return `Batch.${field} names index ${index} after ${previous}; indexes must ascend`;
    if (index >= count) return `Batch.${field} names index ${index} of ${count} payloads`;
    previous = index;
  }
  return undefined;
}
