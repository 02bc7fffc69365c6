/**
 * One message, and what became of it.
 */
import { CliError, type HawserError } from "../errors/index.js";
import type { Peer, Receipt, SendOptions } from "../peer/index.js";
import { jsonText, printable } from "./printable.js";

/** What became of a message at one listener. */
export type Outcome = Receipt | { readonly peer: string; readonly error: HawserError };

/** Sends to one listener of the topic, or to all. @throws HawserError as {@link Peer.sendTo} */
export async function sendOne(
  peer: Peer,
  topic: string,
  payload: Uint8Array,
  options: SendOptions,
  toAll: boolean,
): Promise<readonly Outcome[]> {
  return toAll ? await peer.sendAll(topic, payload, options) : [await peer.sendTo(topic, payload, options)];
}

const prepositions = { delivered: "to", stored: "for", sent: "to", dropped: "for" } as const;

/** An outcome as a line, its end included. */
export function lineOf(
  outcome: Outcome,
  { json, line }: { readonly json: boolean; readonly line?: number | undefined },
): string {
  const { peer } = outcome;
  if (json) {
    const result =
      "error" in outcome
        ? { outcome: "failed", peer, error: { code: outcome.error.code, message: outcome.error.message } }
        : { outcome: outcome.outcome, peer };
    return `${jsonText(line === undefined ? result : { line, ...result })}\n`;
  }
  if ("error" in outcome) return `failed for ${printable(peer)}: ${printable(outcome.error.message)}\n`;
  return `${outcome.outcome} ${prepositions[outcome.outcome]} ${printable(peer)}\n`;
}

/** The bytes of base64; white space in it does not count. @throws CliError `invalid_argument` */
export function decodeBase64(text: string, what = "the message"): Uint8Array {
  const dense = text.replace(/\s/g, "");
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(dense)) {
    throw new CliError("invalid_argument", `${what} is not base64, although --base64 says so`);
  }
  return Buffer.from(dense, "base64");
}
