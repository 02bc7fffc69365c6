/**
 * The messages of a server, as bytes.
 */
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
 * NotificationResponse: the session ends. dblink keeps it (`dblink_get_notify`), and throws an error away that comes while no
 * call is under way.
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

/** CommandComplete after one row. */
const commandComplete = message("C", cstring("SELECT 1"));

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
const after = Buffer.concat([commandComplete, readyForQuery]);

/** Of a DataRow of one column: its length, the number of columns, the length of the value. */
const rowHeaderBytes = 10;
const headBytes = before.length + rowHeaderBytes;

/** The greatest value that a message can hold, and Postgres: 1 GiB with what is around it. */
const maxValueBytes = 0x3fffffff - rowHeaderBytes;

const nullAnswer = rowOf(-1);
const emptyAnswer = rowOf(0);

/** The bytes that answer a call. */
export function answerBytes(answer: Answer): Uint8Array {
  if (answer.kind === "error") return Buffer.concat([errorResponse("ERROR", answer), readyForQuery]);
  const { value } = answer;
  if (value === null) return nullAnswer;
  if (value === "") return emptyAnswer;
  if (value.includes("\0")) return faultBytes("not_text", "the value is no text: it holds NUL");
  // Measured first, since text beyond the limit may have no memory.
  const length = Buffer.byteLength(value);
  if (length > maxValueBytes) {
    return faultBytes("gateway_limit", `the value has ${length} bytes, and Postgres can take ${maxValueBytes}`);
  }
  const bytes = rowOf(length);
  bytes.write(value, headBytes);
  return bytes;
}

function faultBytes(code: "not_text" | "gateway_limit", message: string): Uint8Array {
  const { sqlstate, remedy: hint } = errorTable[code];
  return Buffer.concat([errorResponse("ERROR", { kind: "error", sqlstate, message, hint }), readyForQuery]);
}

/**
 * An answer of one row, with room for its value.
 *
 * @param length of the value in bytes; -1 for NULL
 */
function rowOf(length: number): Buffer {
  const room = Math.max(length, 0);
  const bytes = Buffer.allocUnsafe(headBytes + room + after.length);
  bytes.set(before);
  bytes.writeInt32BE(rowHeaderBytes + room, before.length);
  bytes.writeInt16BE(1, before.length + 4);
  bytes.writeInt32BE(length, before.length + 6);
  bytes.set(after, headBytes + room);
  return bytes;
}
