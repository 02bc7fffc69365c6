/**
 * The messages of a server, as bytes.
 */
import type { ErrorAnswer } from "./answer.js";

/** Protocol 3.0, as versions are written on the wire. */
const protocolVersion = 3 << 16;

/** Of each field of an error: more than this is cut off, in characters. libpq takes no longer errors while it connects. */
const maxErrorFieldLength = 8000;

/** How much the error ends: the call, or the session. */
type Severity = "ERROR" | "FATAL";

/** The one byte that answers an encryption request. */
export const encryptionAccepted = Buffer.from("S");
export const encryptionRefused = Buffer.from("N");

/** ReadyForQuery, outside of any transaction. */
export const readyForQuery = message("Z", Buffer.from("I"));

/** RowDescription of the one column there is: `r`, text. */
export const rowDescription = message(
  "T",
  int16(1),
  cstring("r"),
  // No table and no column of one; type text (25) of variable size without modifier; as text.
  int32(0),
  int16(0),
  int32(25),
  int16(-1),
  int32(-1),
  int16(0),
);

/** CommandComplete after `rows` rows. */
export function commandComplete(rows: number): Buffer {
  return message("C", cstring(`SELECT ${rows}`));
}

/** Asks for SASL with one of the mechanisms. */
export function authenticationSasl(mechanisms: readonly string[]): Buffer {
  return message("R", int32(10), ...mechanisms.map(cstring), Buffer.alloc(1));
}

/** The server's first message of SASL. */
export function authenticationSaslContinue(text: string): Buffer {
  return message("R", int32(11), Buffer.from(text));
}

/** The server's final message of SASL. */
export function authenticationSaslFinal(text: string): Buffer {
  return message("R", int32(12), Buffer.from(text));
}

/** Tells a client that asked for more which version and which options it gets: 3.0 and none. */
export function negotiateProtocolVersion(unknownOptions: readonly string[]): Buffer {
  const names = unknownOptions.map(cstring);
  return message("v", int32(protocolVersion), int32(names.length), ...names);
}

/**
 * What follows authentication, up to ReadyForQuery. Neither DateStyle nor IntervalStyle: dblink would set them in the
 * session of the caller. No BackendKeyData: there is nothing to cancel, since every call has a deadline.
 */
export const sessionBegins = Buffer.concat([
  message("R", int32(0)),
  parameterStatus("client_encoding", "UTF8"),
  parameterStatus("server_encoding", "UTF8"),
  parameterStatus("server_version", "14.0 (Hawser)"),
  parameterStatus("standard_conforming_strings", "on"),
  parameterStatus("integer_datetimes", "on"),
  readyForQuery,
]);

/** ErrorResponse. NULs become U+FFFD, fields that are far too long are cut, an impossible SQLSTATE becomes XX000. */
export function errorResponse(severity: Severity, { sqlstate, message: text, detail, hint }: ErrorAnswer): Buffer {
  const code = /^(?!00)[0-9A-Z]{5}$/.test(sqlstate) ? sqlstate : "XX000";
  const fields = [field("S", severity), field("V", severity), field("C", code), field("M", text)];
  if (detail !== undefined && detail !== "") fields.push(field("D", detail));
  if (hint !== undefined && hint !== "") fields.push(field("H", hint));
  return message("E", ...fields, Buffer.alloc(1));
}

function field(type: string, value: string): Buffer {
  const short = value.length > maxErrorFieldLength ? `${value.slice(0, maxErrorFieldLength)} …` : value;
  return cstring(type + short.replaceAll("\0", "\ufffd"));
}

function parameterStatus(name: string, value: string): Buffer {
  return message("S", cstring(name), cstring(value));
}

function message(type: string, ...parts: readonly Buffer[]): Buffer {
  const bytes = parts.reduce((sum, part) => sum + part.length, 4);
  return Buffer.concat([Buffer.from(type), int32(bytes), ...parts]);
}

function cstring(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
