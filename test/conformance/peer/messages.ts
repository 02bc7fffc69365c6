/**
 * Messages as a foreign peer finds them: in a batch from the wire, or in a row of the store.
 */
import { gunzipSync } from "node:zlib";
import type { DrainedRow, Position } from "./store.js";
import type { FrameJson } from "./wire.js";

/** Largest payload that a foreign listener takes. */
export const maxMessageBytes = 1 << 20;

/** A message as it was handled. */
export interface Handled {
  readonly sender: string;
  readonly text: string;
  readonly headers: readonly (readonly [string, string])[];
  /** Undefined for at-most-once. */
  readonly position: Position | undefined;
}

/** A message before it is handled. */
export interface Message extends Omit<Handled, "sender"> {
  readonly topicId: number;
}

/** The messages of a batch: payloads with what is said of them by index. */
export function messagesOf(batch: FrameJson): Message[] {
  const isNumbered = batch["delivery"] === "DELIVERY_AT_LEAST_ONCE";
  return (batch["payloads"] as string[]).map((base64, index) => {
    const packed = at(batch["compressions"], index);
    const entry = at(batch["headers"], index);
    const payload = Buffer.from(base64, "base64");
    return {
      topicId: batch["topicId"],
      text: (packed === undefined ? payload : expand(payload, Number(packed["uncompressedBytes"] ?? 0))).toString(),
      headers: ((entry?.["headers"] ?? []) as FrameJson[]).map(({ name, value = "" }) => [name, value] as const),
      position: isNumbered
        ? { epoch: Number(batch["epoch"]), number: Number(batch["firstNumber"]) + index }
        : undefined,
    };
  });
}

function at(entries: FrameJson[] | undefined, index: number): FrameJson | undefined {
  return entries?.find((entry) => (entry["index"] ?? 0) === index);
}

function expand(payload: Uint8Array, uncompressedBytes: number): Buffer {
  const expanded = gunzipSync(payload, { maxOutputLength: Math.max(uncompressedBytes, 1) });
  if (expanded.length !== uncompressedBytes) throw new Error("a payload expands to another length");
  return expanded;
}

/** The message of a stored row. */
export function messageOfRow({ epoch, number, topicId, codec, headers, payload }: DrainedRow): Message {
  const text = (codec === 1 ? gunzipSync(payload, { maxOutputLength: maxMessageBytes }) : payload).toString();
  return { topicId, text, headers, position: { epoch, number } };
}
