/** Encoding of typed sends. For a schema of Protobuf, the caller has awaited `loadingFor`. */
import type { DescMessage } from "@bufbuild/protobuf";
import {
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  encodeChecked,
  type Format,
  isSchemaTopic,
  jsonContentType,
  type SchemaTopic,
} from "../../../foundation/payloads/index.js";
import type { TopicOfSchema } from "../../../protobuf/typed/index.js";
import type { Headers } from "../../channel/index.js";
import type { SendOptions } from "../../handlers/message.js";
import { checkedOnce, headerPairsOf, withHeader } from "../../queue/enqueue/index.js";
import { protobuf } from "../../queue/protobuf.js";
import { optionOf } from "../../worker/typed-handlers.js";
import { checkKnownOptions } from "../../worker/worker-options.js";

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
    const of = optionOf(schema);
    const { topic, key, messageId } = of;
    const headersOf = (format: Format) => checkedOnce([[contentTypeHeader, contentTypeOf(schema, format)]]);
    const headers = { binary: headersOf("binary"), json: headersOf("json") };
    const hasKeyOrId = key !== undefined || messageId !== undefined;
    route = { topic, of, hasKeyOrId, headers, send: { headers: headers.binary } };
    routes.set(schema, route);
  }
  return route;
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
