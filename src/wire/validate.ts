/**
 * The spec's rules on single fields, run on frames that come in and frames that go out.
 */
import { validateFrame } from "../../generated/ts/rules/peer/frames.js";
import { type ErrorCode, WireError } from "../errors/index.js";
import type { CodecKind } from "./codecs.js";

/**
 * Checks a frame against the rules of `frames.proto`.
 *
 * @param code what a breach is called: `protocol_violation` coming in, `invalid_argument` going out
 * @throws WireError with that code, naming the field, its value and the rule
 */
export function checkRules(kind: CodecKind, code: Extract<ErrorCode, "protocol_violation" | "invalid_argument">): void {
  const violation = validateFrame({ kind });
  if (violation === undefined) return;
  const { path, value, rule, remedy } = violation;
  throw new WireError(code, `${path} is ${value}; it ${rule}. ${remedy}`);
}
