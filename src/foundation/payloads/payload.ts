/** Payloads of users: text, bytes, or an object that is sent as JSON. */
import type { DescMessage } from "@bufbuild/protobuf";
import type { Content } from "../../../generated/ts/nats-functions/client.js";
import { HawserError, invalidArgument } from "../errors/index.js";

/** Header `content-type` of an object that is sent as JSON. */
export const jsonContentType = "application/json";

/** Payload in the form in which it is sent. */
export type PayloadForm =
  | { readonly kind: "text" | "json"; readonly value: string }
  | { readonly kind: "binary"; readonly value: Uint8Array };

/**
 * Converts a payload to its form.
 *
 * @param name name of the argument in errors
 * @throws HawserError `invalid_argument` for other values, and for objects that JSON cannot represent
 */
export function formOf(payload: unknown, name = "payload"): PayloadForm {
  if (typeof payload === "string") return { kind: "text", value: payload };
  if (payload instanceof Uint8Array) return { kind: "binary", value: payload };
  const value = jsonForm(payload, name);
  if (value !== undefined) return { kind: "json", value };
  const given = payload === null ? "null" : `a value of type ${typeName(payload)}`;
  throw invalidArgument(`${name} ${given}: must be a string, a Uint8Array, or an object, which is sent as JSON`);
}

/**
 * JSON of an object; undefined for objects that JSON cannot represent: bytes, maps, sets and the like, and a promise
 * that was not awaited.
 */
function jsonForm(payload: unknown, name: string): string | undefined {
  if (typeof payload !== "object" || payload === null) return undefined;
  if (ArrayBuffer.isView(payload) || typeof (payload as { then?: unknown }).then === "function") return undefined;
  if (notJson.has(Object.prototype.toString.call(payload))) return undefined;
  try {
    const json = JSON.stringify(payload) as string | undefined;
    return json === "null" ? undefined : json;
  } catch (cause) {
    const why = (cause as Error).message;
    throw invalidArgument(`${name} of type ${typeName(payload)}: must be an object that JSON can represent: ${why}`);
  }
}

const notJson: ReadonlySet<string> = new Set(
  ["ArrayBuffer", "SharedArrayBuffer", "Map", "Set", "WeakMap", "WeakSet", "Error", "RegExp"].map(
    (name) => `[object ${name}]`,
  ),
);

function typeName(value: unknown): string {
  return typeof value === "object" && value !== null ? (value.constructor?.name ?? "object") : typeof value;
}

/** True for the schema of a message as protoc-gen-es generates it. */
export function isSchema(value: unknown): value is DescMessage {
  return typeof value === "object" && value !== null && (value as { kind?: unknown }).kind === "message";
}

/** Text of a payload. Invalid UTF-8 becomes U+FFFD. */
export function textOf(payload: Uint8Array): string {
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString();
}

/** JSON of a payload. @throws HawserError `invalid_message` */
export function jsonOf<T>(payload: Uint8Array): T {
  try {
    return JSON.parse(textOf(payload)) as T;
  } catch (cause) {
    const why = (cause as Error).message;
    throw new HawserError("invalid_message", `the payload (${payload.length} bytes) is not JSON: ${why}`, { cause });
  }
}

export class ReceivedContent implements Content {
  readonly payload: Uint8Array;

  constructor(payload: Uint8Array) {
    this.payload = payload;
  }

  text(): string {
    return textOf(this.payload);
  }

  // biome-ignore lint/suspicious/noExplicitAny: the sender determines the JSON value, as with json() of fetch
  json<T = any>(): T {
    return jsonOf(this.payload);
  }
}
