/**
 * Error headers of NATS services (ADR-32).
 */
import { headers, type MsgHdrs } from "@nats-io/transport-node";

/** The longest line that tells a requester why there is no answer, in UTF-8. */
const maxErrorReplyBytes = 1_024;

/** Headers of an error reply: a status code like that of HTTP, and an error text for the requester. */
export function errorHeaders({ status, text }: { readonly status: number; readonly text: string }): MsgHdrs {
  const result = headers();
  result.set("Nats-Service-Error", headerLine(text));
  result.set("Nats-Service-Error-Code", `${status}`);
  return result;
}

/** Text as a header value: one line of printable characters, limited in length. Never empty. */
export function headerLine(text: string): string {
  // The text is cut first, because it can have megabytes.
  const start = text.slice(0, maxErrorReplyBytes);
  const line = start.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Z}]+/gu, " ").trim();
  if (line === "") return "no message";
  if (start.length === text.length && Buffer.byteLength(line) <= maxErrorReplyBytes) return line;
  let bytes = Buffer.byteLength("…");
  let cut = "";
  for (const character of line) {
    bytes += Buffer.byteLength(character);
    if (bytes > maxErrorReplyBytes) break;
    cut += character;
  }
  return `${cut}…`;
}
