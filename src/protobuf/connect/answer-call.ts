/** Server side of a call: runs its handler with the interceptors and creates the answer. */
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
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { errorMessageOf } from "../../foundation/errors/index.js";
import { maxTimerMs } from "../../foundation/runtime/index.js";
import { nameOfCode } from "./codes.js";
import { encodeError } from "./error-json.js";
import {
  answerPairs,
  CallHeaders,
  contentTypeHeader,
  encodingHeader,
  type HeaderPairs,
  isMetadata,
  timeoutHeader,
} from "./headers.js";
import { decodeMessage, encodeMessage, isBinaryType, jsonType, type MessageFormat } from "./message-format.js";
import { type Route, unaryMethodOf } from "./routes.js";

/** Received call. */
export interface IncomingCall {
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /**
   * Signal that is aborted when the caller stops waiting or the service stops. It may be created lazily: it is accessed
   * only if the handler accesses its own signal.
   */
  readonly signal: AbortSignal;
}

/** Properties of the transport that calls come from. */
export interface CallSource<Call extends IncomingCall> {
  /** Scheme of the URLs that interceptors see. */
  readonly scheme: string;
  /** Adds the received message to the context values of the handler. */
  prepare(values: ContextValues, call: Call): void;
}

/** Encoded answer. */
export interface OutgoingAnswer {
  readonly pairs: HeaderPairs;
  readonly payload: Uint8Array;
  /** Error of the call; undefined if it succeeded. Its cause is for logs only. */
  readonly error: ConnectError | undefined;
}

/** Answers a call, synchronously if its handler is synchronous. Never throws or rejects: errors become answers. */
export function answerCall<Call extends IncomingCall>(
  route: Route,
  call: Call,
  source: CallSource<Call>,
): OutgoingAnswer | Promise<OutgoingAnswer> {
  let startedContext: CallContext | undefined;
  try {
    const context = new CallContext(route, call, source);
    startedContext = context;
    const { requestGate } = route.options;
    const output =
      requestGate === undefined
        ? outputOf(route, call, context)
        : Promise.resolve(requestGate(context)).then(() => outputOf(route, call, context));
    if (!isPromise(output)) return answerWith(route, output, context);
    return Promise.resolve(output).then(
      (given) => answerWith(route, given, context),
      (reason) => failedAnswer(reason, context),
    );
  } catch (reason) {
    return failedAnswer(reason, startedContext);
  }
}

type Output = Awaited<ReturnType<Route["implementation"]>>;

function isPromise(output: Output | Promise<Output>): output is Promise<Output> {
  return typeof (output as { readonly then?: unknown } | undefined)?.then === "function";
}

/** Runs the handler with its interceptors. */
function outputOf(route: Route, { payload }: IncomingCall, context: CallContext): Output | Promise<Output> {
  const { implementation, readLimit } = route;
  const { interceptors } = route.options;
  const message = decodeMessage(unaryMethodOf(route).input, payload, context.format, readLimit);
  return interceptors?.length
    ? runIntercepted(route, interceptors, message, context)
    : implementation(message, context);
}

function answerWith(route: Route, output: Output, context: CallContext): OutgoingAnswer {
  try {
    const payload = encodeMessage(unaryMethodOf(route).output, output, context.format, route.writeLimit);
    const timeout = context.timeoutError();
    if (timeout !== undefined) throw timeout;
    const answer = { pairs: context.answerPairs(), payload, error: undefined };
    context.end();
    return answer;
  } catch (reason) {
    return failedAnswer(reason, context);
  }
}

function failedAnswer(reason: unknown, context: CallContext | undefined): OutgoingAnswer {
  const answer = errorAnswer(context?.timeoutError() ?? asConnectError(reason), context);
  context?.end();
  return answer;
}

/** Creates an error answer. @param context adds the headers and trailers that the handler has set */
export function errorAnswer(
  error: ConnectError,
  context?: Pick<HandlerContext, "responseHeader" | "responseTrailer">,
): OutgoingAnswer {
  const header = new Headers(context?.responseHeader);
  header.set(contentTypeHeader, jsonType);
  header.set(rpcConstants.errorHeader, nameOfCode(error.code));
  // The error came from another service: its message and details are not meant for the callers of this service.
  if (!error.isWireError) {
    for (const [name, value] of error.metadata) if (isMetadata(name)) header.append(name, value);
  }
  try {
    const pairs = answerPairs(header, context?.responseTrailer);
    return { pairs, payload: encodeError(error), error };
  } catch (cause) {
    // The details have an invalid message.
    const text = "the details of the handler's error cannot be encoded";
    return errorAnswer(new ConnectError(text, Code.Internal, undefined, undefined, cause), context);
  }
}

async function runIntercepted(
  route: Route,
  interceptors: readonly Interceptor[],
  message: UnaryRequest["message"],
  context: CallContext,
): Promise<UnaryResponse["message"]> {
  const { implementation } = route;
  const method = unaryMethodOf(route);
  const { responseHeader: header, responseTrailer: trailer } = context;
  const handle = async (request: UnaryRequest): Promise<UnaryResponse> => ({
    ...{ stream: false, service: method.parent, method, header, trailer },
    message: create(method.output, await implementation(request.message, changedBy(request, context))),
  });
  const run = intercepted(handle, interceptors);
  const response = await run({
    ...{ stream: false, service: method.parent, method, requestMethod: "POST", url: context.url, message },
    ...{ signal: context.signal, header: context.requestHeader, contextValues: context.values },
  });
  replace(header, response.header);
  replace(trailer, response.trailer);
  return response.message;
}

type UnaryFunction = (request: UnaryRequest) => Promise<UnaryResponse>;

/** Wraps a handler in interceptors; the first one is outermost. */
function intercepted(handle: UnaryFunction, interceptors: readonly Interceptor[]): UnaryFunction {
  return interceptors.reduceRight((next, interceptor) => interceptor(next as never) as never, handle);
}

/** Context of the handler after changes that interceptors made to the request. */
function changedBy({ header, signal, contextValues }: UnaryRequest, context: CallContext): HandlerContext {
  if (header === context.requestHeader && signal === context.signal && contextValues === context.values) return context;
  const { method, service, requestMethod, protocolName, url, timeoutMs, responseHeader, responseTrailer } = context;
  return {
    ...{ method, service, requestMethod, protocolName, url, timeoutMs, responseHeader, responseTrailer },
    ...{ requestHeader: header, signal, values: contextValues },
  };
}

function replace(target: Headers, source: Headers): void {
  if (target === source) return;
  for (const name of [...target.keys()]) target.delete(name);
  for (const [name, value] of source) target.append(name, value);
}

/** @throws ConnectError `invalid_argument` for another content type, `unimplemented` for a compressed message */
function formatOf({ formats }: Route, header: CallHeaders): MessageFormat {
  const contentType = header.get(contentTypeHeader);
  const isBinary = isBinaryType(contentType);
  if (isBinary === undefined) {
    const text = contentType === null ? "the call has no header content-type" : `content-type is ${contentType}`;
    throw new ConnectError(`${text}; it must be application/proto or application/json`, Code.InvalidArgument);
  }
  const encoding = header.get(encodingHeader) ?? "identity";
  if (encoding !== "identity") {
    const text = `content-encoding is ${encoding}; Hawser does not support compressed messages; leave the header out`;
    throw new ConnectError(text, Code.Unimplemented);
  }
  return isBinary ? formats.binary : formats.json;
}

const timedOut = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);

/**
 * Context and time limit of a call. Its objects are created lazily, because most handlers use few of them and creating
 * all would take most of the time of a short call.
 */
class CallContext<Call extends IncomingCall = IncomingCall> implements HandlerContext {
  readonly requestMethod = "POST";
  readonly protocolName = "connect";
  readonly method: HandlerContext["method"];
  readonly format: MessageFormat;
  readonly #route: Route;
  readonly #call: Call;
  readonly #source: CallSource<Call>;
  readonly #received: CallHeaders;
  readonly #deadlineAt: number;
  #signal: CallSignal | undefined;
  #values: ContextValues | undefined;
  #header: Headers | undefined;
  #trailer: Headers | undefined;

  /** @throws ConnectError as {@link formatOf}, and `invalid_argument` for an invalid or too long time limit */
  constructor(route: Route, call: Call, source: CallSource<Call>) {
    const received = new CallHeaders(call.headers, Code.InvalidArgument, false);
    this.method = route.method;
    this.format = formatOf(route, received);
    this.#route = route;
    this.#call = call;
    this.#source = source;
    this.#received = received;
    this.#deadlineAt = performance.now() + timeoutOf(received, route.options.maxTimeoutMs ?? Number.MAX_SAFE_INTEGER);
  }

  get service(): HandlerContext["service"] {
    return this.method.parent;
  }

  get url(): string {
    return `${this.#source.scheme}:///${this.method.parent.typeName}/${this.method.name}`;
  }

  get requestHeader(): Headers {
    return this.#received.header;
  }

  get responseHeader(): Headers {
    this.#header ??= new Headers([[contentTypeHeader, this.format.contentType]]);
    return this.#header;
  }

  get responseTrailer(): Headers {
    this.#trailer ??= new Headers();
    return this.#trailer;
  }

  get values(): ContextValues {
    if (this.#values === undefined) {
      this.#values = createContextValues();
      this.#source.prepare(this.#values, this.#call);
    }
    return this.#values;
  }

  get signal(): AbortSignal {
    this.#signal ??= new CallSignal([this.#call.signal, this.#route.options.shutdownSignal], this.#deadlineAt);
    return this.#signal.signal;
  }

  readonly timeoutMs = (): number | undefined =>
    this.#deadlineAt === Number.POSITIVE_INFINITY ? undefined : this.#deadlineAt - performance.now();

  /** Headers and trailers of the answer. */
  answerPairs(): HeaderPairs {
    if (this.#header !== undefined || this.#trailer !== undefined) {
      return answerPairs(this.responseHeader, this.#trailer);
    }
    return this.format.pairs;
  }

  /** Error of a call that has passed its time limit; otherwise undefined. */
  timeoutError(): ConnectError | undefined {
    return performance.now() >= this.#deadlineAt || this.#signal?.isLate ? timedOut() : undefined;
  }

  /** Ends the signal after the call. */
  end(): void {
    this.#signal?.end();
  }
}

/** Time limit in ms; Infinity without the header. */
function timeoutOf(header: CallHeaders, maxTimeoutMs: number): number {
  const text = header.get(timeoutHeader);
  if (text === null) return Number.POSITIVE_INFINITY;
  if (!/^\d{1,10}$/.test(text)) {
    const problem = `${timeoutHeader} is ${JSON.stringify(text)}; it must be an integer number of milliseconds with at most 10 digits`;
    throw new ConnectError(problem, Code.InvalidArgument);
  }
  const timeoutMs = Number(text);
  if (timeoutMs <= maxTimeoutMs) return timeoutMs;
  throw new ConnectError(
    `the timeout of ${timeoutMs} ms exceeds maxTimeoutMs, ${maxTimeoutMs} ms`,
    Code.InvalidArgument,
  );
}

const timerSlackMs = 5;

/** Signal that is aborted with the first of several signals, at the deadline, and at the end of the call. */
class CallSignal {
  readonly #controller = new AbortController();
  readonly #sources: readonly AbortSignal[];
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #onAbort = ({ target }: Event): void => this.#abort(this.#reasonOf(target as AbortSignal));
  readonly #deadlineAt: number;
  #isLate = false;

  constructor(sources: readonly (AbortSignal | undefined)[], deadlineAt: number) {
    this.#sources = sources.filter((source) => source !== undefined);
    this.#deadlineAt = deadlineAt;
    for (const source of this.#sources) {
      if (source.aborted) this.#controller.abort(this.#reasonOf(source));
      else source.addEventListener("abort", this.#onAbort);
    }
    const leftMs = deadlineAt - performance.now();
    if (leftMs <= maxTimerMs) this.#timer = setTimeout(() => this.#abort(this.#onTimeout()), Math.max(0, leftMs));
  }

  /**
   * True if the handler's signal reported the deadline: the caller then gets the same error, even if a timer was
   * slightly early.
   */
  get isLate(): boolean {
    return this.#isLate;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    this.#abort(ended);
  }

  /**
   * Reason of an aborted signal. Shortly before the deadline the reason is the timeout: the transport has the same time
   * limit, and its timer may fire slightly earlier.
   */
  #reasonOf({ reason }: AbortSignal): ConnectError {
    if (this.#deadlineAt - performance.now() <= timerSlackMs) return this.#onTimeout();
    if (reason instanceof ConnectError) return reason;
    const text = errorMessageOf(reason);
    return new ConnectError(text, Code.Canceled, undefined, undefined, reason);
  }

  #onTimeout(): ConnectError {
    this.#isLate = true;
    return timedOut();
  }

  #abort(reason: unknown): void {
    clearTimeout(this.#timer);
    for (const source of this.#sources) source.removeEventListener("abort", this.#onAbort);
    this.#controller.abort(reason);
  }
}

const ended = new ConnectError("the call has ended", Code.Canceled);

/** Converts an error of a handler. Only a `ConnectError` is meant for the caller. */
function asConnectError(reason: unknown): ConnectError {
  try {
    if (reason instanceof ConnectError) return reason;
  } catch {
    // Handlers can throw any value, including objects whose properties throw.
    return new ConnectError("internal error", Code.Internal);
  }
  return new ConnectError("internal error", Code.Internal, undefined, undefined, reason);
}
