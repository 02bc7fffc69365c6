/**
 * Encodes the messages of the server.
 */
import { errorTable } from "../../../foundation/errors/index.js";
import type { Answer, ErrorAnswer } from "./answer.js";

/** Protocol version 3.0, as encoded in a message. */
const protocolVersion = 3 << 16;

/** Maximum length of each field of an error, in characters. During the login, libpq rejects longer errors. */
const maxErrorFieldLength = 8000;

/** ERROR ends the call, FATAL the session. */
type Severity = "ERROR" | "FATAL";

/** Answer to an encryption request, a single byte. */
export const encryptionAccepted = Buffer.from("S");
export const encryptionRefused = Buffer.from("N");

/** ReadyForQuery, outside of a transaction. */
export const readyForQuery = message("Z", Buffer.from("I"));

/**
 * NotificationResponse that announces the end of the session. dblink keeps the notification for `dblink_get_notify`,
 * but discards an error that arrives while no call is running.
 */
export const sessionEndNotification = message("A", int32(0), cstring("hawser_session_ends"), cstring(""));

/** RowDescription of the single column: `r`, text. */
const rowDescription = message(
  "T",
  int16(1),
  cstring("r"),
  // No table, no column number; type text (25) of variable size, without modifier; text format.
  int32(0),
  int16(0),
  int32(25),
  int16(-1),
  int32(-1),
  int16(0),
);

/** CommandComplete after one row. */
const commandComplete = message("C", cstring("SELECT 1"));

/** AuthenticationSASL with the offered mechanisms. */
export function authenticationSasl(mechanisms: readonly string[]): Buffer {
  return message("R", int32(10), ...mechanisms.map(cstring), Buffer.alloc(1));
}

/** AuthenticationSASLContinue: the server's first SASL message. */
export function authenticationSaslContinue(text: string): Buffer {
  return message("R", int32(11), Buffer.from(text));
}

/** AuthenticationSASLFinal: the server's final SASL message. */
export function authenticationSaslFinal(text: string): Buffer {
  return message("R", int32(12), Buffer.from(text));
}

/** NegotiateProtocolVersion: the server supports 3.0 and no protocol options. */
export function negotiateProtocolVersion(unknownOptions: readonly string[]): Buffer {
  const names = unknownOptions.map(cstring);
  return message("v", int32(protocolVersion), int32(names.length), ...names);
}

/**
 * Messages after authentication, up to ReadyForQuery. DateStyle and IntervalStyle are left out, because dblink would
 * set them in the session of the caller. BackendKeyData is left out, because every call has a deadline and need not be
 * cancelled.
 */
export const sessionStart = Buffer.concat([
  message("R", int32(0)),
  parameterStatus("client_encoding", "UTF8"),
  parameterStatus("server_encoding", "UTF8"),
  parameterStatus("server_version", "14.0 (Hawser)"),
  parameterStatus("standard_conforming_strings", "on"),
  parameterStatus("integer_datetimes", "on"),
  readyForQuery,
]);

/** ErrorResponse. Replaces NUL by U+FFFD, cuts long fields, and replaces an invalid SQLSTATE by XX000. */
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

/** Bytes before and after the DataRow of an answer. */
const before = Buffer.concat([rowDescription, Buffer.from("D")]);
const after = Buffer.concat([commandComplete, readyForQuery]);

/** Header of a DataRow of one column: message length, number of columns, length of the value. */
const rowHeaderBytes = 10;
const headBytes = before.length + rowHeaderBytes;

/** Maximum length of a value: a message, like a Postgres value, is limited to 1 GiB. */
const maxValueBytes = 0x3fffffff - rowHeaderBytes;

const nullAnswer = rowOf(-1);
const emptyAnswer = rowOf(0);

/** Encoded answer to a call. */
export function answerBytes(answer: Answer): Uint8Array {
  if (answer.kind === "error") return Buffer.concat([errorResponse("ERROR", answer), readyForQuery]);
  const { value } = answer;
  if (value === null) return nullAnswer;
  if (value === "") return emptyAnswer;
  if (value.includes("\0")) return faultBytes("not_text", "the value is not valid text: it contains NUL");
  // Measured first, because a text beyond the limit might not fit into memory.
  const length = Buffer.byteLength(value);
  if (length > maxValueBytes) {
    return faultBytes("gateway_limit", `the value has ${length} bytes, and Postgres accepts at most ${maxValueBytes}`);
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
 * Answer of one row, with space for its value.
 *
 * @param length length of the value in bytes; -1 for NULL
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
