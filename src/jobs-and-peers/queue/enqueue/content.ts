/** Payloads and headers that users give, and the properties of a message that are sent as reserved headers. */
import { namedRules } from "../../../../generated/ts/rules/named.js";
import {
  checkHeaderName,
  checkHeaderValue,
  checkPayloadHeadersHeaders,
  limits,
} from "../../../../generated/ts/rules/peer/frames.js";
import { checkText } from "../../../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../../generated/ts/settings/queue.js";
import { HawserError, invalidArgument, refuse } from "../../../foundation/errors/index.js";
import { contentTypeHeader, formOf, jsonContentType } from "../../../foundation/payloads/index.js";
import { type TraceContext, withTrace } from "../../../foundation/runtime/index.js";
import type { Headers } from "../../channel/index.js";

/**
 * Payload of a message. A string is encoded as UTF-8. An object other than `Uint8Array` is encoded as JSON, with the
 * header `content-type`.
 */
export type Payload = string | Uint8Array | object;

/** Payload type of a call: {@link Payload} without objects that JSON cannot represent. */
export type Sendable<Given> = Given extends string | Uint8Array
  ? Given
  : Given extends object
    ? Json<Given, { toJSON(): unknown }>
    : Payload;

/**
 * A type as JSON gives it back: {@link NotJson} is in place of the parts that JSON leaves out or changes, so that the
 * compiler refuses the values of these parts.
 *
 * @template Changed types that JSON may change
 */
export type Json<T, Changed = never> = unknown extends T
  ? T
  : T extends string | number | boolean | null | undefined | Changed
    ? T
    : T extends bigint | symbol | ((...values: never) => unknown) | { toJSON(): unknown }
      ? NotJson
      : keyof T extends never
        ? T
        : { [Key in keyof T]: Json<T[Key], Changed> };

type NotJson = "JSON cannot carry this";

/** Parsed JSON whose shape the caller knows, as in `Response` of fetch. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type AnyJson = any;

const encoder = new TextEncoder();

/** Bytes of a payload; a string is encoded as UTF-8. */
function bytesOf(payload: Uint8Array | string): Uint8Array {
  return typeof payload === "string" ? encoder.encode(payload) : payload;
}

/** Encodes a payload, and determines its content type. @throws HawserError `invalid_argument` */
export function contentOf(payload: unknown): { readonly bytes: Uint8Array; readonly contentType: string | undefined } {
  const { kind, value } = formOf(payload);
  return { bytes: bytesOf(value), contentType: kind === "json" ? jsonContentType : undefined };
}

/** Encoded payload with its headers. */
interface SentContent {
  readonly bytes: Uint8Array;
  readonly headers: HeadersInput | undefined;
}

/** Encodes a payload and adds its content type to the headers. @throws HawserError `invalid_argument` */
export function checkContent(payload: Payload, headers: HeadersInput | undefined): SentContent {
  if (typeof payload === "string" || payload instanceof Uint8Array) return { bytes: bytesOf(payload), headers };
  const { bytes, contentType } = contentOf(payload);
  return { bytes, headers: withHeader(headerPairsOf(headers), contentTypeHeader, contentType) };
}

/** @throws HawserError `invalid_argument` for an empty payload */
export function checkPayload(bytes: Uint8Array): Uint8Array {
  if (bytes.length > 0) return bytes;
  throw invalidArgument("payload 0 bytes: must be a Uint8Array or a string of at least one byte");
}

/**
 * Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs such as {@link
 * MessageHeaders}.
 */
export type HeadersInput =
  | Readonly<Record<string, string | readonly string[]>>
  | Iterable<readonly [name: string, value: string]>;

/** Converts headers to pairs of name and value. @throws HawserError `invalid_argument` if they have another type */
export function headerPairsOf(headers: HeadersInput | undefined): Headers {
  if (headers === undefined) return [];
  const isObject = typeof headers === "object" && headers !== null;
  const isIterable = isObject && Symbol.iterator in headers;
  const pairs: unknown[] = isIterable
    ? [...headers]
    : Object.entries(isObject ? headers : {}).flatMap(([name, value]) =>
        (Array.isArray(value) ? value : [value]).map((one: unknown) => [name, one]),
      );
  const isPair = (pair: unknown) =>
    Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && typeof pair[1] === "string";
  if (isObject && pairs.every(isPair)) return pairs as unknown as Headers;
  throw new HawserError(
    "invalid_argument",
    "headers: must be an object of strings, or of arrays of strings, or a list of [name, value]",
  );
}

/** Adds a header, unless it is already present or the value is undefined. */
export function withHeader(pairs: Headers, name: string, value: string | undefined): Headers {
  if (value === undefined || pairs.some(([present]) => present.toLowerCase() === name)) return pairs;
  return [[name, value], ...pairs];
}

/** Constant headers of this library that were validated once. */
const checkedBefore = new WeakSet<object>();

/** Copy of the last validated headers. Consecutive messages mostly have equal headers. */
let lastChecked: Headers = [];

function equalLast(pairs: Headers): boolean {
  if (pairs.length !== lastChecked.length) return false;
  for (let index = 0; index < pairs.length; index++) {
    const pair = pairs[index];
    const last = lastChecked[index]!;
    if (pair?.[0] !== last[0] || pair[1] !== last[1]) return false;
  }
  return true;
}

/** Validates headers that are used for many messages. The caller must not change them afterwards. */
export function checkedOnce(headers: Headers): Headers {
  const checked = checkHeaders(headers) ?? headers;
  checkedBefore.add(checked);
  return checked;
}

/**
 * Validates headers and converts them to pairs. Headers equal to those of the previous call return the same object.
 * Returns undefined if there are no headers.
 *
 * @throws HawserError `invalid_argument`
 */
export function checkHeaders(headers: HeadersInput | undefined): Headers | undefined {
  if (headers === undefined) return undefined;
  if (checkedBefore.has(headers)) return headers as Headers;
  const pairs = Array.isArray(headers) ? (headers as Headers) : headerPairsOf(headers);
  if (pairs.length === 0) return undefined;
  if (equalLast(pairs)) return lastChecked;
  refuse(checkPayloadHeadersHeaders(pairs), "headers");
  for (const [name, value] of pairs) {
    refuse(checkHeaderName(name), "header name");
    const badValue = checkHeaderValue(value);
    if (badValue) refuse(badValue, `header ${name}`);
  }
  lastChecked = pairs.map(([name, value]) => [name, value] as const);
  return lastChecked;
}

/** Properties of a message that are sent as reserved headers. */
export interface Marks {
  readonly key?: string | undefined;
  readonly messageId?: string | undefined;
  readonly ttlMs?: number | undefined;
}

/** Validates the key, id and time to live of a message. @throws HawserError `invalid_argument` */
export function checkMarks({ key, messageId, ttlMs }: Marks): void {
  if (key !== undefined) refuse(checkText("key", namedRules.enqueuedKey, key));
  if (messageId !== undefined) refuse(checkText("messageId", namedRules.enqueuedMessageId, messageId));
  const { maxTtlMs } = protocolConstants;
  if (ttlMs === undefined || (Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= maxTtlMs)) return;
  throw invalidArgument(`ttlMs ${String(ttlMs)}: must be a whole number of ms from 1 to ${maxTtlMs}`);
}

/** Header with the expiry time of a message. @param from start of the time to live, in ms since 1970 */
export function expiresHeader(ttlMs: number, from: number): readonly [string, string] {
  return [protocolConstants.messageExpiresHeader, String(from + ttlMs)];
}

/** Header with the number of attempts of a message. @throws HawserError `invalid_argument` */
export function attemptsHeader(attempts: number): readonly [string, string] {
  const { maxAttempts } = queueConstants;
  if (!(Number.isInteger(attempts) && attempts >= 1 && attempts <= maxAttempts))
    throw invalidArgument(`attempts ${String(attempts)}: must be a whole number from 1 to ${maxAttempts}`);
  return [protocolConstants.messageAttemptsHeader, String(attempts)];
}

/** Adds a context to the headers of a message, unless they name a trace or are as many as a message can have. */
export function withContext(headers: Headers, context: TraceContext): Headers {
  return withTrace(headers, context, limits.PayloadHeaders.headers.maxItems);
}
