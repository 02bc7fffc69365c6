/** Destination of a message from its own fields: subject, key and id. */
import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { namedRules } from "../../../generated/ts/rules/named.js";
import { checkText, type TextRules } from "../../../generated/ts/rules/violation.js";
import { HawserError, invalidArgument } from "../../foundation/errors/index.js";
import { shown } from "./check.js";
import type { TopicOfSchema } from "./topic.js";

type Fields = Readonly<Record<string, unknown>>;

/**
 * Requirement for a value that is the first token of a subject: `$JS.API` deletes streams, `$KV` writes into buckets.
 */
export const mustNotBeReserved =
  "is the first token of the subject and must not begin with '$': such subjects belong to NATS";

/**
 * Subject of a message.
 *
 * @throws HawserError `invalid_argument` if a value is missing or cannot be a token of a subject; `invalid_schema` if
 * the schema has no subject
 */
export function subjectOf({ schema, subject }: TopicOfSchema, message: unknown): string {
  if (subject === undefined) {
    throw new HawserError("invalid_schema", `${schema.typeName}: its option has no subject; set one to use NATS`);
  }
  const words = subject.words.map((word, index) => {
    if (typeof word === "string") return word;
    const text = textOf(word, message as Fields);
    if (index === 0 && text.startsWith("$")) throw invalid(word, text, mustNotBeReserved);
    if (text.includes(".") || checkText("", namedRules.natsSubject, text) !== undefined) {
      const must = "goes into the subject and must be one token: not empty, without '.', '*', '>' and white space";
      throw invalid(word, text, must);
    }
    return text;
  });
  const whole = words.join(".");
  const found = checkText("subject", namedRules.natsSubject, whole);
  if (found) throw invalidArgument(`${schema.typeName}: subject ${found.value}: ${found.rule}`);
  return whole;
}

/** Requirement for the value of the field that the id contains. */
export const mustFitId = "follows the name of the type in the message's id";

/** Key of a message; undefined if the schema names none. @throws HawserError `invalid_argument` */
export function keyOfMessage({ key }: TopicOfSchema, message: unknown): string | undefined {
  return key && checked(key, message, "is the key", namedRules.enqueuedKey);
}

/** Id of a message; undefined if the schema names no field for it. @throws HawserError `invalid_argument` */
export function idOfMessage({ messageId }: TopicOfSchema, message: unknown): string | undefined {
  if (messageId === undefined) return undefined;
  return messageId.prefix + checked(messageId.field, message, mustFitId, messageId.rules);
}

function checked(field: DescField, message: unknown, what: string, rules: TextRules): string {
  const text = textOf(field, message as Fields);
  const found = checkText("", rules, text);
  if (found) throw invalid(field, text, `${what}: it ${found.rule}`);
  return text;
}

/** Value of a scalar field as text. An unset field is zero or the empty text. */
function textOf(field: DescField, message: Fields): string {
  if (field.oneof === undefined) return String(message[field.localName] ?? zeroOf(field));
  const chosen = message[field.oneof.localName] as { case?: unknown; value?: unknown } | undefined;
  return String((chosen?.case === field.localName ? chosen.value : undefined) ?? zeroOf(field));
}

function zeroOf({ scalar }: DescField): string {
  if (scalar === ScalarType.STRING) return "";
  return scalar === ScalarType.BOOL ? "false" : "0";
}

function invalid(field: DescField, value: string, must: string): HawserError {
  return invalidArgument(`${field.parent.typeName}.${field.name} ${shown(value)}: ${must}`);
}
