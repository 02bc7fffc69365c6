/** Client side of calls: Connect's `Transport` over a {@link Carrier}, which is NATS or peers. */
import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouterOptions,
  createContextValues,
  type Interceptor,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { runUnaryCall } from "@connectrpc/connect/protocol";
import {
  checkTransportSettings,
  rpcConstants,
  type TransportSettingsInput,
  transportSettingsDefaults,
} from "../../../generated/ts/settings/connect.js";
import { checkedSettings } from "../../foundation/errors/index.js";
import { codeOfName, codeOfStatus, connectErrorOf } from "./codes.js";
import { decodeError } from "./error-json.js";
import { CallHeaders, contentTypeHeader, type HeaderPairs, pairsOf, timeoutHeader, versionHeader } from "./headers.js";
import { decodeMessage, encodeMessage, formatsOf, isBinaryType, type SizeLimit } from "./message-format.js";

/** Options that all transports share. */
export interface TransportOptions
  extends TransportSettingsInput,
    Pick<ConnectRouterOptions, "jsonOptions" | "binaryOptions"> {
  /** Interceptors of each call; the first one is outermost. */
  readonly interceptors?: readonly Interceptor[] | undefined;
}

/** Names of the options that all transports share, for `namesOf`. */
export const transportOptions = {
  interceptors: true,
  jsonOptions: true,
  binaryOptions: true,
  ...transportSettingsDefaults,
} as const;

/** Encoded call. */
interface OutgoingCall {
  readonly method: DescMethodUnary;
  readonly pairs: HeaderPairs;
  readonly payload: Uint8Array;
  /** Maximum time for the answer in ms; Infinity for no limit. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Received answer. */
interface IncomingAnswer {
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /** Error answer of a service that does not use Connect, with an HTTP-like status. */
  readonly failure?: { readonly status: number; readonly text: string } | undefined;
}

/** Sends encoded calls to services and receives their answers. */
export interface Carrier {
  /** Scheme of the URLs that interceptors see: `nats`, `peer`. */
  readonly scheme: string;
  /** Sends a call. Settles within `timeoutMs`. A rejection means that the service did not answer. */
  call(call: OutgoingCall): Promise<IncomingAnswer>;
}

/** Answer for the client, with lazily created `Headers`. */
class Answered implements UnaryResponse {
  readonly stream = false;
  readonly method: DescMethodUnary;
  readonly message: UnaryResponse["message"];
  readonly #received: CallHeaders;

  constructor(method: DescMethodUnary, message: UnaryResponse["message"], received: CallHeaders) {
    this.method = method;
    this.message = message;
    this.#received = received;
  }

  get service(): UnaryResponse["service"] {
    return this.method.parent;
  }

  get header(): Headers {
    return this.#received.header;
  }

  get trailer(): Headers {
    return this.#received.trailer;
  }
}

type HeadersInit = ConstructorParameters<typeof Headers>[0];

function headerWith(userHeader: HeadersInit, pairs: HeaderPairs): Headers {
  const header = new Headers(userHeader);
  for (const [name, value] of pairs) header.set(name, value);
  return header;
}

/** @throws HawserError `invalid_argument` for invalid options */
export function createTransport(carrier: Carrier, options: TransportOptions): Transport {
  const { interceptors = [], jsonOptions, binaryOptions, ...input } = options;
  const settings = checkedSettings(checkTransportSettings(input));
  const { defaultTimeoutMs, useBinaryFormat, readMaxBytes, writeMaxBytes } = settings;
  const format = formatsOf({ jsonOptions, binaryOptions })[useBinaryFormat ? "binary" : "json"];
  const { contentType } = format;
  const readLimit: SizeLimit = { name: "readMaxBytes", bytes: readMaxBytes };
  const writeLimit: SizeLimit = { name: "writeMaxBytes", bytes: writeMaxBytes };

  const defaultPairs = pairsFor(defaultTimeoutMs);

  function pairsFor(timeoutMs: number | undefined): HeaderPairs {
    const pairs: [string, string][] = [
      [contentTypeHeader, contentType],
      [versionHeader, "1"],
    ];
    if (timeoutMs !== undefined) pairs.push([timeoutHeader, `${Math.ceil(timeoutMs)}`]);
    return pairs;
  }

  async function exchange(
    method: DescMethodUnary,
    message: MessageInitShape<DescMessage>,
    header: HeadersInit,
    pairs: HeaderPairs,
    signal: AbortSignal | undefined,
    deadlineAt: number,
  ): Promise<UnaryResponse> {
    const payload = encodeMessage(method.input, message, format, writeLimit);
    if (signal?.aborted) throw ConnectError.from(signal.reason, Code.Canceled);
    const timeoutMs = deadlineAt - performance.now();
    if (timeoutMs <= 0) throw new ConnectError("the operation timed out", Code.DeadlineExceeded);
    const all = header === undefined ? pairs : pairsOf(headerWith(header, pairs));
    let answer: IncomingAnswer;
    try {
      answer = await carrier.call({ method, pairs: all, payload, timeoutMs, signal });
    } catch (reason) {
      // The reason is more specific than the abort itself, such as a time limit.
      if (signal?.aborted) throw ConnectError.from(signal.reason, Code.Canceled);
      throw connectErrorOf(reason);
    }
    const answered = new CallHeaders(answer.headers, Code.Internal, true);
    const error = errorOf(answer, answered);
    if (error !== undefined) throw error;
    const isBinary = isBinaryType(answered.get(contentTypeHeader));
    if (isBinary !== useBinaryFormat) {
      const text = `the answer has content type ${answered.get(contentTypeHeader)}, not ${contentType}`;
      throw new ConnectError(text, isBinary === undefined ? Code.Unknown : Code.Internal, answered.header);
    }
    return new Answered(method, decodeMessage(method.output, answer.payload, format, readLimit), answered);
  }

  return {
    unary(method, signal, timeoutMs, userHeader, input, contextValues) {
      const limitMs = timeoutMs === undefined ? defaultTimeoutMs : timeoutMs <= 0 ? undefined : timeoutMs;
      const deadlineAt = limitMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + limitMs;
      const pairs = limitMs === defaultTimeoutMs ? defaultPairs : pairsFor(limitMs);
      // Without interceptors no code reads `Headers` or needs a signal that ends with the call; creating them costs
      // more than the rest of the call.
      if (interceptors.length === 0) return exchange(method, input, userHeader, pairs, signal, deadlineAt) as never;
      return runUnaryCall({
        interceptors: [...interceptors],
        ...(signal && { signal }),
        ...(limitMs !== undefined && { timeoutMs: limitMs }),
        req: {
          ...{ stream: false, service: method.parent, method, requestMethod: "POST", message: input },
          url: `${carrier.scheme}:///${method.parent.typeName}/${method.name}`,
          header: headerWith(userHeader, pairs),
          contextValues: contextValues ?? createContextValues(),
        },
        next: async (request) => {
          const { message, header, signal: callSignal } = request as UnaryRequest;
          return (await exchange(method, message, header, [], callSignal, deadlineAt)) as never;
        },
      });
    },
    stream: (method) => Promise.reject(streamRefused(method)),
  };
}

/** Error of streaming calls, on both sides. */
export function streamRefused({ kind, methodKind, parent, name }: DescMethodStreaming): ConnectError {
  const text = `${parent.typeName}.${name} is a ${methodKind.replace("_", " ")} ${kind}, and Hawser supports only unary calls; make it unary, for example with pages, or send its messages to a topic`;
  return new ConnectError(text, Code.Unimplemented);
}

/** Error in an answer; undefined if the call succeeded. */
function errorOf({ payload, failure }: IncomingAnswer, received: CallHeaders): ConnectError | undefined {
  const name = received.get(rpcConstants.errorHeader);
  if (name === null && failure === undefined) return undefined;
  const metadata = new Headers(received.header);
  for (const [key, value] of received.trailer) metadata.append(key, value);
  if (name !== null) return decodeError(payload, metadata, codeOfName(name) ?? Code.Unknown);
  const error = new ConnectError(failure?.text ?? "", codeOfStatus(failure?.status ?? 500), metadata);
  error.isWireError = true;
  return error;
}
