/**
 * Headers of NATS messages: as received, and as an SQL function passes them.
 *
 * NATS servers forward a header block as the publisher wrote it, and any client may publish. So parsing must never
 * throw, and must take time proportional to its bytes. Parsing by nats.js does neither: it rejects some names and
 * values with an exception that ends the connection, and searches all names for each line.
 *
 * Readable headers are parsed as by nats.go and nats.js: lines end with LF or CRLF, a name ends at the first colon, and
 * white space around names and values is ignored. `problem` describes unreadable headers.
 */
import { Match, type Msg, type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import { HawserError } from "../../foundation/errors/index.js";

/** The headers of one received message that are read: as many as a call may send. */
const maxReceivedHeaders = 100_000;

const version = "NATS/1.0";

/** Replaces invalid UTF-8 by U+FFFD, as nats.js does. */
const decoder = new TextDecoder();

/** Headers of a received message. */
export class ReceivedNatsHeaders extends MsgHdrsImpl {
  /** Human-readable reason why some headers may not have been read; undefined if all were. */
  readonly problem: string | undefined;

  /** @param maxHeaders maximum number of headers to read */
  constructor(block: Uint8Array, maxHeaders: number = maxReceivedHeaders) {
    super();
    const text = decoder.decode(block);
    const [firstStop, start] = lineFrom(text, 0);
    const first = text.slice(0, firstStop);
    if (first.startsWith(version)) this.#readStatus(first.slice(version.length).trim());
    else this.problem = `they do not begin with ${version}`;
    let read = 0;
    let colon = -1;
    for (let at = start; at < text.length; ) {
      const [stop, next] = lineFrom(text, at);
      if (stop > at) {
        read += 1;
        if (read > maxHeaders) {
          this.problem = `there are more than ${maxHeaders}`;
          return;
        }
        // The position of a colon is kept, because a search per line could read the rest of the block again and again.
        if (colon < at) colon = indexFrom(text, ":", at);
        if (colon >= stop) this.problem ??= `line ${read + 1} of them has no colon`;
        else this.#add(text.slice(at, colon).trim(), text.slice(colon + 1, stop).trim());
      }
      at = next;
    }
  }

  /** Names that match; without `Match.Exact`, the case of letters is ignored. */
  override findKeys(name: string, match: Match = Match.Exact): string[] {
    if (match !== Match.Exact) return super.findKeys(name, match);
    return this.headers.has(name) ? [name] : [];
  }

  /** Values of a name, in order. */
  override values(name: string, match: Match = Match.Exact): string[] {
    return this.findKeys(name, match).flatMap((key) => this.headers.get(key) ?? []);
  }

  /** JSON object that maps names to lists of values. */
  toJsonText(): string {
    return JSON.stringify(Object.fromEntries(this.headers));
  }

  /** Parses a status without a message, such as `503`. */
  #readStatus(status: string): void {
    if (status === "") return;
    const code = Number.parseInt(status, 10);
    this._code = Number.isNaN(code) ? 0 : code;
    this._description = status.replace(String(this._code), "").trim();
  }

  #add(name: string, value: string): void {
    // A line that starts with a colon is ignored, as in nats.go.
    if (name === "") return;
    const values = this.headers.get(name);
    if (values === undefined) this.headers.set(name, [value]);
    else values.push(value);
  }
}

/** Headers of a message that a connection of Hawser received; undefined if it has none. */
export function receivedHeaders({
  headers,
}: {
  readonly headers?: MsgHdrs | undefined;
}): ReceivedNatsHeaders | undefined {
  return headers as ReceivedNatsHeaders | undefined;
}

/**
 * Mutable copy of headers. `toRecord` of nats.js is not used, because a header named `__proto__` would set the
 * prototype of the record.
 */
export function copyOfHeaders(headers: MsgHdrs | undefined): MsgHdrsImpl {
  const copy = new MsgHdrsImpl();
  for (const [name, values] of headers ?? []) copy.headers.set(name, [...values]);
  return copy;
}

/** Encoded headers as text, with the empty line at their end; "" for none. Counts against the size of a message. */
export function headerBlock(headers: MsgHdrs | undefined): string {
  return headers === undefined ? "" : (headers as MsgHdrsImpl).toString();
}

/** Encoding of a single header. @throws HawserError invalid_argument, if the value is not valid */
export function singleHeaderBlock(name: string, value: string): string {
  return `${version}\r\n${name}: ${checkHeaderValue(name, value)}\r\n\r\n`;
}

/** Private fields of a message in nats.js. */
interface RawMessage {
  readonly _msg?: { readonly hdr?: unknown };
  readonly _rdata?: unknown;
}

/** Makes a message parse its headers by {@link ReceivedNatsHeaders}, if this version of nats.js exposes their bytes. */
export function parseHeadersHere(message: Msg): void {
  const block = blockOf(message);
  if (block === undefined) return;
  let headers: ReceivedNatsHeaders | undefined;
  Object.defineProperty(message, "headers", {
    configurable: true,
    get: () => (headers ??= new ReceivedNatsHeaders(block)),
  });
}

/**
 * Headers of a message that a connection of the user received; undefined if it has none.
 *
 * @throws InvalidArgumentError of nats.js, if this version of nats.js does not expose their bytes
 */
export function headersReadHere(message: Msg): MsgHdrs | undefined {
  const block = blockOf(message);
  return block === undefined ? message.headers : new ReceivedNatsHeaders(block);
}

/** Bytes of the headers; undefined if there are none, or they are not exposed. */
function blockOf(message: Msg): Uint8Array | undefined {
  const { _msg: { hdr } = {}, _rdata: received } = message as RawMessage;
  return typeof hdr === "number" && hdr >= 0 && received instanceof Uint8Array ? received.subarray(0, hdr) : undefined;
}

/** End of the line that starts at `start`, and start of the next line. */
function lineFrom(text: string, start: number): readonly [stop: number, next: number] {
  const end = indexFrom(text, "\n", start);
  return [end > start && text[end - 1] === "\r" ? end - 1 : end, end + 1];
}

/** Index of the next character; the length of the text if there is none. */
function indexFrom(text: string, character: string, start: number): number {
  const index = text.indexOf(character, start);
  return index < 0 ? text.length : index;
}

/** Printable ASCII except the colon: header names that NATS permits (ADR-4). */
const headerName = /^[!-9;-~]+$/;
const lineBreak = /[\r\n]/;
const halfOfPair = /\p{Surrogate}/u;

/**
 * Parses the headers that an SQL function passes: a JSON object of strings, or of arrays of strings. Names keep their
 * case; values keep their characters and order (but most readers ignore white space around a value). An empty array
 * means no header.
 *
 * @returns undefined if there are no headers
 * @throws HawserError invalid_argument, with the header and the rule
 */
export function readHeaders(json: unknown): MsgHdrs | undefined {
  if (json === undefined || json === null) return undefined;
  if (typeof json !== "object" || Array.isArray(json)) {
    throw invalidHeaders(`headers must be a JSON object, and this is ${kindOf(json)}`);
  }
  const record: Record<string, string[]> = Object.create(null);
  let empty = true;
  for (const [name, value] of Object.entries(json)) {
    if (!headerName.test(name)) {
      throw invalidHeaders(
        `headers: the name ${JSON.stringify(name)} must be printable ASCII, without spaces and colons, and not empty`,
      );
    }
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    record[name] = values.map((each) => checkHeaderValue(name, each));
    if (values.length > 0) empty = false;
  }
  // append() would trim values and search for other spellings of the name.
  return empty ? undefined : MsgHdrsImpl.fromRecord(record);
}

/**
 * Checks a header value before it is written into a header block, where a line break would start another header.
 *
 * @throws HawserError invalid_argument, with the header and the rule
 */
export function checkHeaderValue(name: string, value: unknown): string {
  if (typeof value !== "string") {
    throw invalidHeaders(
      `headers: ${JSON.stringify(name)} must be a string or an array of strings, and has ${kindOf(value)}`,
    );
  }
  if (lineBreak.test(value))
    throw invalidHeaders(`headers: the value of ${JSON.stringify(name)} must not have CR or LF`);
  if (halfOfPair.test(value)) {
    throw invalidHeaders(
      `headers: the value of ${JSON.stringify(name)} must be Unicode, and has half of a surrogate pair`,
    );
  }
  return value;
}

function invalidHeaders(rule: string): HawserError {
  return new HawserError("invalid_argument", `${rule}.`);
}

function kindOf(json: unknown): string {
  if (json === null) return "null";
  if (Array.isArray(json)) return "an array";
  return typeof json === "object" ? "an object" : `a ${typeof json}`;
}
