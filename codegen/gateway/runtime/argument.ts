/** Problem with an argument of a call. */
export interface ArgumentFault {
  /**
   * `null`: a value is missing; `rule`: a value breaks a rule; `form`: the call differs from the calls of generated
   * functions.
   */
  readonly kind: "null" | "rule" | "form";
  /** Parameter name in SQL; empty for a problem of the call as a whole. */
  readonly argument: string;
  /** Value, printable and shortened. */
  readonly value: string;
  /** Rule: "must be …". */
  readonly rule: string;
}

/** Thrown by the readers of calls. */
export class BadArgument extends Error {
  override readonly name = "BadArgument";

  constructor(readonly fault: ArgumentFault) {
    super(`${fault.argument} ${fault.rule}`);
  }
}

/** JSON object, such as headers. */
export type JsonObject = { readonly [name: string]: unknown };

/** List of payloads that follows a call's argument. */
export interface PayloadList {
  /** Payloads in the order of the array, empty for NULL; undefined if the array is NULL. */
  readonly payloads: readonly Uint8Array[] | undefined;
  /** Position of the first NULL, from 0; undefined if there is none. */
  readonly firstNull: number | undefined;
}

/** Reads a call's argument, a JSON object. @throws BadArgument if it is not an object, or has an unknown name */
export function readArgument(json: unknown, names: ReadonlySet<string>): JsonObject {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw form("", "the argument must be a JSON object");
  }
  for (const name of Object.keys(json)) {
    if (!names.has(name)) {
      throw form(JSON.stringify(name.slice(0, 60)), "is no parameter of this function");
    }
  }
  return json as JsonObject;
}

/** @throws BadArgument if the value is missing */
export function needed<T>(argument: string, value: T | undefined): T {
  if (value === undefined) {
    throw new BadArgument({ kind: "null", argument, value: "NULL", rule: "must not be NULL" });
  }
  return value;
}

export function readString(argument: string, value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "string") throw form(argument, "must be a string");
  return value;
}

export function readPayloadType(argument: string, value: unknown): "text" | "json" | "jsonb" | "binary" | undefined {
  if (value === null || value === undefined) return undefined;
  if (value === "text" || value === "json" || value === "jsonb" || value === "binary") return value;
  throw form(argument, "must be a type of payload");
}

/** Reads bytes from base64 with padding and without other characters. */
export function readBytes(argument: string, value: unknown): Uint8Array | undefined {
  const text = readString(argument, value);
  if (text === undefined) return undefined;
  const bytes = decodeBase64(text);
  if (bytes === undefined) throw form(argument, "must be base64");
  return bytes;
}

/** Decodes base64. @returns undefined if the text is not valid */
export function decodeBase64(text: string): Uint8Array | undefined {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const buffer = Buffer.from(text, "base64");
  // Buffer skips invalid characters, so the length shows them.
  return text.length % 4 === 0 && buffer.length === (text.length / 4) * 3 - padding ? buffer : undefined;
}

/** Reads an integer of 32 bits. */
export function readInteger(argument: string, value: unknown): number | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "number" || value !== (value | 0)) throw form(argument, "must be an integer of 32 bits");
  return value;
}

/** Reads an integer of 64 bits from a text. */
export function readBigint(argument: string, value: unknown): bigint | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "string" || !/^-?[0-9]{1,19}$/.test(value) || BigInt.asIntN(64, BigInt(value)) !== BigInt(value))
    throw form(argument, "must be an integer of 64 bits");
  return BigInt(value);
}

export function readObject(argument: string, value: unknown): JsonObject | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new BadArgument({ kind: "rule", argument, value: shown(value), rule: "must be a JSON object" });
  }
  return value as JsonObject;
}

/** Reads a list of texts. @throws BadArgument if an element is not a text that Postgres can store, or the array has two dimensions */
export function readTexts(argument: string, value: unknown): readonly string[] | undefined {
  if (value === null || value === undefined) return undefined;
  if (!Array.isArray(value)) throw form(argument, "must be a list");
  for (const [index, one] of value.entries()) {
    const element = `${argument}[${index + 1}]`;
    if (one === null)
      throw new BadArgument({ kind: "null", argument: element, value: "NULL", rule: "must not be NULL" });
    const isText = typeof one === "string";
    if (!isText || /[\0\p{Cs}]/u.test(one)) {
      const rule = isText ? "must be well-formed Unicode without NUL" : "must be a text";
      throw new BadArgument({ kind: "rule", argument: element, value: shown(one), rule });
    }
  }
  return value;
}

/** @throws BadArgument if the array or one of its elements is NULL */
export function readPayloads(argument: string, list: PayloadList | undefined): readonly Uint8Array[] {
  if (list === undefined) throw form(argument, "the list of payloads is missing");
  if (list.firstNull !== undefined) {
    const element = `${argument}[${list.firstNull + 1}]`;
    throw new BadArgument({ kind: "null", argument: element, value: "NULL", rule: "must not be NULL" });
  }
  return needed(argument, list.payloads);
}

/** @throws BadArgument if a rule of the spec is broken */
export function obey(
  violation: { readonly path: string; readonly value: string; readonly rule: string } | undefined,
): void {
  if (violation === undefined) return;
  const { path: argument, value, rule } = violation;
  throw new BadArgument({ kind: "rule", argument, value, rule });
}

function form(argument: string, rule: string): BadArgument {
  return new BadArgument({ kind: "form", argument, value: "", rule });
}

/** Value for an error. Lists and objects are not printed: their nesting may exceed the stack, and an object may hold a `toString` of its own. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  const text = String(value);
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : value);
}

/** Bytes in the input format of bytea. */
export function bytesText(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}`;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Thrown if bytes are not valid text. */
export class NotText extends Error {
  override readonly name = "NotText";
}

/** Decodes text. @throws NotText if the bytes are not UTF-8, or contain NUL, which Postgres cannot store in a text */
export function decodeText(bytes: Uint8Array): string {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new NotText("it is not UTF-8");
  }
  if (text.includes("\0")) throw new NotText("it holds NUL");
  return text;
}
