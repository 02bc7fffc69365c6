/**
 * The headers of NATS messages: as they were received, and as an SQL function gives them.
 *
 * NATS servers carry a header block as the publisher wrote it, and any client may publish. So reading one never throws and
 * takes time in proportion to its bytes. Reading by nats.js does not: it refuses names and values that others send, with an
 * exception that ends the connection, and looks at all names for each line.
 *
 * What can be read is read as nats.go and nats.js do: lines end with LF or CRLF, a name goes up to the first colon, white
 * space at the ends of names and values counts for nothing. Of what cannot, `problem` tells.
 */
import { Match, type Msg, type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";

const version = "NATS/1.0";

/** As nats.js does: what is no UTF-8 becomes U+FFFD. */
const decoder = new TextDecoder();

/** The headers of a message as it was received. */
export class ReceivedHeaders extends MsgHdrsImpl {
  /** Why there may be more headers than were read, for people; undefined: all of them were. */
  readonly problem: string | undefined;

  /** @param maxHeaders of a block with more lines the first ones are read */
  constructor(block: Uint8Array, maxHeaders: number = gatewayConstants.maxReceivedHeaders) {
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
        // Looked for once, and not again by each line before it.
        if (colon < at) colon = indexFrom(text, ":", at);
        if (colon >= stop) this.problem ??= `line ${read + 1} of them has no colon`;
        else this.#add(text.slice(at, colon).trim(), text.slice(colon + 1, stop).trim());
      }
      at = next;
    }
  }

  /** Names that match; of all names where the case does not count. */
  override findKeys(name: string, match: Match = Match.Exact): string[] {
    if (match !== Match.Exact) return super.findKeys(name, match);
    return this.headers.has(name) ? [name] : [];
  }

  /** The values of a name, in their order. */
  override values(name: string, match: Match = Match.Exact): string[] {
    return this.findKeys(name, match).flatMap((key) => this.headers.get(key) ?? []);
  }

  /** A JSON object of lists of strings. */
  toJsonText(): string {
    return JSON.stringify(Object.fromEntries(this.headers));
  }

  /** What servers say without a message, such as `503`. */
  #readStatus(status: string): void {
    if (status === "") return;
    const code = Number.parseInt(status, 10);
    this._code = Number.isNaN(code) ? 0 : code;
    this._description = status.replace(String(this._code), "").trim();
  }

  #add(name: string, value: string): void {
    // As nats.go: a line that begins with its colon says nothing.
    if (name === "") return;
    const values = this.headers.get(name);
    if (values === undefined) this.headers.set(name, [value]);
    else values.push(value);
  }
}

/** The headers of a message of ours; undefined: it has none. */
export function receivedHeaders({ headers }: { readonly headers?: MsgHdrs | undefined }): ReceivedHeaders | undefined {
  return headers as ReceivedHeaders | undefined;
}

/** A copy that may be changed. Not by way of a record: nats.js makes one whose prototype a header `__proto__` becomes. */
export function copyOfHeaders(headers: MsgHdrs | undefined): MsgHdrsImpl {
  const copy = new MsgHdrsImpl();
  for (const [name, values] of headers ?? []) copy.headers.set(name, [...values]);
  return copy;
}

/** What nats.js keeps of a message that it received, beyond its public interface. */
interface RawMessage {
  readonly _msg?: { readonly hdr?: unknown };
  readonly _rdata?: unknown;
}

/** Makes a message read its headers here. By nats.js where its version hides their bytes. */
export function readHeadersHere(message: Msg): void {
  const block = blockOf(message);
  if (block === undefined) return;
  let headers: ReceivedHeaders | undefined;
  Object.defineProperty(message, "headers", {
    configurable: true,
    get: () => (headers ??= new ReceivedHeaders(block)),
  });
}

/**
 * The headers of a message of somebody else's connection; undefined: it has none.
 *
 * @throws InvalidArgumentError of nats.js, where its version hides their bytes
 */
export function headersReadHere(message: Msg): MsgHdrs | undefined {
  const block = blockOf(message);
  return block === undefined ? message.headers : new ReceivedHeaders(block);
}

/** The bytes of the headers, if there are any that can be reached. */
function blockOf(message: Msg): Uint8Array | undefined {
  const { _msg: { hdr } = {}, _rdata: received } = message as RawMessage;
  return typeof hdr === "number" && hdr >= 0 && received instanceof Uint8Array ? received.subarray(0, hdr) : undefined;
}

/** Where the line that begins there stops, and where the next one begins. */
function lineFrom(text: string, start: number): readonly [stop: number, next: number] {
  const end = indexFrom(text, "\n", start);
  return [end > start && text[end - 1] === "\r" ? end - 1 : end, end + 1];
}

/** Where the character is next; the end of the text, if it is not. */
function indexFrom(text: string, character: string, start: number): number {
  const index = text.indexOf(character, start);
  return index < 0 ? text.length : index;
}

/** Printable ASCII without the colon: what NATS allows in the name of a header (ADR-4). */
const headerName = /^[!-9;-~]+$/;
const lineBreak = /[\r\n]/;
const halfOfPair = /\p{Surrogate}/u;

/**
 * Reads the headers that an SQL function is given: a JSON object of strings, or of arrays of strings. Names keep their
 * case, values their characters and their order (but most readers drop the white space at the ends of a value); an empty
 * array stands for no header.
 *
 * @returns undefined, if there is no header in it
 * @throws HawserError invalid_argument, naming the header and the rule
 */
export function readHeaders(json: unknown): MsgHdrs | undefined {
  if (json === undefined || json === null) return undefined;
  if (typeof json !== "object" || Array.isArray(json)) {
    throw refused(`headers must be a JSON object, and this is ${kindOf(json)}`);
  }
  const record: Record<string, string[]> = Object.create(null);
  let empty = true;
  for (const [name, value] of Object.entries(json)) {
    if (!headerName.test(name)) {
      throw refused(
        `headers: the name ${JSON.stringify(name)} must be printable ASCII, without spaces and colons, and not empty`,
      );
    }
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    record[name] = values.map((each) => checkHeaderValue(name, each));
    if (values.length > 0) empty = false;
  }
  // Not by append(), which trims and looks for other spellings of the name.
  return empty ? undefined : MsgHdrsImpl.fromRecord(record);
}

/**
 * Checks the value of a header before it is written into a block of headers, where a line break would begin another header.
 *
 * @throws HawserError invalid_argument, naming the header and the rule
 */
export function checkHeaderValue(name: string, value: unknown): string {
  if (typeof value !== "string") {
    throw refused(`headers: ${JSON.stringify(name)} must be a string or an array of strings, and has ${kindOf(value)}`);
  }
  if (lineBreak.test(value)) throw refused(`headers: the value of ${JSON.stringify(name)} must not have CR or LF`);
  if (halfOfPair.test(value)) {
    throw refused(`headers: the value of ${JSON.stringify(name)} must be Unicode, and has half of a surrogate pair`);
  }
  return value;
}

function refused(rule: string): HawserError {
  return new HawserError("invalid_argument", `${rule}.`);
}

function kindOf(json: unknown): string {
  if (json === null) return "null";
  if (Array.isArray(json)) return "an array";
  return typeof json === "object" ? "an object" : `a ${typeof json}`;
}
