/**
 * Option `hawser.v1.topic` of a message: its destination. The option is read and checked for publishing, for handlers
 * and for the generator of SQL.
 */
import { type DescField, type DescMessage, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import { topic as topicOption } from "../../../generated/ts/options/hawser/v1/topic_pb.js";
import { namedRules } from "../../../generated/ts/rules/named.js";
import { checkText, type TextRules } from "../../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { invalidSchema } from "./rules.js";
import { integers } from "./scalars.js";

/** Destination of the messages of a schema. At least one of `topic` and `subject` is set. */
export interface TopicOfSchema {
  readonly schema: DescMessage;
  /** Topic of peers. */
  readonly topic: string | undefined;
  readonly subject: SubjectTemplate | undefined;
  /** True if a stream stores the messages of the subject. */
  readonly stream: boolean;
  /** Field whose value is the key: singular; a string, an integer or a boolean. */
  readonly key: DescField | undefined;
  readonly messageId: IdOfSchema | undefined;
}

/**
 * Rule for the id of a message: `acme.shop.v1.OrderPlaced:o-17`. A stream drops a message with an id that it has seen,
 * whatever its subject, so the id contains the type: otherwise an order's second event would be lost if the field has
 * the same value as in the first.
 */
interface IdOfSchema {
  /** Field whose value ends the id: singular; a string or an integer. */
  readonly field: DescField;
  /** Name of the type and a colon. */
  readonly prefix: string;
  /** Rules of the field's value: with the prefix, it must not exceed the limit of an id. */
  readonly rules: TextRules & { readonly minBytes: number; readonly maxBytes: number };
}

/** Subject whose tokens are texts, or fields that are replaced by their values. */
interface SubjectTemplate {
  /** Text of the option: `orders.{tenant}.placed`. */
  readonly text: string;
  readonly words: readonly (string | DescField)[];
  /** Subject to subscribe to: `orders.*.placed`. */
  readonly pattern: string;
}

const forWords: readonly ScalarType[] = [ScalarType.STRING, ScalarType.BOOL, ...integers];
const forIds: readonly ScalarType[] = [ScalarType.STRING, ...integers];

export function hasTopic(schema: DescMessage): boolean {
  return hasOption(schema, topicOption);
}

const topics = new WeakMap<DescMessage, TopicOfSchema>();

/**
 * Destination of a schema's messages, which is read from its option once.
 *
 * @throws HawserError `invalid_schema` if the option is missing, or breaks a rule
 */
export function topicOf(schema: DescMessage): TopicOfSchema {
  let topic = topics.get(schema);
  if (topic === undefined) {
    topic = readTopic(schema);
    topics.set(schema, topic);
  }
  return topic;
}

function readTopic(schema: DescMessage): TopicOfSchema {
  if (!hasTopic(schema)) {
    throw invalidSchema(schema, 'it has no option (hawser.v1.topic); set it, such as {topic: "orders"}');
  }
  const { topic, subject, stream, key, messageId } = getOption(schema, topicOption);
  if (topic === "" && subject === "") throw invalidSchema(schema, "its option has neither topic nor subject; set one");
  if (stream && subject === "") throw invalidSchema(schema, "stream: needs a subject; set it, or remove stream");
  if (topic !== "") checkPeerTopic(schema, topic);
  return {
    schema,
    topic: topic === "" ? undefined : topic,
    subject: subject === "" ? undefined : templateOf(schema, subject),
    stream,
    key: key === "" ? undefined : fieldNamed(schema, "key", key, forWords),
    messageId: messageId === "" ? undefined : idOf(schema, fieldNamed(schema, "message_id", messageId, forIds)),
  };
}

/** Length of the longest integer, with its sign. */
const longestIntegerBytes = 20;

function idOf(schema: DescMessage, field: DescField): IdOfSchema {
  const { minBytes, maxBytes, ...rules } = namedRules.enqueuedMessageId;
  const prefix = `${schema.typeName}:`;
  const mostBytes = maxBytes - longestIntegerBytes - 1;
  if (schema.typeName.length > mostBytes) {
    const why = `message_id: the id begins with the name of the type, so the name must have at most ${mostBytes} bytes`;
    throw invalidSchema(schema, `${why}; shorten it, or remove message_id`);
  }
  return { field, prefix, rules: { ...rules, minBytes, maxBytes: maxBytes - prefix.length } };
}

function checkPeerTopic(schema: DescMessage, topic: string): void {
  checkRules(schema, "topic", namedRules.peerOrTopic, topic);
  const prefix = protocolConstants.reservedTopicPrefix;
  if (topic.startsWith(prefix)) {
    throw invalidSchema(schema, `topic "${topic}": begins with ${prefix}, which is reserved; choose another`);
  }
}

function templateOf(schema: DescMessage, text: string): SubjectTemplate {
  const words = text.split(".").map((word) => {
    const place = /^\{(.*)\}$/u.exec(word)?.[1];
    if (place !== undefined) return fieldNamed(schema, "subject", place, forWords);
    if (/[{}]/u.test(word)) {
      throw invalidSchema(schema, `subject "${text}": a field in braces must be a whole word between the dots`);
    }
    return word;
  });
  // Each field is replaced by a sample token, because its value is checked when it is published.
  checkRules(
    schema,
    "subject",
    namedRules.natsSubject,
    words.map((word) => (typeof word === "string" ? word : "x")).join("."),
  );
  if (text.startsWith("$")) {
    throw invalidSchema(schema, `subject "${text}": subjects that begin with $ belong to NATS; choose another`);
  }
  return { text, words, pattern: words.map((word) => (typeof word === "string" ? word : "*")).join(".") };
}

function fieldNamed(schema: DescMessage, option: string, name: string, types: readonly ScalarType[]): DescField {
  const field = schema.fields.find((each) => each.name === name);
  if (field === undefined) {
    const names = schema.fields.map((each) => each.name).join(", ");
    throw invalidSchema(schema, `${option}: it has no field "${name}"; its fields are ${names || "none"}`);
  }
  if (field.fieldKind !== "scalar" || !types.includes(field.scalar)) {
    const allowed = types.includes(ScalarType.BOOL) ? "a string, an integer or a boolean" : "a string or an integer";
    throw invalidSchema(schema, `${option}: the field "${name}" must be ${allowed}, and not repeated`);
  }
  return field;
}

function checkRules(schema: DescMessage, option: string, rules: TextRules, value: string): void {
  const found = checkText(option, rules, value);
  if (found) throw invalidSchema(schema, `${option} ${found.value}: ${found.rule}. ${found.remedy}`);
}
