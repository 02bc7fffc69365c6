/**
 * What a Refuse may say: its message has a limit, and an error's message need not keep it.
 */
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { type HawserError, shortened } from "../errors/index.js";
import type { RefuseFrame } from "../wire/index.js";

/** The Refuse that tells the other side of an error: its code and message, shortened to the limit; never its cause. */
export function refuseOf(error: HawserError): RefuseFrame {
  return { code: error.code, message: shortened(error.message.replaceAll("\0", ""), limits.Refuse.message.maxBytes) };
}
