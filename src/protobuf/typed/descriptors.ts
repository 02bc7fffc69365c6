/**
 * Display of typed messages, with an image that `buf build` created and the type that the header `content-type` names.
 */
import {
  createFileRegistry,
  type DescMessage,
  type FileRegistry,
  fromBinary,
  fromJson,
  type JsonValue,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { HawserError } from "../../foundation/errors/index.js";
import { contentTypeHeader, parseContentType } from "../../foundation/payloads/index.js";
import { readSmallFileSync } from "../../foundation/runtime/index.js";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text of the bytes; undefined if they are not valid UTF-8. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

function base64Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
}

/** Form of printed payloads: text if valid UTF-8 and otherwise base64, always base64, or always text. */
export type ShownForm = "auto" | "base64" | "text";

/** Payload as it is printed. */
export interface ShownPayload {
  /** Text; the value of a typed message if `encoding` is `json`. */
  readonly payload: string | JsonValue;
  readonly encoding: "utf8" | "base64" | "json";
  /** Type that the message declares; only with descriptors. */
  readonly type?: string;
  /** Reason why a typed message is shown as raw bytes. */
  readonly note?: string;
}

type Headers = readonly (readonly [name: string, value: string])[];

/** Maximum size of an image, far above that of a large company. */
const maxImageBytes = 64 * 1024 * 1024;

/** Types of an image. */
export class Descriptors {
  readonly #path: string;
  readonly #registry: FileRegistry;

  private constructor(path: string, registry: FileRegistry) {
    this.#path = path;
    this.#registry = registry;
  }

  /** @throws HawserError `invalid_argument` if the file cannot be read, or is not an image */
  static read(path: string): Descriptors {
    const refuse = (why: string, cause?: unknown): HawserError =>
      new HawserError(
        "invalid_argument",
        `--descriptors "${path}": ${why}; make an image of your protos with \`buf build -o image.binpb\``,
        { cause },
      );
    let bytes: Uint8Array;
    try {
      bytes = readSmallFileSync(path, maxImageBytes);
    } catch (cause) {
      throw refuse(`cannot be read: ${(cause as Error).message}`, cause);
    }
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) throw refuse("is compressed; it must be uncompressed binary");
    if (/^\s*\{/.test(Buffer.from(bytes.subarray(0, 100)).toString())) {
      throw refuse("is JSON or text; it must be binary");
    }
    let registry: FileRegistry;
    try {
      registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
    } catch (cause) {
      throw refuse(`is not an image, or lacks imports of its files (${(cause as Error).message})`, cause);
    }
    if ([...registry.files].length === 0) throw refuse("is not an image, or is empty");
    return new Descriptors(path, registry);
  }

  /** Decodes a typed message, or returns the reason why it cannot be decoded; undefined if its headers name no type. */
  decode(payload: Uint8Array, headers: Headers): Decoded | undefined {
    const content = contentOf(headers);
    if (content === undefined) return undefined;
    const { type, isJson } = content;
    const message = this.#registry.getMessage(type);
    if (message === undefined) return { type, note: `${type} is not in ${this.#path}` };
    try {
      return { type, value: isJson ? this.#fromText(message, payload) : this.#fromBytes(message, payload) };
    } catch (error) {
      return { type, note: `does not decode as ${type}: ${(error as Error).message}` };
    }
  }

  /**
   * Encodes the JSON of a typed message, as {@link decode} returns it, by the type and the format that the headers name; other payloads
   * stay as they are.
   *
   * @throws HawserError `invalid_argument` if the type is not in the image, or if the JSON is not of it
   */
  encode(json: Uint8Array, headers: Headers): Uint8Array {
    const content = contentOf(headers);
    if (content === undefined) return json;
    const { type, isJson } = content;
    const message = this.#registry.getMessage(type);
    if (message === undefined) throw new HawserError("invalid_argument", `${type} is not in ${this.#path}`);
    try {
      const registry = this.#registry;
      const value = fromJson(message, JSON.parse(utf8.decode(json)), { registry });
      return isJson ? json : toBinary(message, value);
    } catch (cause) {
      throw new HawserError("invalid_argument", `the payload is no JSON of ${type}: ${(cause as Error).message}`, {
        cause,
      });
    }
  }

  #fromBytes(message: DescMessage, payload: Uint8Array): JsonValue {
    return toJson(message, fromBinary(message, payload), { registry: this.#registry });
  }

  #fromText(message: DescMessage, payload: Uint8Array): JsonValue {
    const text = textOf(payload);
    if (text === undefined) throw new Error("it is not UTF-8");
    const options = { registry: this.#registry };
    return toJson(message, fromJson(message, JSON.parse(text), options), options);
  }
}

type Decoded = { readonly type: string; readonly value: JsonValue } | { readonly type: string; readonly note: string };

/** Parsed content type, if it names a type. */
function contentOf(headers: Headers): { readonly type: string; readonly isJson: boolean } | undefined {
  const header = headers.find(([name]) => name.toLowerCase() === contentTypeHeader);
  const { type, format } = (header && parseContentType(header[1])) ?? {};
  return type === undefined ? undefined : { type, isJson: format === "json" };
}

/** Payload as it is printed. @param descriptors decodes typed payloads */
export function shownPayload(
  bytes: Uint8Array,
  headers: Headers,
  descriptors: Descriptors | undefined,
  form: ShownForm = "auto",
): ShownPayload {
  const decoded = descriptors?.decode(bytes, headers);
  if (decoded !== undefined && "value" in decoded) {
    return { payload: decoded.value, encoding: "json", type: decoded.type };
  }
  return { ...raw(bytes, form), ...decoded };
}

function raw(bytes: Uint8Array, form: ShownForm): { readonly payload: string; readonly encoding: "utf8" | "base64" } {
  if (form === "text") return { payload: Buffer.from(bytes).toString("utf8"), encoding: "utf8" };
  const text = form === "base64" ? undefined : textOf(bytes);
  return text === undefined ? { payload: base64Of(bytes), encoding: "base64" } : { payload: text, encoding: "utf8" };
}

/** Text of a payload for people, not yet escaped for a terminal. */
export function payloadLine({ payload, encoding, type, note }: ShownPayload, form: ShownForm = "auto"): string {
  if (encoding === "json") return `${type} ${JSON.stringify(payload)}`;
  const text = `${encoding === "base64" && form === "auto" ? "base64 " : ""}${payload}`;
  return note === undefined ? text : `${text} (${note})`;
}
