/**
 * The headers that an SQL function is given, as the headers of a NATS message.
 */
import { type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";

/** Printable ASCII without the colon: what NATS allows in the name of a header (ADR-4). */
const headerName = /^[!-9;-~]+$/;
const lineBreak = /[\r\n]/;
const halfOfPair = /\p{Surrogate}/u;

/**
 * Reads a JSON object of strings, or of arrays of strings. Names keep their case, values their characters and their order
 * (but most readers drop the white space at the ends of a value); an empty array stands for no header.
 *
 * @returns undefined, if there is no header in it
 * @throws NatsError invalid_argument, naming the header and the rule
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
    record[name] = values.map((each) => checkValue(name, each));
    if (values.length > 0) empty = false;
  }
  // Not by append(), which trims and looks for other spellings of the name.
  return empty ? undefined : MsgHdrsImpl.fromRecord(record);
}

function checkValue(name: string, value: unknown): string {
  if (typeof value !== "string") {
    throw refused(`headers: ${JSON.stringify(name)} must be a string or an array of strings, and has ${kindOf(value)}`);
  }
  if (lineBreak.test(value)) throw refused(`headers: the value of ${JSON.stringify(name)} must not have CR or LF`);
  if (halfOfPair.test(value)) {
    throw refused(`headers: the value of ${JSON.stringify(name)} must be Unicode, and has half of a surrogate pair`);
  }
  return value;
}

function refused(rule: string): NatsError {
  return new NatsError("invalid_argument", `${rule}.`);
}

function kindOf(json: unknown): string {
  if (json === null) return "null";
  if (Array.isArray(json)) return "an array";
  return typeof json === "object" ? "an object" : `a ${typeof json}`;
}
