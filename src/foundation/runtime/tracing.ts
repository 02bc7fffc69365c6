/**
 * Hooks for tracing. Layers report their operations to the {@link tracer}, which `hawser/otel` sets. Without it, an
 * operation costs one comparison: callers test `tracer` before they describe the operation.
 */
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { traceConstants } from "../../../generated/ts/settings/queue.js";
import type { TraceContext } from "./trace-context.js";

/** Operation on one message, or on a batch of messages. Callers write one literal: spreads cost more than the span itself. */
export interface Operation {
  /**
   * - `enqueue`: a message is written to the queue or the outbox, in a transaction of the user;
   * - `send`: a message goes to a peer or to NATS;
   * - `store`: messages are written to Postgres, because their listener has not confirmed them;
   * - `process`: a handler or a SQL function runs;
   * - `request`, `respond`: the two sides of a request or RPC call;
   * - `call`: the gateway carries out a call of a SQL function.
   */
  readonly kind: "enqueue" | "send" | "store" | "process" | "request" | "respond" | "call";
  readonly system: "hawser" | "nats";
  /** Topic, subject, or SQL function of a `call`. */
  readonly destination: string;
  /** Full name of the method of an RPC call, such as `acme.v1.Warehouse.Reserve`. */
  readonly method?: string | undefined;
  /**
   * Contexts of the messages that the operation handles; absent if it handles none. It continues their trace, or has
   * links to them if they belong to several.
   */
  readonly from?: readonly (TraceContext | undefined)[] | undefined;
  /** Number of messages, if it may differ from 1. */
  readonly count?: number | undefined;
  readonly messageId?: string | undefined;
  /** Size of the payload. */
  readonly bytes?: number | undefined;
  readonly attempt?: number | undefined;
  /** SQL function that processes the messages. */
  readonly functionName?: string | undefined;
  /** Name of the peer. */
  readonly peer?: string | undefined;
  readonly group?: string | undefined;
}

/** Span of an operation. Its methods never throw, whatever the tracing library does. */
export interface OperationSpan {
  /** Context for messages that belong to the operation. */
  readonly context: TraceContext;
  /** Runs `call` with the span as the active one. Throws only what `call` throws. */
  run<T>(call: () => T): T;
  /** Sets the id of a message that has got it within the operation. */
  setMessageId(id: string): void;
  /**
   * Ends the span. Further calls have no effect.
   *
   * @param error reason of a failed operation; undefined for a success
   * @param outcome outcome of a send, such as `stored`
   */
  end(error?: unknown, outcome?: string): void;
}

/**
 * Whether an operation that belongs to no trace begins one. `sometimes` is for live messages and requests, of which there
 * may be very many: a share of them does.
 */
export type Beginning = "always" | "sometimes" | "never";

/** Source of spans. Its methods never throw, whatever the tracing library does. */
export interface Tracer {
  /** True if an operation on received messages needs a span: it continues the trace of one, or begins one. */
  continues(from: TraceContext | undefined, begins: Beginning): boolean;
  /** True if any other operation needs a span: one is active, or it begins a trace. */
  wants(begins: Beginning): boolean;
  /** Runs `call` without an active span, which all that it starts would have otherwise, such as connections. */
  detached<T>(call: () => T): T;
  /** Starts a span; undefined if there is no SDK that makes spans, or if it has failed. */
  start(operation: Operation): OperationSpan | undefined;
}

/** Undefined while nothing is traced. */
export let tracer: Tracer | undefined;

/** Sets the tracer. @returns a function that restores the previous one */
export function setTracer(next: Tracer): () => void {
  const previous = tracer;
  tracer = next;
  return () => {
    if (tracer === next) tracer = previous;
  };
}

/** Starts the span of an operation that needs one; undefined for any other, and while nothing is traced. */
export function startSpan(operation: Operation, begins: Beginning): OperationSpan | undefined {
  if (tracer === undefined) return undefined;
  const { from } = operation;
  const isWanted =
    from === undefined
      ? tracer.wants(begins)
      : tracer.continues(
          from.find((context) => context !== undefined),
          begins,
        );
  return isWanted ? tracer.start(operation) : undefined;
}

/**
 * Runs `call` in a span, and ends the span with its result or error.
 *
 * @param span undefined runs `call` alone
 * @param failureIn returns the error that a result stands for; undefined for a success
 */
export function inSpan<T>(
  span: OperationSpan | undefined,
  call: () => Promise<T>,
  failureIn?: (value: T) => unknown,
): Promise<T> {
  if (span === undefined) return call();
  const failed = (error: unknown): never => {
    span.end(error ?? nothingThrown);
    throw error;
  };
  let running: Promise<T>;
  try {
    running = span.run(call);
  } catch (error) {
    return failed(error);
  }
  return running.then((value) => {
    span.end(attempt(() => failureIn?.(value)));
    return value;
  }, failed);
}

/** Stands for a thrown `undefined` or `null`, which would look like a success. */
export const nothingThrown = "an error without a value";

/** Result of `call`; undefined if it throws. */
function attempt<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}

const { parentHeader, stateHeader } = traceConstants;

/** Headers with the context, as pairs. */
export function traceHeaders({ parent, state }: TraceContext): [name: string, value: string][] {
  const pairs: [string, string][] = [[parentHeader, parent]];
  if (state !== "") pairs.push([stateHeader, state]);
  return pairs;
}

/** Adds a context to headers, unless they name a trace, or would be more than `maxHeaders`. */
export function withTrace(
  headers: readonly (readonly [name: string, value: string])[],
  context: TraceContext,
  maxHeaders = Number.POSITIVE_INFINITY,
): readonly (readonly [name: string, value: string])[] {
  const added = traceHeaders(context);
  const isFull = headers.length + added.length > maxHeaders;
  return isFull || namesTrace(headers) ? headers : [...headers, ...added];
}

/** Error of an RPC call in the headers of its answer; undefined for a success, and for the answer to another request. */
export function rpcErrorIn(
  headers: Iterable<readonly [name: string, value: string]>,
): { readonly code: string; readonly message: string } | undefined {
  for (const [name, code] of headers) if (name === rpcConstants.errorHeader) return { code, message: "" };
  return undefined;
}

/** True if headers name a trace: they keep it, whatever the active span. */
function namesTrace(headers: Iterable<readonly [name: string, value: string]>): boolean {
  for (const [name] of headers) {
    if (name.length === parentHeader.length && name.toLowerCase() === parentHeader) return true;
  }
  return false;
}
