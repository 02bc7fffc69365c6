/**
 * The option `hawser.v1.topic` of a message: where it is sent. Read and checked, for publishing, for handlers and for the
 * generator of SQL.
 */
import { type DescField, type DescMessage, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import { topic as topicOption } from "../../generated/ts/options/hawser/v1/topic_pb.js";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkText, type TextRules } from "../../generated/ts/rules/violation.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { integers } from "./scalars.js";

/** Where messages of a schema are sent. At least one of `topic` and `subject` is set. */
export interface TopicOfSchema {
  readonly schema: DescMessage;
  /** The topic of peers. */
  readonly topic: string | undefined;
  readonly subject: SubjectTemplate | undefined;
  /** A stream keeps the messages of the subject. */
  readonly stream: boolean;
  /** The field whose value is the key: singular; a string, an integer or a boolean. */
  readonly key: DescField | undefined;
  readonly messageId: IdOfSchema | undefined;
}

/**
 * How the id of a message is made: `acme.shop.v1.OrderPlaced:o-17`. A stream drops a message whose id it has had, whatever
 * its subject, so the id says the type: else an order's second event would be lost where its first one has the same field.
 */
interface IdOfSchema {
  /** The field whose value ends the id: singular; a string or an integer. */
  readonly field: DescField;
  /** The name of the type and a colon. */
  readonly prefix: string;
  /** The rules of the field's value: with the prefix it is no longer than an id may be. */
  readonly rules: TextRules & { readonly minBytes: number; readonly maxBytes: number };
}

/** A subject whose words are texts, or fields whose values stand there. */
interface SubjectTemplate {
  /** As the option says it: `orders.{tenant}.placed`. */
  readonly text: string;
  readonly words: readonly (string | DescField)[];
  /** The subject to subscribe to: `orders.*.placed`. */
  readonly pattern: string;
}

const forWords: readonly ScalarType[] = [ScalarType.STRING, ScalarType.BOOL, ...integers];
const forIds: readonly ScalarType[] = [ScalarType.STRING, ...integers];

/** Whether the message has the option. */
export function hasTopic(schema: DescMessage): boolean {
  return hasOption(schema, topicOption);
}

/**
 * Where messages of the schema are sent, as its option says.
 *
 * @throws HawserError `invalid_schema` if it has no such option, or one that breaks a rule
 */
export function topicOf(schema: DescMessage): TopicOfSchema {
  if (!hasTopic(schema)) {
    throw invalidSchema(schema, 'it has no option (hawser.v1.topic); set it, such as {topic: "orders"}');
  }
  const { topic, subject, stream, key, messageId } = getOption(schema, topicOption);
  if (topic === "" && subject === "") throw invalidSchema(schema, "its option says no topic and no subject; set one");
  if (stream && subject === "") throw invalidSchema(schema, "stream: needs a subject; set it, or leave stream out");
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

/** Digits and sign of the longest integer. */
const longestIntegerBytes = 20;

function idOf(schema: DescMessage, field: DescField): IdOfSchema {
  const { minBytes, maxBytes, ...rules } = namedRules.outboxMessageId;
  const prefix = `${schema.typeName}:`;
  const mostBytes = maxBytes - longestIntegerBytes - 1;
  if (schema.typeName.length > mostBytes) {
    const why = `message_id: an id begins with the name of the type, which must have at most ${mostBytes} bytes then`;
    throw invalidSchema(schema, `${why}; shorten it, or leave message_id out`);
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
  // With a word that stands for each field, since a value is checked when it is published.
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

function invalidSchema(schema: DescMessage, why: string): HawserError {
  return new HawserError("invalid_schema", `${schema.typeName}: ${why}`);
}
