/** Destinations of enqueued messages: a topic, a NATS subject, or a schema with one of them. */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { namedRules } from "../../../../generated/ts/rules/named.js";
import { checkHelloSourceTopic } from "../../../../generated/ts/rules/peer/frames.js";
import { columnChecks as queueChecks } from "../../../../generated/ts/rules/queue/queue.js";
import { columnChecks as scheduleChecks } from "../../../../generated/ts/rules/queue/schedules.js";
import { checkBytes as checkBytesRule, checkText } from "../../../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { queueConstants } from "../../../../generated/ts/settings/queue.js";
import { HawserError, invalidArgument, refuse } from "../../../foundation/errors/index.js";
import {
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  encodeChecked,
  isSchema,
  isSchemaTopic,
  jsonContentType,
} from "../../../foundation/payloads/index.js";
import type { TopicOfSchema } from "../../../protobuf/typed/index.js";
import type { Headers } from "../../channel/index.js";
import { protobuf } from "../protobuf.js";
import {
  attemptsHeader,
  checkHeaders,
  checkMarks,
  checkPayload,
  contentOf,
  expiresHeader,
  headerPairsOf,
  withHeader,
} from "./content.js";
import { checkKnownOptions, type EnqueueOptions, type UniqueKey } from "./enqueue-options.js";
import type { Destination, NatsSubject } from "./topic-types.js";

/** Destination arguments of the SQL functions that enqueue. */
type Target =
  | { readonly sink: "peers"; readonly topic: string }
  | { readonly sink: "nats"; readonly subject: string; readonly stream: boolean; readonly domain: string | null };

/** Validated message with its destination: the arguments of the SQL functions that enqueue. */
export interface Addressed {
  readonly destination: Target;
  readonly payload: Uint8Array;
  /** JSON object of arrays of strings; null for no headers. */
  readonly headers: string | null;
  readonly key: string | null;
  readonly messageId: string | null;
  /** Earliest time of delivery; null for now. */
  readonly deliverAt: Date | null;
  /** Null for NATS, and for 0. */
  readonly priority: number | null;
  readonly unique: Unique | null;
  readonly flow: Flow | null;
  /** Null if nothing is kept of the message. */
  readonly keepMs: number | null;
}

/** Messages that come first. Null is the default. */
interface Flow {
  readonly after: readonly bigint[];
  readonly cancels: boolean | null;
}

/** Arguments of a unique key. Null is the default. */
interface Unique {
  readonly uniqueKey: string;
  readonly replaces: boolean | null;
  readonly whileRunning: boolean | null;
}

/**
 * Validates a message and resolves its destination. For a schema of Protobuf, `loadingFor` must have been awaited.
 *
 * @param now start of the delay and of the time to live, in ms since 1970
 * @throws HawserError `invalid_argument`, `internal_topic`, `invalid_schema`
 */
export function address(
  to: Destination | NatsSubject,
  payload: unknown,
  options: EnqueueOptions,
  now: number = Date.now(),
): Addressed {
  if (isSchema(to)) return addressTyped(to, payload as MessageInitShape<DescMessage>, options, now);
  refuseOptions(options, ["via", "format"], "applies to Protobuf only");
  if (isSchemaTopic(to)) {
    return checked({ sink: "peers", topic: to.topic }, encodeChecked(to, payload), jsonContentType, options, now);
  }
  const { bytes, contentType } = contentOf(payload);
  return checked(targetOf(to), bytes, contentType, options, now);
}

function addressTyped(
  schema: DescMessage,
  message: MessageInitShape<DescMessage>,
  options: EnqueueOptions,
  now: number,
): Addressed {
  const { encode, idOfMessage, keyOfMessage, subjectOf, topicOf } = protobuf();
  const format = checkFormat(options.format);
  const of = topicOf(schema);
  const payload = encode(schema, message, format);
  const sink = sinkOf(of, options.via);
  const key = options.key ?? keyOfMessage(of, message);
  const destination: Target =
    sink === "peers"
      ? { sink, topic: of.topic! }
      : { sink, subject: subjectOf(of, message), stream: of.stream, domain: null };
  // Core NATS has no message ids.
  const idOf = sink === "peers" || of.stream ? idOfMessage(of, message) : undefined;
  const given = { ...options, key, messageId: options.messageId ?? idOf };
  return checked(destination, payload, contentTypeOf(schema, format), given, now);
}

/** Chooses between topic and subject. @throws HawserError `invalid_argument`, `invalid_schema` */
function sinkOf({ schema, topic, subject }: TopicOfSchema, via: EnqueueOptions["via"]): "peers" | "nats" {
  if (via !== undefined && via !== "peers" && via !== "nats")
    throw invalidArgument(`via ${String(via)}: must be "peers" or "nats"`);
  if (topic !== undefined && subject !== undefined && via === undefined) {
    const text = `${schema.typeName}: its option has a topic and a subject; set via: "peers" or via: "nats"`;
    throw invalidArgument(text);
  }
  const sink = via ?? (topic === undefined ? "nats" : "peers");
  if ((sink === "peers" ? topic : subject) !== undefined) return sink;
  const missing = sink === "peers" ? "topic; set one to use peers" : "subject; set one to use NATS";
  throw new HawserError("invalid_schema", `${schema.typeName}: its option has no ${missing}`);
}

/** Parses a destination other than a schema. @throws HawserError `invalid_argument` */
function targetOf(to: string | NatsSubject): Target {
  if (typeof to === "string") return { sink: "peers", topic: to };
  if (typeof to !== "object" || to === null) {
    throw invalidArgument(
      `a destination of type ${typeof to}: must be a topic, { subject }, { topic, schema }, or a schema`,
    );
  }
  checkKnownOptions(to, "a subject");
  const { subject, stream = false, domain = null } = to;
  if (typeof stream !== "boolean") throw invalidArgument(`stream ${String(stream)}: must be true or false`);
  if (domain !== null && !stream) throw invalidArgument(`domain ${String(domain)}: needs stream: true`);
  return { sink: "nats", subject, stream, domain };
}

/** Validates the options for the destination. @throws HawserError `invalid_argument`, `internal_topic` */
function checked(
  destination: Target,
  payload: Uint8Array,
  contentType: string | undefined,
  options: EnqueueOptions,
  now: number,
): Addressed {
  const { key, messageId, ttlMs, attempts, priority, keepMs = null } = options;
  checkMarks({ key, messageId, ttlMs });
  const headers = withHeader(headerPairsOf(options.headers), contentTypeHeader, contentType);
  const deliverAt = deliverAtOf(options, now);
  const marks = { key: key ?? null, messageId: messageId ?? null, priority: priority || null, deliverAt };
  const common = { destination, payload, ...marks, unique: uniqueOf(options), flow: flowOf(options), keepMs };
  if (destination.sink === "nats") {
    refuseOptions(
      options,
      ["all", "ttlMs", "attempts", "priority", "uniqueKey", "after", "keepMs"],
      "applies to topics only",
    );
    const { subject, stream, domain } = destination;
    if (messageId !== undefined && !stream)
      throw invalidArgument(`messageId ${messageId}: needs stream: true; core NATS has no ids`);
    refuse(checkText("subject", namedRules.natsSubject, subject));
    if (domain !== null) refuse(checkText("domain", namedRules.jetstreamDomain, domain));
    refuse(checkBytesRule("payload", namedRules.natsPayload, payload));
    return { ...common, headers: jsonOf(headers) };
  }
  if (options.all !== undefined && typeof options.all !== "boolean")
    throw invalidArgument(`all ${String(options.all)}: must be true or false`);
  checkPriority(options);
  if (keepMs !== null) refuse(queueChecks.topic_settings.keep_ms(keepMs), "keepMs");
  if (keepMs !== null && options.all === true)
    throw invalidArgument(
      `keepMs ${keepMs}: does not go with all, whose listeners would each have a result; leave out one of the two`,
    );
  checkServable(destination.topic);
  refuse(checkBytesRule("payload", namedRules.peerPayload, checkPayload(payload)));
  const pairs = [...(checkHeaders(headers) ?? [])];
  if (ttlMs !== undefined) pairs.push(expiresHeader(ttlMs, Math.max(now, deliverAt?.getTime() ?? 0)));
  if (attempts !== undefined) pairs.push(attemptsHeader(attempts));
  return { ...common, headers: jsonOf(pairs) };
}

/** @throws HawserError `invalid_argument` unless the value is a valid topic */
export function checkTopic(topic: string): void {
  refuse(checkHelloSourceTopic(topic), "topic");
}

/** @throws HawserError `invalid_argument`; `internal_topic` for a topic that users may not handle or enqueue for */
export function checkServable(topic: string): void {
  checkTopic(topic);
  const prefix = protocolConstants.reservedTopicPrefix;
  if (topic.startsWith(prefix)) {
    throw new HawserError(
      "internal_topic",
      `the topic "${topic}" begins with ${prefix}, which is reserved; choose another`,
    );
  }
}

/** Headers as a JSON object of arrays; null for no headers. */
export function jsonOf(pairs: Headers): string | null {
  if (pairs.length === 0) return null;
  const values = new Map<string, string[]>();
  for (const [name, value] of pairs) values.set(name, [...(values.get(name) ?? []), value]);
  return JSON.stringify(Object.fromEntries(values));
}

function refuseOptions<Name extends keyof EnqueueOptions>(
  options: EnqueueOptions,
  names: readonly Name[],
  why: string,
): void {
  for (const name of names) {
    if (options[name] !== undefined) throw invalidArgument(`${name} ${String(options[name])}: ${why}; leave it out`);
  }
}

/** @throws HawserError `invalid_argument` */
function checkPriority({ priority, key }: EnqueueOptions): void {
  if (priority === undefined) return;
  refuse(scheduleChecks.schedules.priority(priority));
  if (priority !== 0 && key !== undefined)
    throw invalidArgument(`priority ${priority}: a message with a key is handled in order; leave out one of the two`);
}

/** @throws HawserError `invalid_argument` */
function uniqueOf({ uniqueKey, key, all, after }: EnqueueOptions): Unique | null {
  if (uniqueKey === undefined) return null;
  const given: UniqueKey = typeof uniqueKey === "object" && uniqueKey !== null ? uniqueKey : { key: uniqueKey };
  checkKnownOptions(given, "a unique key");
  const { mode = "keep", while: counts = "waiting" } = given;
  refuse(checkText("uniqueKey", namedRules.enqueuedKey, given.key));
  if (mode !== "keep" && mode !== "replace") throw invalidArgument(`mode ${String(mode)}: must be "keep" or "replace"`);
  if (counts !== "waiting" && counts !== "running")
    throw invalidArgument(`while ${String(counts)}: must be "waiting" or "running"`);
  const refusal = (what: string) =>
    invalidArgument(`uniqueKey ${given.key}: does not go with ${what}; leave out one of the two`);
  if (mode === "replace" && counts === "running") throw refusal('mode "replace" and while "running"');
  if (key !== undefined) throw refusal("key");
  if (all === true) throw refusal("all");
  if (after !== undefined) throw refusal("after");
  return { uniqueKey: given.key, replaces: mode === "replace" || null, whileRunning: counts === "running" || null };
}

/** @param id an id of a message, or its digits, as it travels in JSON @throws HawserError `invalid_argument` */
export function checkedId(argument: string, id: bigint | string): bigint {
  const number = typeof id === "string" && /^\d{1,19}$/.test(id) ? BigInt(id) : id;
  if (typeof number === "bigint" && BigInt.asIntN(64, number) === number) return number;
  throw invalidArgument(`${argument} ${String(id)}: must be a bigint that enqueue returned, or its digits as a string`);
}

/** @throws HawserError `invalid_argument` */
function flowOf({ after, afterDead }: EnqueueOptions): Flow | null {
  if (afterDead !== undefined && afterDead !== "hold" && afterDead !== "cancel")
    throw invalidArgument(`afterDead ${String(afterDead)}: must be "hold" or "cancel"`);
  if (after === undefined) {
    if (afterDead === undefined) return null;
    throw invalidArgument(`afterDead ${afterDead}: needs after`);
  }
  if (!Array.isArray(after))
    throw invalidArgument(`after ${String(after)}: must be an array of ids that enqueue returned`);
  return { after: after.map((id) => checkedId("after", id)), cancels: afterDead === "cancel" || null };
}

const maxDelayMs = queueConstants.maxLaterDays * 86_400_000;

/** Earliest time of delivery; null for now. @throws HawserError `invalid_argument` */
function deliverAtOf({ deliverAt, delayMs }: EnqueueOptions, now: number): Date | null {
  if (delayMs !== undefined) {
    if (deliverAt !== undefined) throw invalidArgument(`delayMs ${delayMs} and deliverAt: leave out one of the two`);
    if (typeof delayMs !== "number" || !(delayMs >= 0 && delayMs <= maxDelayMs))
      throw invalidArgument(`delayMs ${String(delayMs)}: must be a number of ms from 0 to ${maxDelayMs}`);
    return delayMs === 0 ? null : new Date(Math.ceil(now + delayMs));
  }
  if (deliverAt === undefined) return null;
  if (deliverAt instanceof Date && Number.isFinite(deliverAt.getTime())) return deliverAt;
  throw invalidArgument(`deliverAt ${String(deliverAt)}: must be a valid Date`);
}
