/**
 * What a Refuse may say: its message has a limit, and an error's message need not keep it.
 */
import { limits } from "../../generated/ts/rules/peer/frames.js";
import type { HawserError } from "../errors/index.js";
import type { RefuseFrame } from "../wire/index.js";

const { maxBytes } = limits.Refuse.message;
const ellipsis = "…";

/** The Refuse that tells the other side of an error: its code and message, shortened to the limit; never its cause. */
export function refuseOf(error: HawserError): RefuseFrame {
  const bytes = Buffer.from(error.message.replaceAll("\0", ""));
  return { code: error.code, message: bytes.length <= maxBytes ? bytes.toString() : cut(bytes) };
}

function cut(bytes: Buffer): string {
  let end = maxBytes - Buffer.byteLength(ellipsis);
  // Not within a character: its later bytes begin with the bits 10.
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end) + ellipsis;
}
