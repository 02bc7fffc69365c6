/** Publishes typed messages to the subject that the option of their schema names. */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { jetstream } from "@nats-io/jetstream";
import { type MsgHdrs, type NatsConnection, headers as natsHeaders } from "@nats-io/transport-node";
import { checkOptionNames, namesOf } from "../../foundation/errors/index.js";
import { checkFormat, contentTypeHeader, contentTypeOf, type Format } from "../../foundation/payloads/index.js";
import { encode, idOfMessage, subjectOf, topicOf } from "../../protobuf/typed/index.js";

/** Options of {@link publish}. */
export interface PublishOptions {
  /**
   * Encoding of the message: Protobuf's binary format, or its JSON format for receivers that need JSON. Default:
   * `binary`.
   */
  readonly format?: Format | undefined;
  /** Further headers: values or arrays of values by name. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
  /**
   * Header `Nats-Msg-Id`: a stream stores only one of several messages with the same id. Default: the message type and
   * the field that the schema's option names.
   */
  readonly messageId?: string | undefined;
  /**
   * Maximum wait for the stream's acknowledgement in milliseconds, if the schema's option has `stream: true`. Default:
   * 5,000.
   */
  readonly timeoutMs?: number | undefined;
  /** JetStream domain of the stream. Default: the domain of the server. */
  readonly domain?: string | undefined;
}

/** Result of {@link publish}. */
interface Published {
  readonly subject: string;
  /** Position of the message in the stream, if the schema's option has `stream: true`. */
  readonly stream?: { readonly name: string; readonly sequence: number; readonly duplicate: boolean };
}

const options = namesOf<PublishOptions>({
  format: true,
  headers: true,
  messageId: true,
  timeoutMs: true,
  domain: true,
});

/** Header with which a stream detects duplicates. */
export const messageIdHeader = "Nats-Msg-Id";

/**
 * Publishes a typed message. If the schema's option has `stream: true`, the promise resolves after the stream has
 * stored the message. Otherwise it resolves when the message is written to the connection: core NATS does not report
 * whether it arrives.
 *
 * @param schema schema that protoc-gen-es generated, with the option `hawser.v1.topic`
 * @param message message, or its initializer as for `create(schema, …)`
 * @throws HawserError (as a rejection) `invalid_argument` naming the field, its value and the rule; `invalid_schema`;
 * errors of nats.js
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
  const topic = topicOf(schema);
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
