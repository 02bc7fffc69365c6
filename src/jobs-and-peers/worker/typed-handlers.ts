/** Handlers of a topic by message type. For a schema of Protobuf, the caller has awaited `loadingFor`. */
import type { DescMessage } from "@bufbuild/protobuf";
import { HawserError } from "../../foundation/errors/index.js";
import { contentTypeHeader, type TypeOfMessage, typeOf } from "../../foundation/payloads/index.js";
import type { TopicOfSchema } from "../../protobuf/typed/index.js";
import { type Headers, headerValue } from "../channel/index.js";
import type { HandlingSettings } from "../handlers/handling-settings.js";
import type { MessageView } from "../handlers/message.js";
import type { TopicHandler } from "../handlers/topic-handlers.js";
import { protobuf } from "../queue/protobuf.js";

/** Option of a schema that has a topic. @throws HawserError `invalid_schema` if it has none */
export function optionOf(schema: DescMessage): TopicOfSchema & { readonly topic: string } {
  const of = protobuf().topicOf(schema);
  if (of.topic !== undefined) return of as TopicOfSchema & { readonly topic: string };
  throw new HawserError("invalid_schema", `${schema.typeName}: its option has no topic; set one to use peers`);
}

/** Topic of a schema. Also checks that all its validation rules are supported. @throws HawserError `invalid_schema` */
export function topicOfPeers(schema: DescMessage): string {
  protobuf().allRulesOf(schema);
  return optionOf(schema).topic;
}

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
