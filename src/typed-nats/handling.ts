/**
 * Which handler a message of NATS is for, and what its failure is told to.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { JsMsg } from "@nats-io/jetstream";
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import { HawserError } from "../errors/index.js";
import { allRulesOf, contentTypeHeader, decode, typeOf } from "../typed/index.js";
import { knownTopicOf } from "./publish.js";

/** A message of NATS, from a subscription or a stream. */
type AnyMessage = Pick<Msg, "subject"> & { readonly data: Uint8Array; readonly headers?: MsgHdrs | undefined };

/** Handles messages of a type. It gets the message decoded, and as it came. */
export type NatsHandler<Desc extends DescMessage, Message> = (value: MessageShape<Desc>, message: Message) => unknown;

/** A type with its handler: see {@link handle}. */
export interface Handling<Message> {
  readonly schema: DescMessage;
  readonly handler: NatsHandler<DescMessage, Message>;
}

/** Hears of each message that could not be handled: its error, and the message. */
export type FailureListener<Message> = (error: unknown, message: Message) => void;

/** A type with its handler, for subjects that have several types. */
export function handle<Desc extends DescMessage, Message = Msg | JsMsg>(
  schema: Desc,
  handler: NatsHandler<Desc, Message>,
): Handling<Message> {
  return { schema, handler: handler as unknown as NatsHandler<DescMessage, Message> };
}

/** What was given: one type, or several. */
export type Handlings<Message> = Handling<Message> | readonly Handling<Message>[];

/** The types of a subject with their handlers. */
export interface SubjectHandlers<Message> {
  /** The subject to subscribe to. */
  readonly pattern: string;
  /** Decodes and handles a message. @throws (as a rejection) HawserError `invalid_message`; what the handler throws */
  run(message: Message): Promise<unknown>;
}

/** @throws HawserError `invalid_schema`, also for types that have different subjects */
export function handlersOf<Message extends AnyMessage>(given: Handlings<Message>): SubjectHandlers<Message> {
  const all = Array.isArray(given) ? (given as readonly Handling<Message>[]) : [given as Handling<Message>];
  const types = new Map(all.map((each) => [each.schema.typeName, each]));
  const patterns = new Set(all.map(({ schema }) => patternOf(schema)));
  const [pattern, another] = patterns;
  if (pattern === undefined) throw new HawserError("invalid_argument", "no type is given; give at least one");
  if (another !== undefined) {
    throw new HawserError(
      "invalid_argument",
      `the types have the subjects ${pattern} and ${another}; use one call for each subject`,
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
  const { subject } = knownTopicOf(schema);
  if (subject === undefined) {
    throw new HawserError("invalid_schema", `${schema.typeName}: its option has no subject; set one to use NATS`);
  }
  return subject.pattern;
}

/** Whether trying the message again would not help: it is none of its type, or its handler has rejected it. */
export function isFinal(error: unknown): boolean {
  return error instanceof HawserError && (error.code === "invalid_message" || error.code === "rejected");
}
