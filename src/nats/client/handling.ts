/** Handlers of typed NATS messages, and the choice of the handler for a message. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { JsMsg } from "@nats-io/jetstream";
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import { HawserError, invalidArgument } from "../../foundation/errors/index.js";
import { contentTypeHeader, typeOf } from "../../foundation/payloads/index.js";
import { allRulesOf, decode, topicOf } from "../../protobuf/typed/index.js";

/** NATS message of a subscription or a stream. */
type AnyMessage = Pick<Msg, "subject"> & { readonly data: Uint8Array; readonly headers?: MsgHdrs | undefined };

/** Handler of messages of one type. It gets the decoded message and the NATS message. */
type ValueHandler<Desc extends DescMessage, Message> = (value: MessageShape<Desc>, message: Message) => unknown;

/** Message type with its handler, as {@link typed} creates it. */
export interface TypedHandler<Message = Msg | JsMsg> {
  readonly schema: DescMessage;
  readonly handler: ValueHandler<DescMessage, Message>;
}

/** Listener for messages that could not be handled, with their errors. */
export type FailureListener<Message> = (error: unknown, message: Message) => void;

/**
 * Combines a message type with its handler, for {@link subscribe} and {@link consume}.
 *
 * @param schema schema that protoc-gen-es generated, with a subject in its option `hawser.v1.topic`
 * @param handler gets the decoded message and the NATS message
 */
export function typed<Desc extends DescMessage, Message = Msg | JsMsg>(
  schema: Desc,
  handler: ValueHandler<Desc, Message>,
): TypedHandler<Message> {
  return { schema, handler: handler as unknown as ValueHandler<DescMessage, Message> };
}

/** Handler of one type, or handlers of several types with the same subject. */
export type TypedHandlers<Message> = TypedHandler<Message> | readonly TypedHandler<Message>[];

/** Handlers of one subject. */
export interface SubjectHandlers<Message> {
  /** Subject to subscribe to. */
  readonly pattern: string;
  /** Decodes and handles a message. @throws HawserError (as a rejection) `invalid_message`; errors of the handler */
  run(message: Message): Promise<unknown>;
}

/** @throws HawserError `invalid_schema`, also for types with different subjects */
export function handlersOf<Message extends AnyMessage>(given: TypedHandlers<Message>): SubjectHandlers<Message> {
  const all = Array.isArray(given) ? (given as readonly TypedHandler<Message>[]) : [given as TypedHandler<Message>];
  const types = new Map(all.map((each) => [each.schema.typeName, each]));
  const patterns = new Set(all.map(({ schema }) => patternOf(schema)));
  const [pattern, another] = patterns;
  if (pattern === undefined) throw invalidArgument("no message type is given; give at least one");
  if (another !== undefined) {
    throw invalidArgument(
      `the types have the subjects ${pattern} and ${another}; subscribe to each subject with its own call`,
    );
  }
  const from = `the subject "${pattern}"`;
  return {
    pattern,
    run: async (message) => {
      const { type, format } = typeOf(types, message.headers?.get(contentTypeHeader) || undefined, from);
      return await type.handler(decode(type.schema, message.data, format), message);
    },
  };
}

function patternOf(schema: DescMessage): string {
  allRulesOf(schema);
  const { subject } = topicOf(schema);
  if (subject === undefined) {
    throw new HawserError("invalid_schema", `${schema.typeName}: its option has no subject; set one to use NATS`);
  }
  return subject.pattern;
}

/** True if a redelivery cannot help: the message has another type or is invalid, or its handler rejected it. */
export function isFinal(error: unknown): boolean {
  return error instanceof HawserError && (error.code === "invalid_message" || error.code === "rejected");
}
