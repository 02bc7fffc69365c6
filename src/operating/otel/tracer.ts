/** Spans of OpenTelemetry for the operations of Hawser. */
import {
  type Attributes,
  type Context,
  context as contexts,
  createTraceState,
  diag,
  isSpanContextValid,
  type Link,
  type Tracer as OtelTracer,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { errorMessageOf, shortened } from "../../foundation/errors/index.js";
import {
  type Beginning,
  type Operation,
  type OperationSpan,
  type TraceContext,
  type Tracer,
  traceContextOf,
  traceHeaders,
} from "../../foundation/runtime/index.js";
import { connectRpc, names } from "./conventions.js";

/** Kind of the span, and `messaging.operation.type`, by the kind of an operation. */
const spanKinds: Readonly<Record<Operation["kind"], readonly [SpanKind, string]>> = {
  enqueue: [SpanKind.PRODUCER, "create"],
  send: [SpanKind.PRODUCER, "send"],
  store: [SpanKind.CLIENT, "send"],
  process: [SpanKind.CONSUMER, "process"],
  request: [SpanKind.CLIENT, "send"],
  respond: [SpanKind.SERVER, "process"],
  call: [SpanKind.CLIENT, "send"],
};

const perMillion = 1_000_000;

export class OperationTracer implements Tracer {
  readonly #tracer: OtelTracer;
  readonly #liveShare: number;

  /** @param livePerMillion share of live operations without a trace that begin one */
  constructor(tracer: OtelTracer, livePerMillion: number) {
    this.#tracer = tracer;
    this.#liveShare = livePerMillion / perMillion;
  }

  continues(from: TraceContext | undefined, begins: Beginning): boolean {
    return from !== undefined || this.#mayBegin(begins);
  }

  wants(begins: Beginning): boolean {
    return this.#mayBegin(begins) || guarded(() => trace.getSpan(contexts.active())) !== undefined;
  }

  detached<T>(call: () => T): T {
    return runIn(() => ROOT_CONTEXT, call);
  }

  #mayBegin(begins: Beginning): boolean {
    return begins === "always" || (begins === "sometimes" && Math.random() < this.#liveShare);
  }

  start(operation: Operation): OperationSpan | undefined {
    return guarded(() => this.#start(operation));
  }

  #start(operation: Operation): OperationSpan | undefined {
    const { kind, destination, method, from } = operation;
    const [spanKind] = spanKinds[kind];
    const origins = (from ?? []).flatMap((each) => (each === undefined ? [] : spanContextOf(each)));
    const [first] = origins;
    const isOneTrace = origins.every(({ traceId }) => traceId === first!.traceId);
    const received = first !== undefined && isOneTrace ? trace.setSpanContext(ROOT_CONTEXT, first) : ROOT_CONTEXT;
    const parent = from === undefined ? contexts.active() : received;
    // The parent needs no link.
    const linked = isOneTrace ? origins.slice(1) : origins;
    const links: Link[] = linked.map((context) => ({ context }));
    const name = method === undefined ? `${kind} ${destination}` : method.replace(/\.(?=[^.]*$)/, "/");
    const options = { kind: spanKind, attributes: attributesOf(operation), links, root: parent === ROOT_CONTEXT };
    const span = this.#tracer.startSpan(name, options, parent);
    // Without an SDK, a span has no ids that a message could carry.
    const spanContext = span.spanContext();
    if (!isSpanContextValid(spanContext)) return undefined;
    const { traceId, spanId, traceFlags, traceState } = spanContext;
    const flags = (traceFlags & 0xff).toString(16).padStart(2, "0");
    const parentId = `00-${traceId}-${spanId}-${flags}`;
    // Ids that an SDK makes are in lower case, as the header must have them.
    if (traceState === undefined && parentId === parentId.toLowerCase())
      return new ActiveSpan(span, { parent: parentId, state: "" });
    // A sampler may have made any state, and a message with an invalid header could not be sent.
    const context = traceContextOf(traceHeaders({ parent: parentId, state: traceState?.serialize() ?? "" }));
    return context && new ActiveSpan(span, context);
  }
}

class ActiveSpan implements OperationSpan {
  readonly #span: Span;
  readonly context: TraceContext;

  constructor(span: Span, context: TraceContext) {
    this.#span = span;
    this.context = context;
  }

  run<T>(call: () => T): T {
    return runIn(() => trace.setSpan(contexts.active(), this.#span), call);
  }

  setMessageId(id: string): void {
    guarded(() => this.#span.setAttribute(names.messageId, id));
  }

  end(error?: unknown, outcome?: string): void {
    guarded(() => {
      if (outcome !== undefined) this.#span.setAttribute(names.outcome, outcome);
      if (error !== undefined) {
        const { type, text } = describe(error);
        this.#span.setAttribute(names.errorType, type);
        this.#span.setStatus({ code: SpanStatusCode.ERROR, message: text });
      }
    });
    guarded(() => this.#span.end());
  }
}

/**
 * Result of a call of the tracing library; undefined if it throws. Samplers and processors of spans are code of the user
 * that runs within the call, and their errors must not fail a send or a handler.
 */
function guarded<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    reportFailure(error);
    return undefined;
  }
}

function reportFailure(error: unknown): void {
  try {
    diag.error("hawser could not record a span", error);
  } catch {
    // The logger is the user's, too.
  }
}

/** Runs `call` in a context, or without it if the context manager throws. Throws only what `call` throws. */
function runIn<T>(context: () => Context, call: () => T): T {
  let hasBegun = false;
  try {
    return contexts.with(context(), () => {
      hasBegun = true;
      return call();
    });
  } catch (error) {
    if (hasBegun) throw error;
    reportFailure(error);
    return call();
  }
}

function spanContextOf({ parent, state }: TraceContext): SpanContext | [] {
  const [, traceId, spanId, flags] = parent.split("-");
  const context: SpanContext = {
    traceId: traceId!,
    spanId: spanId!,
    traceFlags: Number.parseInt(flags!, 16),
    isRemote: true,
    ...(state === "" ? {} : { traceState: createTraceState(state) }),
  };
  return isSpanContextValid(context) ? context : [];
}

/** Properties of an operation that are attributes, if they are set. */
const optionalNames = [
  ["count", names.batchCount],
  ["messageId", names.messageId],
  ["bytes", names.bodySize],
  ["attempt", names.attempt],
  ["functionName", names.functionName],
  ["peer", names.clientId],
  ["group", names.group],
] as const;

function attributesOf(operation: Operation): Attributes {
  const { kind, system, destination, method } = operation;
  const attributes: Attributes = {};
  if (method === undefined) {
    attributes[names.system] = system;
    attributes[names.operationType] = spanKinds[kind][1];
    attributes[names.operationName] = kind;
    attributes[names.destination] = destination;
  } else {
    const dot = method.lastIndexOf(".");
    attributes[names.rpcSystem] = connectRpc;
    attributes[names.rpcService] = method.slice(0, dot);
    attributes[names.rpcMethod] = method.slice(dot + 1);
  }
  for (const [property, name] of optionalNames) {
    const value = operation[property];
    if (value !== undefined) attributes[name] = value;
  }
  return attributes;
}

const { maxBytes } = limits.DeadLetter.errorMessage;

/**
 * Code and text of an error, cut as those of a dead letter: an error can have the text of a whole message, and exporters
 * keep thousands of spans. Handlers can throw any value, including objects whose properties throw.
 */
function describe(error: unknown): { readonly type: string; readonly text: string } {
  try {
    const { code, name, message } = error as { readonly [property in "code" | "name" | "message"]?: unknown };
    const [type = "_OTHER"] = [code, name].filter((each) => typeof each === "string" && each !== "");
    const text = typeof message === "string" ? message : errorMessageOf(error);
    return { type: shortened(type as string, maxBytes), text: shortened(text, maxBytes) };
  } catch {
    return { type: "_OTHER", text: "a value that cannot be shown" };
  }
}
