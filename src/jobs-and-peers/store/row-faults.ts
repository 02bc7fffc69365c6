/**
 * Checks of rows of messages, which every member of `hawser_peer` can write. A message whose row breaks a rule costs
 * itself alone: it becomes a dead letter with the fault.
 */
import type { DrainRowsResult } from "../../../generated/ts/rows/peer.js";
import { checkPayloadHeadersHeaders, limits, validateHeader } from "../../../generated/ts/rules/peer/frames.js";
import { checkEach, checkItems, type Violation } from "../../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { headerValue, type PayloadEncoding, type Position, type StoredRow } from "../channel/index.js";

/** Header: name and value. */
export type HeaderPair = readonly [name: string, value: string];

/** Headers of a row that keep the rules of a frame's headers, and the fault of the others. */
export interface CheckedHeaders {
  readonly headers: readonly HeaderPair[];
  /** Value that breaks a rule, the rule and the remedy; undefined if none does. */
  readonly fault: string | undefined;
}

const noHeaders: CheckedHeaders = { headers: [], fault: undefined };

/**
 * Checks the headers of a message: a list of pairs, null for none. A text is the JSON of the list, in a database whose encoding
 * lacks some of its characters.
 */
export function checkedHeaders(given: unknown): CheckedHeaders {
  if (given === null) return noHeaders;
  if (typeof given === "string" && given.startsWith("[")) {
    try {
      return checkedHeaders(JSON.parse(given));
    } catch {
      const value = `${given.length} characters`;
      const found = { path: "headers", value, rule: "must be JSON", remedy: "Write [[name, value], …]." };
      return { headers: [], fault: faultOf(found) };
    }
  }
  const pairs = given as readonly HeaderPair[];
  const found = checkPayloadHeadersHeaders(pairs) ?? checkEach("headers", pairs, checkPair);
  if (found === undefined) return { headers: pairs, fault: undefined };
  const valid = Array.isArray(given) ? pairs.filter((pair) => checkPair(pair) === undefined) : [];
  return { headers: valid.slice(0, limits.PayloadHeaders.headers.maxItems), fault: faultOf(found) };
}

function checkPair(pair: HeaderPair): Violation | undefined {
  return checkItems("pair", 2, pair, 2) ?? validateHeader({ name: pair[0], value: pair[1] });
}

/** Message of a row. One with a fault has no key. */
export function messageOf(
  position: Position,
  topicId: number,
  payload: Uint8Array,
  encoding: PayloadEncoding | undefined,
  { headers, fault }: CheckedHeaders,
): StoredRow {
  const key = fault === undefined ? headerValue(headers, protocolConstants.messageKeyHeader) : undefined;
  // A message that waits for its key while others pass it must not keep the memory of its whole page of rows.
  const bytes = key === undefined ? payload : Buffer.from(payload);
  const given = headers.length > 0 ? headers : undefined;
  return { position, topicId, payload: bytes, encoding, headers: given, key, fromWire: false, fault };
}

/** Fault of a row of several messages, which all of them have; undefined if there is none. */
export function faultOfBatch({
  number,
  messages,
  lengths,
  payload,
  headers,
}: Pick<DrainRowsResult, "number" | "messages" | "lengths" | "payload" | "headers">): string | undefined {
  const found = headers === null ? undefined : checkItems("headers", messages, headers as unknown[], messages);
  if (found !== undefined) return faultOf(found);
  const bytes = lengths.reduce((sum, length) => (isLength(length) ? sum + length : Number.NaN), 0);
  if (bytes !== payload.length) {
    const rule = `must add up to the ${payload.length} bytes of the payloads`;
    return faultOf({ path: "lengths", value: `a list with the sum ${bytes}`, rule, remedy: wholeRow });
  }
  if (number >= messages) return undefined;
  const rule = `must be at least ${messages}, the number of the row's messages`;
  return faultOf({ path: "number", value: String(number), rule, remedy: wholeRow });
}

const wholeRow =
  "Repair the program that wrote the row; the dead letter of its first message has the payloads of all of them.";

function isLength(length: unknown): boolean {
  return Number.isInteger(length) && (length as number) >= 0;
}

function faultOf({ path, value, rule, remedy }: Violation): string {
  const shown = path.endsWith(".value") && value.startsWith('"') ? "a text that may be a secret" : value;
  return `its row in the database breaks a rule: ${path} is ${shown}; it ${rule}. ${remedy}`;
}
