/**
 * Publishing typed messages to the subject that their schema's option names.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { jetstream } from "@nats-io/jetstream";
import { type MsgHdrs, type NatsConnection, headers as natsHeaders } from "@nats-io/transport-node";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import {
  contentTypeHeader,
  contentTypeOf,
  encode,
  type Format,
  idOfMessage,
  subjectOf,
  type TopicOfSchema,
  topicOf,
} from "../typed/index.js";

/** Options of {@link publish}. */
export interface PublishOptions {
  /** Default `binary`: that of Protobuf. `json` is the JSON of Protobuf, for receivers that need it. */
  readonly format?: Format | undefined;
  /** Further headers, by their names. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
  /** The header `Nats-Msg-Id`: of two messages with one id a stream keeps one. Default: the type and the option's field. */
  readonly messageId?: string | undefined;
  /** With `stream: true`: how long the stream's answer is waited for. Default 5,000. */
  readonly timeoutMs?: number | undefined;
  /** With `stream: true`: the JetStream domain. */
  readonly domain?: string | undefined;
}

/** A published message. */
interface Published {
  readonly subject: string;
  /** Where a stream has it, if the schema's option says `stream: true`. */
  readonly stream?: { readonly name: string; readonly sequence: number; readonly duplicate: boolean };
}

const options = namesOf<PublishOptions>({
  format: true,
  headers: true,
  messageId: true,
  timeoutMs: true,
  domain: true,
});

const topics = new WeakMap<DescMessage, TopicOfSchema>();

/** The topic and subject of a schema. @throws HawserError `invalid_schema` */
export function knownTopicOf(schema: DescMessage): TopicOfSchema {
  let topic = topics.get(schema);
  if (topic === undefined) {
    topic = topicOf(schema);
    topics.set(schema, topic);
  }
  return topic;
}

/** The header by which a stream recognizes a message that it has already. */
export const messageIdHeader = "Nats-Msg-Id";

/** The format of a typed message; the default is `binary`. @throws HawserError `invalid_argument` */
export function checkFormat(format: unknown = "binary"): Format {
  if (format === "binary" || format === "json") return format;
  throw new HawserError("invalid_argument", `format ${String(format)}: must be "binary" or "json"`);
}

/** @throws HawserError `invalid_argument` for an unknown option */
export function checkOptionNames(given: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(given, of, known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
}

/**
 * Publishes a typed message. With `stream: true` in the schema's option it resolves when a stream has the message. Without,
 * it resolves when the message has been handed to the connection: core NATS tells nobody whether it arrives.
 *
 * @param schema made by protoc-gen-es, with the option `hawser.v1.topic`
 * @param message what `create(schema, …)` takes
 * @throws HawserError (as a rejection) `invalid_argument` naming the field, its value and the rule; `invalid_schema`; the
 * error of nats.js
 */
export async function publish<Desc extends DescMessage>(
  connection: NatsConnection,
  schema: Desc,
  message: MessageInitShape<Desc>,
  given: PublishOptions = {},
): Promise<Published> {
  checkOptionNames(given, "publish", options);
  const { messageId, timeoutMs, domain } = given;
  const format = checkFormat(given.format);
  const topic = knownTopicOf(schema);
  const payload = encode(schema, message, format);
  const subject = subjectOf(topic, message);
  const id = messageId ?? idOfMessage(topic, message);
  const headers = headersOf(contentTypeOf(schema, format), given.headers);
  if (!topic.stream) {
    if (id !== undefined) headers.set(messageIdHeader, id);
    connection.publish(subject, payload, { headers });
    return { subject };
  }
  const client = jetstream(connection, domain === undefined ? {} : { domain });
  const ack = await client.publish(subject, payload, {
    headers,
    ...(id === undefined ? {} : { msgID: id }),
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs }),
  });
  return { subject, stream: { name: ack.stream, sequence: ack.seq, duplicate: ack.duplicate ?? false } };
}

function headersOf(contentType: string, more: PublishOptions["headers"] = {}): MsgHdrs {
  const headers = natsHeaders();
  headers.set(contentTypeHeader, contentType);
  for (const [name, values] of Object.entries(more)) {
    for (const value of typeof values === "string" ? [values] : values) headers.append(name, value);
  }
  return headers;
}
