/**
 * Frames on their way out keep the same rules as those that come in: a breach is told to whoever made it, not to the
 * other side.
 */
import { WireError } from "../errors/index.js";
import { faultOfBatch } from "./batch-rules.js";
import type { CodecKind, CodecValue } from "./codecs.js";
import { codecOfBatch, codecOfFrame } from "./to-codec.js";
import type { Batch, Frame } from "./types.js";
import { checkRules } from "./validate.js";

/** @throws WireError `invalid_argument` if the frame breaks a rule of the spec */
export function checkFrame(frame: Frame): void {
  checkedKind(frame);
}

/** The generated code's message for a frame that may be sent. @throws as {@link checkFrame} */
export function checkedKind(frame: Frame): CodecKind {
  if (frame.kind === "batch") return { $case: "batch", value: checkBatch(frame.value) };
  const kind = codecOfFrame(frame);
  checkRules(kind, "invalid_argument");
  return kind;
}

/** The same for a batch. */
export function checkBatch(batch: Batch): CodecValue<"batch"> {
  const value = codecOfBatch(batch);
  checkRules({ $case: "batch", value }, "invalid_argument");
  const fault = faultOfBatch(batch);
  if (fault !== undefined) throw new WireError("invalid_argument", fault);
  return value;
}
