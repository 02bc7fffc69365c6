/**
 * Answers as bytes: RowDescription, DataRow, CommandComplete and ReadyForQuery in as few pieces as can be, since they
 * leave in one write.
 */
import { isUtf8 } from "node:buffer";
import { errorTable } from "../../errors/index.js";
import type { Answer, ErrorAnswer } from "./answer.js";
import { commandComplete, errorResponse, readyForQuery, rowDescription } from "./backend-messages.js";

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
