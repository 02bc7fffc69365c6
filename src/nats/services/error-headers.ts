/**
 * How a service says that it failed (ADR-32).
 */
import { headers, type MsgHdrs } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

const { maxErrorReplyBytes } = bridgeConstants;

/** The headers of an answer that is an error. @param status as HTTP has them @param words what the requester is told */
export function errorHeaders({ status, words }: { readonly status: number; readonly words: string }): MsgHdrs {
  const told = headers();
  told.set("Nats-Service-Error", headerLine(words));
  told.set("Nats-Service-Error-Code", `${status}`);
  return told;
}

/** Text as the value of a header: one line of printable characters, cut where it is too long. Never empty. */
export function headerLine(text: string): string {
  // Cut before anything is searched: a message can be megabytes long.
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
