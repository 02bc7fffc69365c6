/**
 * Client messages, written by hand, and a parser of server messages, independent of the code under test.
 */
import { createHash, createHmac, pbkdf2Sync } from "node:crypto";

const protocol30 = 0x00030000;
export const sslRequest = packet(int32(80877103));
export const gssRequest = packet(int32(80877104));
export const cancelRequest = packet(int32(80877102), int32(1), int32(2));
export const terminate = message("X");
export const sync = message("S");
export const flush = message("H");

/** A startup message. */
export function startup(parameters: Readonly<Record<string, string>>, version = protocol30): Buffer {
  const pairs = Object.entries(parameters).map(([name, value]) => Buffer.from(`${name}\0${value}\0`));
  return packet(int32(version), ...pairs, Buffer.alloc(1));
}

/** A simple query. */
export function query(text: string | Uint8Array): Buffer {
  return message("Q", Buffer.from(text), Buffer.alloc(1));
}

/** The client's first message of SASL. */
export function saslInitial(text: string, mechanism = "SCRAM-SHA-256"): Buffer {
  const bytes = Buffer.from(text);
  return message("p", Buffer.from(`${mechanism}\0`), int32(bytes.length), bytes);
}

/** The client's later messages of SASL. */
export function saslResponse(text: string): Buffer {
  return message("p", Buffer.from(text));
}

/** A message with a type. */
export function message(type: string, ...parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat([Buffer.from(type, "latin1"), packet(...parts)]);
}

/** A header that declares any length, in bytes with its own four. */
export function header(type: string, length: number): Buffer {
  return Buffer.concat([Buffer.from(type, "latin1"), int32(length)]);
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
}

function packet(...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([int32(body.length + 4), body]);
}

const saltedPasswords = new Map<string, Buffer>();

/** The client's final message for the server's first one. @param bound what it binds the channel with */
export function clientFinal(
  clientFirst: string,
  serverFirst: string,
  password: string,
  bound: Uint8Array = Buffer.alloc(0),
): string {
  const { nonce, salt, iterations } = /^r=(?<nonce>[^,]+),s=(?<salt>[^,]+),i=(?<iterations>\d+)$/.exec(serverFirst)!
    .groups as { nonce: string; salt: string; iterations: string };
  const known = `${password} ${salt} ${iterations}`;
  const salted =
    saltedPasswords.get(known) ?? pbkdf2Sync(password, Buffer.from(salt, "base64"), Number(iterations), 32, "sha256");
  saltedPasswords.set(known, salted);
  const [, gs2Header, bare] = /^([^,]*,[^,]*,)(.*)$/.exec(clientFirst)!;
  const withoutProof = `c=${Buffer.concat([Buffer.from(gs2Header!), bound]).toString("base64")},r=${nonce}`;
  const clientKey = createHmac("sha256", salted).update("Client Key").digest();
  const storedKey = createHash("sha256").update(clientKey).digest();
  const signature = createHmac("sha256", storedKey).update(`${bare},${serverFirst},${withoutProof}`).digest();
  const proof = clientKey.map((byte, index) => byte ^ signature[index]!);
  return `${withoutProof},p=${Buffer.from(proof).toString("base64")}`;
}

/** A message of the server. */
export interface BackendMessage {
  readonly type: string;
  readonly body: Buffer;
}

/** The types a server may send after its answers to encryption requests. */
const backendTypes = "REvSTDCZA";

/**
 * Takes the server's bytes apart.
 *
 * @param encryptionAnswers how many single bytes, S or N, come first
 * @returns what is whole, and what is left
 * @throws Error for what no server sends
 */
export function backendMessages(bytes: Buffer, encryptionAnswers = 0): { messages: BackendMessage[]; rest: Buffer } {
  const messages: BackendMessage[] = [];
  let at = 0;
  for (; at < encryptionAnswers && at < bytes.length; at++) {
    const type = bytes.toString("latin1", at, at + 1);
    if (type !== "S" && type !== "N" && type !== "E") throw new Error(`no answer to an encryption request: ${type}`);
    if (type === "E") break;
    messages.push({ type, body: Buffer.alloc(0) });
  }
  while (bytes.length - at >= 5) {
    const type = bytes.toString("latin1", at, at + 1);
    const length = bytes.readInt32BE(at + 1);
    if (!backendTypes.includes(type) || length < 4) throw new Error(`no message of a server: ${type}, ${length} bytes`);
    if (bytes.length < at + 1 + length) break;
    messages.push({ type, body: bytes.subarray(at + 5, at + 1 + length) });
    at += 1 + length;
  }
  return { messages, rest: bytes.subarray(at) };
}

/** The fields of an ErrorResponse, by their letters. */
export function errorFields({ type, body }: BackendMessage): Record<string, string> {
  if (type !== "E" || body.length < 2 || body.at(-1) !== 0 || body.at(-2) !== 0) throw new Error("no ErrorResponse");
  const fields = body.toString("utf8", 0, body.length - 2).split("\0");
  return Object.fromEntries(fields.map((field) => [field.slice(0, 1), field.slice(1)]));
}

/** The value of a DataRow of one column. */
export function rowValue({ type, body }: BackendMessage): Buffer | null {
  if (type !== "D" || body.readInt16BE(0) !== 1) throw new Error("no DataRow of one column");
  const length = body.readInt32BE(2);
  if (body.length !== 6 + Math.max(length, 0)) throw new Error("the DataRow has a wrong length");
  return length === -1 ? null : body.subarray(6);
}
