/**
 * A message with its destination: a topic of peers, a subject of NATS, or where the option of a schema says.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkBytes as checkBytesRule, checkText, type Violation } from "../../generated/ts/rules/violation.js";
import type { Headers } from "../channel/index.js";
import { PeerError, TypedError } from "../errors/index.js";
import {
  contentTypeHeader,
  contentTypeOf,
  encode,
  idOfMessage,
  keyOfMessage,
  subjectOf,
  type TopicOfSchema,
  topicOf,
} from "../typed/index.js";
import { bytesOf, type EnqueueOptions, type MoreHeaders, type NatsSubject } from "./message.js";
import { checkHeaders, checkKnownOptions, checkMarks, checkNotReserved, checkTopic, expiresHeader } from "./options.js";

/** A destination as its function of the outbox takes it. */
type Destination =
  | { readonly sink: "peers"; readonly topic: string }
  | { readonly sink: "nats"; readonly subject: string; readonly stream: boolean; readonly domain: string | null };

/** A message with its destination, checked: what its function of the outbox is called with. */
export interface Addressed {
  readonly destination: Destination;
  readonly payload: Uint8Array;
  /** A JSON object of lists of strings; null: none. */
  readonly headers: string | null;
  readonly key: string | null;
  readonly messageId: string | null;
}

/** A message with its destination. @throws HawserError `invalid_argument`, `internal_topic`, `invalid_schema` */
export function address(to: string | NatsSubject | DescMessage, payload: unknown, options: EnqueueOptions): Addressed {
  if (isSchema(to)) return addressTyped(to, payload as MessageInitShape<DescMessage>, options);
  refuseBeside(options, ["via", "format"], "is for a schema");
  const { bytes, contentType } = contentOf(payload);
  return checked(destinationOf(to), bytes, contentType, options);
}

function isSchema(to: unknown): to is DescMessage {
  return typeof to === "object" && to !== null && (to as { kind?: unknown }).kind === "message";
}

function addressTyped(schema: DescMessage, message: MessageInitShape<DescMessage>, options: EnqueueOptions): Addressed {
  const { format = "binary", via } = options;
  if (format !== "binary" && format !== "json") throw invalid(`format ${String(format)}: must be "binary" or "json"`);
  const of = topicOf(schema);
  const payload = encode(schema, message, format);
  const sink = sinkOf(of, via);
  const key = options.key ?? keyOfMessage(of, message);
  const destination: Destination =
    sink === "peers"
      ? { sink, topic: of.topic! }
      : { sink, subject: subjectOf(of, message), stream: of.stream, domain: null };
  // Core NATS knows messages by no id.
  const idOf = sink === "peers" || of.stream ? idOfMessage(of, message) : undefined;
  return checked(destination, payload, contentTypeOf(schema, format), {
    ...options,
    key,
    messageId: options.messageId ?? idOf,
  });
}

/** @throws TypedError `invalid_argument`, `invalid_schema` */
function sinkOf({ schema, topic, subject }: TopicOfSchema, via: EnqueueOptions["via"]): "peers" | "nats" {
  if (via !== undefined && via !== "peers" && via !== "nats")
    throw invalid(`via ${String(via)}: must be "peers" or "nats"`);
  if (topic !== undefined && subject !== undefined && via === undefined) {
    const text = `${schema.typeName}: its option has a topic and a subject; say via: "peers" or via: "nats"`;
    throw new TypedError("invalid_argument", text);
  }
  const sink = via ?? (topic === undefined ? "nats" : "peers");
  if ((sink === "peers" ? topic : subject) !== undefined) return sink;
  const missing = sink === "peers" ? "topic; set one to use peers" : "subject; set one to use NATS";
  throw new TypedError("invalid_schema", `${schema.typeName}: its option has no ${missing}`);
}

/** A destination that is no schema. @throws PeerError `invalid_argument` */
function destinationOf(to: string | NatsSubject): Destination {
  if (typeof to === "string") return { sink: "peers", topic: to };
  if (typeof to !== "object" || to === null) {
    throw invalid(`a destination of type ${typeof to}: must be a topic, { subject }, or a schema`);
  }
  checkKnownOptions(to, "a subject");
  const { subject, stream = false, domain = null } = to;
  if (typeof stream !== "boolean") throw invalid(`stream ${String(stream)}: must be true or false`);
  if (domain !== null && !stream) throw invalid(`domain ${String(domain)}: needs stream: true`);
  return { sink: "nats", subject, stream, domain };
}

/** The bytes of a payload, and what is said of them. @throws PeerError `invalid_argument` */
function contentOf(payload: unknown): { readonly bytes: Uint8Array; readonly contentType: string | undefined } {
  if (typeof payload === "string" || payload instanceof Uint8Array) {
    return { bytes: bytesOf(payload), contentType: undefined };
  }
  const json = typeof payload === "object" && payload !== null ? JSON.stringify(payload) : undefined;
  if (json !== undefined) return { bytes: bytesOf(json), contentType: jsonType };
  const given = payload === null ? "null" : `a value of type ${typeof payload}`;
  throw invalid(`payload ${given}: must be a string, a Uint8Array, or an object, which travels as JSON`);
}

const jsonType = "application/json";

/** @throws PeerError `invalid_argument`, `internal_topic` */
function checked(
  destination: Destination,
  payload: Uint8Array,
  contentType: string | undefined,
  options: EnqueueOptions,
): Addressed {
  const { key, messageId, ttlMs, deliverAt } = options;
  checkMarks({ key, messageId, ttlMs });
  const given = pairsOf(options.headers);
  const isTyped = given.some(([name]) => name.toLowerCase() === contentTypeHeader);
  const headers = contentType === undefined || isTyped ? given : [[contentTypeHeader, contentType] as const, ...given];
  const common = { destination, payload, key: key ?? null, messageId: messageId ?? null };
  if (destination.sink === "nats") {
    refuseBeside(options, ["all", "ttlMs"], "is for peers");
    const { subject, stream, domain } = destination;
    if (messageId !== undefined && !stream)
      throw invalid(`messageId ${messageId}: needs stream: true; core NATS has no ids`);
    checkRule(checkText("subject", namedRules.natsSubject, subject));
    if (domain !== null) checkRule(checkText("domain", namedRules.jetstreamDomain, domain));
    checkRule(checkBytesRule("payload", namedRules.natsPayload, payload));
    return { ...common, headers: jsonOf(headers) };
  }
  if (options.all !== undefined && typeof options.all !== "boolean")
    throw invalid(`all ${String(options.all)}: must be true or false`);
  checkTopic(destination.topic);
  checkNotReserved(destination.topic);
  checkRule(checkBytesRule("payload", namedRules.peerPayload, checkPayload(payload)));
  const pairs = checkHeaders(headers) ?? [];
  if (ttlMs === undefined) return { ...common, headers: jsonOf(pairs) };
  return {
    ...common,
    headers: jsonOf([...pairs, expiresHeader(ttlMs, Math.max(Date.now(), deliverAt?.getTime() ?? 0))]),
  };
}

function pairsOf(headers: MoreHeaders | undefined): Headers {
  if (headers === undefined) return [];
  if (Array.isArray(headers)) return headers as Headers;
  return Object.entries(headers as Exclude<MoreHeaders, Headers>).flatMap(([name, value]) =>
    (Array.isArray(value) ? (value as readonly string[]) : [value as string]).map((one) => [name, one] as const),
  );
}

function jsonOf(pairs: Headers): string | null {
  if (pairs.length === 0) return null;
  const values = new Map<string, string[]>();
  for (const [name, value] of pairs) values.set(name, [...(values.get(name) ?? []), value]);
  return JSON.stringify(Object.fromEntries(values));
}

function refuseBeside<Name extends keyof EnqueueOptions>(
  options: EnqueueOptions,
  names: readonly Name[],
  why: string,
): void {
  for (const name of names) {
    if (options[name] !== undefined) throw invalid(`${name} ${String(options[name])}: ${why}; leave it out`);
  }
}

/** @throws PeerError `invalid_argument` */
export function checkDeliverAt({ deliverAt }: EnqueueOptions): Date | null {
  if (deliverAt === undefined) return null;
  if (deliverAt instanceof Date && Number.isFinite(deliverAt.getTime())) return deliverAt;
  throw invalid(`deliverAt ${String(deliverAt)}: must be a valid Date`);
}

function checkRule(broken: Violation | undefined): void {
  if (broken !== undefined) throw invalid(`${broken.path} ${broken.value}: ${broken.rule}. ${broken.remedy}`);
}

function invalid(text: string): PeerError {
  return new PeerError("invalid_argument", text);
}

/** The bytes of a payload. @throws PeerError `invalid_argument` */
export function checkPayload(payload: Uint8Array | string): Uint8Array {
  const bytes = checkBytes(payload, " of at least one byte");
  if (bytes.length > 0) return bytes;
  throw invalid("payload 0 bytes: must be a Uint8Array or a string of at least one byte");
}

/** The bytes of a payload that may be empty. @throws PeerError `invalid_argument` */
export function checkBytes(payload: Uint8Array | string, which = ""): Uint8Array {
  const bytes = bytesOf(payload);
  if (bytes instanceof Uint8Array) return bytes;
  throw invalid(`payload a value of type ${typeof bytes}: must be a Uint8Array or a string${which}`);
}
