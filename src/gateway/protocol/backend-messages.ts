/**
 * The messages of a server, as bytes.
 */
import { isUtf8 } from "node:buffer";
import { errorTable } from "../../errors/index.js";
import type { Answer, ErrorAnswer } from "./answer.js";

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

/**
 * NotificationResponse: the session ends. dblink tells of it (`dblink_get_notify`), and throws an error away that comes
 * while no call is under way.
 */
export const sessionEnds = message("A", int32(0), cstring("hawser_session_ends"), cstring(""));

/** RowDescription of the one column there is: `r`, text. */
const rowDescription = message(
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
function commandComplete(rows: number): Buffer {
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

/** What stands around a value. */
const before = Buffer.concat([rowDescription, Buffer.from("D")]);
const after = Buffer.concat([commandComplete(1), readyForQuery]);

/** Of a DataRow of one column: its length, the number of columns, the length of the value. */
const rowHeaderBytes = 10;
const headBytes = before.length + rowHeaderBytes;

/** Values from here on are written where they are instead of being copied. */
const largeValueBytes = 16 * 1024;

/** The greatest value that a message can hold, and Postgres: 1 GiB with what is around it. */
const maxValueBytes = 0x3fffffff - rowHeaderBytes;

const noRowAnswer = Buffer.concat([rowDescription, commandComplete(0), readyForQuery]);
const nullAnswer = rowOf(-1, 0);
const emptyAnswer = rowOf(0, 0);

/** The bytes that answer a call: one piece, or several that belong together. */
export function answerBytes(answer: Answer): Uint8Array | readonly Uint8Array[] {
  if (answer.kind === "no-row") return noRowAnswer;
  if (answer.kind === "error") return Buffer.concat([errorResponse("ERROR", answer), readyForQuery]);
  const { value } = answer;
  if (value === null) return nullAnswer;
  if (value.length === 0) return emptyAnswer;
  return typeof value === "string" ? textAnswer(value) : bytesAnswer(value);
}

function textAnswer(text: string): Uint8Array {
  // Measured first, since text beyond the limit may have no memory.
  const length = Buffer.byteLength(text);
  const fault = faultOf(length, text.includes("\0"));
  if (fault !== undefined) return fault;
  const bytes = rowOf(length, length);
  bytes.write(text, headBytes);
  return bytes;
}

function bytesAnswer(value: Uint8Array): Uint8Array | readonly Uint8Array[] {
  const fault = faultOf(value.length, value.includes(0) || !isUtf8(value));
  if (fault !== undefined) return fault;
  if (value.length < largeValueBytes) {
    const bytes = rowOf(value.length, value.length);
    bytes.set(value, headBytes);
    return bytes;
  }
  const frame = rowOf(value.length, 0);
  return [frame.subarray(0, headBytes), value, frame.subarray(headBytes)];
}

function faultOf(length: number, isNoText: boolean): Uint8Array | undefined {
  if (isNoText) return faultBytes("not_text", "the value is no text: it is not UTF-8, or holds NUL");
  if (length <= maxValueBytes) return undefined;
  return faultBytes("gateway_limit", `the value has ${length} bytes, and Postgres can take ${maxValueBytes}`);
}

function faultBytes(code: "not_text" | "gateway_limit", message: string): Uint8Array {
  const { sqlstate, remedy: hint } = errorTable[code];
  const answer: ErrorAnswer = { kind: "error", sqlstate, message, hint };
  return Buffer.concat([errorResponse("ERROR", answer), readyForQuery]);
}

/**
 * An answer of one row without its value.
 *
 * @param declared the length of the value that is said; -1 for NULL
 * @param room how many bytes are left for it
 */
function rowOf(declared: number, room: number): Buffer {
  const bytes = Buffer.allocUnsafe(headBytes + room + after.length);
  bytes.set(before);
  bytes.writeInt32BE(rowHeaderBytes + Math.max(declared, 0), before.length);
  bytes.writeInt16BE(1, before.length + 4);
  bytes.writeInt32BE(declared, before.length + 6);
  bytes.set(after, headBytes + room);
  return bytes;
}
