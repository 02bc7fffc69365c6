/**
 * Parses the text of a call: the method, a space, and its argument in JSON, as one line. If the method takes a list of
 * payloads, a line with their format and lengths follows, and then the payloads:
 *
 *     call    = method [ " " json [ LF list ] ]
 *     list    = "n" LF                           the array is NULL
 *             | "t" [ lengths ] LF bytes         the payloads as they are, one after the other
 *             | "b" [ lengths ] LF base64        the payloads one after the other, all together in base64
 *     lengths = length *( "," length )
 *     length  = digits | "-"                     in bytes; "-" is NULL
 *
 * The generated SQL functions produce this text. Any other text is rejected in time proportional to its length. Each
 * value of an argument, and each payload, takes many times the memory of its text, so their number is limited as well.
 */
import { BadArgument, decodeBase64, type PayloadList } from "../../../generated/ts/nats-functions/argument.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";

/** A parsed call. */
export interface CallText {
  readonly method: string;
  /** Undefined if there is no argument. */
  readonly json: unknown;
  /** Undefined if there is no list. */
  readonly list: PayloadList | undefined;
}

/** Thrown for a call with more values or messages than the gateway parses. */
export class TooManyError extends Error {
  override readonly name = "TooManyError";

  /** @param what limited item: values in the argument, such as headers, or messages in the list */
  constructor(
    readonly what: "values" | "messages",
    readonly limit: number,
  ) {
    super(`the call has more than ${limit} ${what}`);
  }
}

const { maxArgumentValues, maxBatchMessages } = gatewayConstants;
const lineFeed = 10;
const longestMethod = 64;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Parses the text of a call. @throws BadArgument of the kind `form` if the text is malformed; {@link TooManyError} */
export function parseCall(query: Uint8Array): CallText {
  const buffer = Buffer.from(query.buffer, query.byteOffset, query.byteLength);
  const end = buffer.indexOf(lineFeed);
  const line = decode(end === -1 ? buffer : buffer.subarray(0, end));
  const space = line.indexOf(" ");
  const method = space === -1 ? line : line.slice(0, space);
  if (method.length > longestMethod || !/^[A-Za-z]+$/.test(method)) throw malformed("it does not start with a method");
  return {
    method,
    json: space === -1 ? undefined : parseJson(line.slice(space + 1)),
    list: end === -1 ? undefined : parseList(buffer.subarray(end + 1)),
  };
}

function decode(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw malformed("it is not UTF-8");
  }
}

function parseJson(text: string): unknown {
  // Each value is preceded by at least one of these characters, which base64 payloads do not contain.
  if (text.length > maxArgumentValues && hasMoreThan(maxArgumentValues, text, /[,[{]/g)) {
    throw new TooManyError("values", maxArgumentValues);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw malformed("its argument is not JSON");
  }
}

function parseList(bytes: Buffer): PayloadList {
  const end = bytes.indexOf(lineFeed);
  if (end === -1) throw malformed("its list of payloads has no lengths");
  const form = String.fromCharCode(bytes[0]!);
  const lengths = bytes.toString("latin1", 1, end);
  const rest = bytes.subarray(end + 1);
  if (form === "n" && lengths === "" && rest.length === 0) return { payloads: undefined, firstNull: undefined };
  if (form !== "t" && form !== "b") throw malformed("its list of payloads has an unknown format");
  const all = form === "t" ? rest : decodeBase64(rest.toString("latin1"));
  if (all === undefined) throw malformed("its payloads are not base64");
  return split(lengths, all);
}

function split(lengths: string, all: Uint8Array): PayloadList {
  const payloads: Uint8Array[] = [];
  let firstNull: number | undefined;
  let start = 0;
  if (lengths !== "") {
    if (lengths.length > maxBatchMessages && hasMoreThan(maxBatchMessages - 1, lengths, /,/g)) {
      throw new TooManyError("messages", maxBatchMessages);
    }
    for (const length of lengths.split(",")) {
      if (length === "-") {
        firstNull ??= payloads.length;
        payloads.push(all.subarray(start, start));
        continue;
      }
      if (!/^[0-9]{1,10}$/.test(length)) throw malformed("a length in its list of payloads is not a number");
      const stop = start + Number(length);
      if (stop > all.length) throw malformed("its payloads are shorter than their lengths say");
      payloads.push(all.subarray(start, stop));
      start = stop;
    }
  }
  if (start !== all.length) throw malformed("its payloads are longer than their lengths say");
  return { payloads, firstNull };
}

function hasMoreThan(limit: number, text: string, pattern: RegExp): boolean {
  let found = 0;
  while (pattern.test(text)) {
    if (++found > limit) return true;
  }
  return false;
}

function malformed(rule: string): BadArgument {
  return new BadArgument({ kind: "form", argument: "", value: "", rule });
}
