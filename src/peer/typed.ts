/**
 * Typed messages over peers: conversion of a typed send, and the handlers of a topic by type.
 */
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { type Headers, headerValue } from "../channel/index.js";
import { HawserError, namesOf } from "../errors/index.js";
import {
  allRulesOf,
  contentTypeHeader,
  contentTypeOf,
  decode,
  encode,
  type Format,
  idOfMessage,
  keyOfMessage,
  type TopicOfSchema,
  type TypeOfMessage,
  topicOf,
  typeOf,
} from "../typed/index.js";
import { headerPairsOf } from "./content.js";
import type { HandlingSettings } from "./handling-settings.js";
import type { Message, MessageView, SendOptions } from "./message.js";
import { checkedOnce } from "./options.js";
import type { TopicHandler } from "./topic-handlers.js";

/** Handles messages of a type. It gets the message decoded, and as it came; the rest is as with a {@link Handler}. */
export type TypedHandler<Desc extends DescMessage> = (value: MessageShape<Desc>, message: Message) => unknown;

/** Data of a schema that each message needs. */
interface Route {
  readonly topic: string;
  readonly of: TopicOfSchema;
  readonly hasKeyOrId: boolean;
  readonly headers: Readonly<Record<Format, Headers>>;
  /** The options of a send that has none of its own. */
  readonly send: SendOptions;
}

const routes = new WeakMap<DescMessage, Route>();

function routeOf(schema: DescMessage): Route {
  let route = routes.get(schema);
  if (route === undefined) {
    const of = topicOf(schema);
    const { topic, key, messageId } = of;
    if (topic === undefined) {
      throw new HawserError("invalid_schema", `${schema.typeName}: its option has no topic; set one to use peers`);
    }
    const headersOf = (format: Format) => checkedOnce([[contentTypeHeader, contentTypeOf(schema, format)]]);
    const headers = { binary: headersOf("binary"), json: headersOf("json") };
    const hasKeyOrId = key !== undefined || messageId !== undefined;
    route = { topic, of, hasKeyOrId, headers, send: { headers: headers.binary } };
    routes.set(schema, route);
  }
  return route;
}

/** The topic of a schema, whose rules are known to be supported. @throws HawserError `invalid_schema` */
export function topicOfPeers(schema: DescMessage): string {
  allRulesOf(schema);
  return routeOf(schema).topic;
}

/** Converts a typed send to a send of bytes. @throws HawserError */
export function typedSend<Desc extends DescMessage>(
  schema: Desc,
  message: MessageInitShape<Desc>,
  options: SendOptions | undefined,
): { readonly topic: string; readonly payload: Uint8Array; readonly send: SendOptions } {
  const route = routeOf(schema);
  const { topic } = route;
  if (options === undefined && !route.hasKeyOrId) {
    return { topic, payload: encode(schema, message), send: route.send };
  }
  const given = options ?? noOptions;
  const format = given.format ?? "binary";
  if (format !== "binary" && format !== "json") {
    throw new HawserError("invalid_argument", `format ${String(format)}: must be "binary" or "json"`);
  }
  const payload = encode(schema, message, format);
  const headers =
    given.headers === undefined ? route.headers[format] : [...route.headers[format], ...headerPairsOf(given.headers)];
  const key = given.key ?? keyOfMessage(route.of, message);
  const messageId = given.messageId ?? idOfMessage(route.of, message);
  // Copying an object with a further property takes longer than encoding.
  const send = hasOnlyCommon(given)
    ? { delivery: given.delivery, signal: given.signal, ttlMs: given.ttlMs, headers, key, messageId }
    : { ...withoutFormat(given), headers, key, messageId };
  return { topic, payload, send };
}

const noOptions: SendOptions = {};
const commonOptions: ReadonlySet<string> = new Set(
  namesOf<SendOptions>({
    delivery: true,
    signal: true,
    ttlMs: true,
    headers: true,
    key: true,
    messageId: true,
    format: true,
  }),
);

function hasOnlyCommon(options: SendOptions): boolean {
  for (const name in options) if (!commonOptions.has(name)) return false;
  return true;
}

/** Options with names that `send` refuses. */
function withoutFormat({ format: _, ...rest }: SendOptions): SendOptions {
  return rest;
}

/** A handler for one type. */
export interface HandledType {
  readonly schema: DescMessage;
  readonly settings: HandlingSettings;
  readonly handler: (value: never, message: never) => unknown;
  /** It has been replaced, or taken away. */
  readonly ended: () => void;
}

/** The handlers of a topic, one for each type of its messages. */
export class TypedHandlers implements TopicHandler {
  readonly #types = new Map<string, HandledType>();
  readonly #topic: string;
  /** Type of the last message, by its headers. Most messages share their headers with the message before. */
  #last: ({ readonly headers: Headers | undefined } & TypeOfMessage<HandledType>) | undefined;

  constructor(topic: string) {
    this.#topic = topic;
  }

  get size(): number {
    return this.#types.size;
  }

  /** A handler for a type; it takes the place of the one before. */
  add(type: HandledType): void {
    const { typeName } = type.schema;
    const before = this.#types.get(typeName);
    this.#last = undefined;
    this.#types.set(typeName, type);
    before?.ended();
  }

  has(type: HandledType): boolean {
    return this.#types.get(type.schema.typeName) === type;
  }

  remove({ schema }: HandledType): void {
    this.#last = undefined;
    this.#types.delete(schema.typeName);
  }

  ended(): void {
    for (const { ended } of this.#types.values()) ended();
  }

  get settings(): readonly HandlingSettings[] {
    return [...this.#types.values()].map(({ settings }) => settings);
  }

  settingsOf(headers: Headers | undefined): HandlingSettings | undefined {
    try {
      return this.#typeOf(headers).type.settings;
    } catch {
      // It fails when it is handled.
      return undefined;
    }
  }

  handle(message: MessageView): unknown {
    return this.#typeOf(message.pairs).type.handler(this.decode(message) as never, message as never);
  }

  /** @throws HawserError `invalid_message` */
  decode({ pairs, payload }: MessageView): unknown {
    const { type, format } = this.#typeOf(pairs);
    return decode(type.schema, payload, format);
  }

  #typeOf(headers: Headers | undefined): TypeOfMessage<HandledType> {
    if (this.#last === undefined || headers !== this.#last.headers) {
      const said = headers && headerValue(headers, contentTypeHeader);
      this.#last = { headers, ...typeOf(this.#types, said, `the topic "${this.#topic}"`) };
    }
    return this.#last;
  }
}
