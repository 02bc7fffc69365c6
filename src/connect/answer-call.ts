/**
 * The answering side: runs the handler of one call, with its interceptors, and makes the answer.
 */
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextValues,
  type HandlerContext,
  type Interceptor,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import { nameOfCode } from "./codes.js";
import { encodeError } from "./error-json.js";
import {
  answerPairs,
  contentTypeHeader,
  encodingHeader,
  type HeaderPairs,
  headerOf,
  isMetadata,
  timeoutHeader,
} from "./headers.js";
import { contentTypeOf, decodeMessage, encodeMessage, isBinaryType, type MessageFormat } from "./message-format.js";
import { type Route, unaryMethodOf } from "./routes.js";

/** A call as it came. */
export interface IncomingCall {
  readonly pairs: HeaderPairs;
  readonly payload: Uint8Array;
  /** For URLs, which interceptors see. */
  readonly scheme: string;
  /** Aborted when nobody waits for the answer any more, or the service stops. Asked for only where the handler does. */
  readonly signal: AbortSignal;
  /** Tells the handler of its message. */
  prepare(values: ContextValues): void;
}

/** An answer on its way out. */
export interface OutgoingAnswer {
  readonly pairs: HeaderPairs;
  readonly payload: Uint8Array;
  /** What went wrong; undefined if nothing did. Its cause is for logs. */
  readonly error: ConnectError | undefined;
}

/** Answers the call. Never rejects: what goes wrong is an answer. */
export async function answerCall(route: Route, call: IncomingCall): Promise<OutgoingAnswer> {
  let context: CallContext | undefined;
  try {
    const header = headerOf(call.pairs, Code.InvalidArgument);
    const format = formatOf(route, header);
    context = contextOf(route, call, header);
    context.responseHeader.set(contentTypeHeader, contentTypeOf(format.isBinary));
    const payload = await run(route, call, context, format);
    context.checkDeadline();
    return { pairs: answerPairs(context.responseHeader, context.responseTrailer), payload, error: undefined };
  } catch (reason) {
    return errorAnswer(context?.lateness() ?? asConnectError(reason), context);
  } finally {
    context?.end();
  }
}

/** The answer that tells an error. @param context what the handler had set is told too */
export function errorAnswer(
  error: ConnectError,
  context?: Pick<HandlerContext, "responseHeader" | "responseTrailer">,
): OutgoingAnswer {
  const header = new Headers(context?.responseHeader);
  header.set(contentTypeHeader, contentTypeOf(false));
  header.set(rpcConstants.errorHeader, nameOfCode(error.code));
  // What another service said to this one is not for the callers of this one.
  if (!error.isWireError) {
    for (const [name, value] of error.metadata) if (isMetadata(name)) header.append(name, value);
  }
  try {
    const pairs = answerPairs(header, context?.responseTrailer ?? new Headers());
    return { pairs, payload: encodeError(error), error };
  } catch (cause) {
    // A detail that is no message of its type.
    const words = "the details of the handler's error cannot be encoded";
    return errorAnswer(new ConnectError(words, Code.Internal, undefined, undefined, cause), context);
  }
}

async function run(route: Route, call: IncomingCall, context: CallContext, format: MessageFormat): Promise<Uint8Array> {
  const { implementation, options } = route;
  const method = unaryMethodOf(route);
  await options.requestGate?.(context);
  const readLimit = { name: "readMaxBytes", bytes: options.readMaxBytes } as const;
  const message = decodeMessage(method.input, call.payload, format, readLimit);
  const { responseHeader: header, responseTrailer: trailer } = context;
  const handle = async (request: UnaryRequest): Promise<UnaryResponse> => {
    const output = await implementation(request.message, changedBy(request, context));
    return {
      ...{ stream: false, service: method.parent, method, header, trailer },
      message: create(method.output, output),
    };
  };
  const request = (): UnaryRequest => ({
    ...{ stream: false, service: method.parent, method, requestMethod: "POST", url: context.url, message },
    ...{ signal: context.signal, header: context.requestHeader, contextValues: context.values },
  });
  const { interceptors = [] } = options;
  let output = undefined as UnaryResponse["message"] | undefined;
  if (interceptors.length === 0) {
    output = create(method.output, await implementation(message, context));
  } else {
    const response = await intercepted(handle, interceptors)(request());
    replace(header, response.header);
    replace(trailer, response.trailer);
    output = response.message;
  }
  return encodeMessage(method.output, output, format, { name: "writeMaxBytes", bytes: options.writeMaxBytes });
}

type UnaryFunction = (request: UnaryRequest) => Promise<UnaryResponse>;

/** The first one is outermost. */
function intercepted(handle: UnaryFunction, interceptors: readonly Interceptor[]): UnaryFunction {
  return interceptors.reduceRight((next, interceptor) => interceptor(next as never) as never, handle);
}

/** The context with what interceptors have changed of the request. */
function changedBy({ header, signal, contextValues }: UnaryRequest, context: CallContext): HandlerContext {
  if (header === context.requestHeader && signal === context.signal && contextValues === context.values) return context;
  return { ...context, requestHeader: header, signal, values: contextValues };
}

function replace(target: Headers, source: Headers): void {
  if (target === source) return;
  for (const name of [...target.keys()]) target.delete(name);
  for (const [name, value] of source) target.append(name, value);
}

/** @throws ConnectError `invalid_argument` for another content type, `unimplemented` for an encoding */
function formatOf({ options: { binaryOptions, jsonOptions } }: Route, header: Headers): MessageFormat {
  const contentType = header.get(contentTypeHeader);
  const isBinary = isBinaryType(contentType);
  if (isBinary === undefined) {
    const words = contentType === null ? "the call has no header content-type" : `content-type is ${contentType}`;
    throw new ConnectError(`${words}; it must be application/proto or application/json`, Code.InvalidArgument);
  }
  const encoding = header.get(encodingHeader) ?? "identity";
  if (encoding !== "identity") {
    const words = `content-encoding is ${encoding}; Hawser takes no compressed messages, leave it out`;
    throw new ConnectError(words, Code.Unimplemented);
  }
  return { isBinary, binaryOptions, jsonOptions };
}

/** What a handler is given, and the time limit of its call. */
interface CallContext extends HandlerContext {
  /** The error for a time limit that is over; undefined if it is not. */
  lateness(): ConnectError | undefined;
  /** @throws ConnectError `deadline_exceeded`, if the time limit is over */
  checkDeadline(): void;
  /** The call has ended: ends its signal. */
  end(): void;
}

/** @throws ConnectError `invalid_argument` for a time limit that is none, or too long */
function contextOf({ method, options }: Route, call: IncomingCall, requestHeader: Headers): CallContext {
  const timeoutMs = timeoutOf(requestHeader, options.maxTimeoutMs ?? Number.MAX_SAFE_INTEGER);
  const deadlineAt = performance.now() + timeoutMs;
  const late = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);
  const values = createContextValues();
  call.prepare(values);
  const { scheme } = call;
  let signal: CallSignal | undefined;
  const context: CallContext = {
    ...{ method, service: method.parent, requestMethod: "POST", protocolName: "connect", requestHeader, values },
    url: `${scheme}:///${method.parent.typeName}/${method.name}`,
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    // Made when it is asked for: most handlers do not ask, and it costs more than everything else here.
    get signal() {
      signal ??= new CallSignal([call.signal, options.shutdownSignal], deadlineAt, late);
      return signal.signal;
    },
    timeoutMs: () => (timeoutMs === Number.POSITIVE_INFINITY ? undefined : deadlineAt - performance.now()),
    lateness: () => (performance.now() >= deadlineAt ? late() : undefined),
    checkDeadline: () => {
      const error = context.lateness();
      if (error !== undefined) throw error;
    },
    end: () => signal?.end(),
  };
  return context;
}

/** Infinity without the header. */
function timeoutOf(header: Headers, maxTimeoutMs: number): number {
  const text = header.get(timeoutHeader);
  if (text === null) return Number.POSITIVE_INFINITY;
  if (!/^\d{1,10}$/.test(text)) {
    const words = `${timeoutHeader} is ${JSON.stringify(text)}; it must be a whole number of milliseconds, of at most 10 digits`;
    throw new ConnectError(words, Code.InvalidArgument);
  }
  const timeoutMs = Number(text);
  if (timeoutMs <= maxTimeoutMs) return timeoutMs;
  throw new ConnectError(`timeout ${timeoutMs} ms; maxTimeoutMs is ${maxTimeoutMs}`, Code.InvalidArgument);
}

const maxTimerMs = 2 ** 31 - 1;
const timerSlackMs = 5;

/** Aborted with the first of several signals, at the deadline, and when the call ends. */
class CallSignal {
  readonly #controller = new AbortController();
  readonly #sources: readonly AbortSignal[];
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #onAbort = ({ target }: Event): void => this.#abort(this.#reasonOf(target as AbortSignal));
  readonly #deadlineAt: number;
  readonly #late: () => ConnectError;

  constructor(sources: readonly (AbortSignal | undefined)[], deadlineAt: number, late: () => ConnectError) {
    this.#sources = sources.filter((source) => source !== undefined);
    this.#deadlineAt = deadlineAt;
    this.#late = late;
    for (const source of this.#sources) {
      if (source.aborted) this.#controller.abort(this.#reasonOf(source));
      else source.addEventListener("abort", this.#onAbort);
    }
    const leftMs = deadlineAt - performance.now();
    if (leftMs <= maxTimerMs) this.#timer = setTimeout(() => this.#abort(late()), Math.max(0, leftMs));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    this.#abort(ended);
  }

  /** The carrier has the same time limit, and its timer may be a moment earlier. */
  #reasonOf({ reason }: AbortSignal): ConnectError {
    if (this.#deadlineAt - performance.now() <= timerSlackMs) return this.#late();
    if (reason instanceof ConnectError) return reason;
    const words = reason instanceof Error ? reason.message : String(reason);
    return new ConnectError(words, Code.Canceled, undefined, undefined, reason);
  }

  #abort(reason: unknown): void {
    clearTimeout(this.#timer);
    for (const source of this.#sources) source.removeEventListener("abort", this.#onAbort);
    this.#controller.abort(reason);
  }
}

const ended = new ConnectError("the call has ended", Code.Canceled);

/** Of what a handler throws only a `ConnectError` is for the caller. */
function asConnectError(reason: unknown): ConnectError {
  try {
    if (reason instanceof ConnectError) return reason;
  } catch {
    // Any value can be thrown, also one that throws when it is looked at.
    return new ConnectError("internal error", Code.Internal);
  }
  return new ConnectError("internal error", Code.Internal, undefined, undefined, reason);
}
