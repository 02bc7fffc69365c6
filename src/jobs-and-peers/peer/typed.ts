/**
 * Typed messages over peers: encoding of typed sends, and the handlers of a topic by message type. For a schema of Protobuf, the caller has
 * awaited `loadingFor`.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { HawserError } from "../../foundation/errors/index.js";
import {
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  encodeChecked,
  type Format,
  isSchemaTopic,
  jsonContentType,
  type SchemaTopic,
  type TypeOfMessage,
  typeOf,
} from "../../foundation/payloads/index.js";
import type { TopicOfSchema } from "../../protobuf/typed/index.js";
import { type Headers, headerValue } from "../channel/index.js";
import type { HandlingSettings } from "../handlers/handling-settings.js";
import type { MessageView, SendOptions } from "../handlers/message.js";
import type { TopicHandler } from "../handlers/topic-handlers.js";
import { checkedOnce, headerPairsOf, withHeader } from "../queue/enqueue/index.js";
import { protobuf } from "../queue/protobuf.js";
import { checkKnownOptions } from "./core/peer-options.js";

/** Per-schema values that are computed once, not for each message. */
interface Route {
  readonly topic: string;
  readonly of: TopicOfSchema;
  readonly hasKeyOrId: boolean;
  readonly headers: Readonly<Record<Format, Headers>>;
  /** Send options for a call without options. */
  readonly send: SendOptions;
}

const routes = new WeakMap<DescMessage, Route>();

function routeOf(schema: DescMessage): Route {
  let route = routes.get(schema);
  if (route === undefined) {
    const of = protobuf().topicOf(schema);
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

/** Topic of a schema. Also checks that all its validation rules are supported. @throws HawserError `invalid_schema` */
export function topicOfPeers(schema: DescMessage): string {
  protobuf().allRulesOf(schema);
  return routeOf(schema).topic;
}

/** Arguments of an untyped send. */
interface Encoded {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly send: SendOptions;
}

/**
 * Encodes a message and fills in the send options that its schema defines.
 *
 * @throws HawserError `invalid_argument`, `invalid_schema`
 */
export function typedSend(to: DescMessage | SchemaTopic, message: unknown, options: SendOptions | undefined): Encoded {
  if (!isSchemaTopic(to)) return protobufSend(to, message as Fields, options);
  const headers = withHeader(headerPairsOf(options?.headers), contentTypeHeader, jsonContentType);
  return { topic: to.topic, payload: encodeChecked(to, message), send: { ...options, headers } };
}

type Fields = Record<string, unknown>;

function protobufSend(schema: DescMessage, message: Fields, options: SendOptions | undefined): Encoded {
  const route = routeOf(schema);
  const { topic } = route;
  const { encode, idOfMessage, keyOfMessage } = protobuf();
  if (options === undefined && !route.hasKeyOrId) {
    return { topic, payload: encode(schema, message), send: route.send };
  }
  checkKnownOptions(options, "a send");
  const given = options ?? noOptions;
  const format = checkFormat(given.format);
  const payload = encode(schema, message, format);
  const headers =
    given.headers === undefined ? route.headers[format] : [...route.headers[format], ...headerPairsOf(given.headers)];
  const key = given.key ?? keyOfMessage(route.of, message);
  const messageId = given.messageId ?? idOfMessage(route.of, message);
  // Copying an object with a rest property takes longer than encoding the message.
  const { delivery, signal, ttlMs } = given;
  return { topic, payload, send: { delivery, signal, ttlMs, headers, key, messageId } };
}

const noOptions: SendOptions = {};

/** Handler of one type with its settings. */
export interface HandledType {
  readonly schema: DescMessage;
  readonly settings: HandlingSettings;
  readonly handler: (value: never, message: never) => unknown;
  /** Called when the handler was replaced or removed. */
  readonly ended: () => void;
}

/** Handlers of a topic by message type. */
export class TypedHandlers implements TopicHandler {
  readonly #types = new Map<string, HandledType>();
  readonly #topic: string;
  /**
   * Type and format that the headers of the last message name. Consecutive messages mostly share one headers object.
   */
  #last: ({ readonly headers: Headers | undefined } & TypeOfMessage<HandledType>) | undefined;

  constructor(topic: string) {
    this.#topic = topic;
  }

  get size(): number {
    return this.#types.size;
  }

  /** Sets the handler of a type, and replaces an earlier one. */
  add(type: HandledType): void {
    const { typeName } = type.schema;
    const before = this.#types.get(typeName);
    this.#last = undefined;
    this.#types.set(typeName, type);
    before?.settings.limit?.open();
    before?.ended();
  }

  has(type: HandledType): boolean {
    return this.#types.get(type.schema.typeName) === type;
  }

  remove({ schema, settings }: HandledType): void {
    this.#last = undefined;
    this.#types.delete(schema.typeName);
    settings.limit?.open();
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
      // The call of the handler will fail with the same error.
      return undefined;
    }
  }

  handle(message: MessageView): unknown {
    const { pairs, payload } = message;
    return this.#typeOf(pairs).type.handler(this.decode(pairs, payload) as never, message as never);
  }

  decode(headers: Headers | undefined, payload: Uint8Array): unknown {
    const { type, format } = this.#typeOf(headers);
    return protobuf().decode(type.schema, payload, format);
  }

  #typeOf(headers: Headers | undefined): TypeOfMessage<HandledType> {
    if (this.#last === undefined || headers !== this.#last.headers) {
      const said = headers && headerValue(headers, contentTypeHeader);
      this.#last = { headers, ...typeOf(this.#types, said, `the topic "${this.#topic}"`) };
    }
    return this.#last;
  }
}
