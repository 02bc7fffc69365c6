/** Spans of a peer: which operations have one, and what is said of them. */
import { rpcConstants } from "../../../../generated/ts/settings/connect.js";
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import {
  type Operation,
  type OperationSpan,
  startSpan,
  type TraceContext,
  traceContextOf,
  tracer,
} from "../../../foundation/runtime/index.js";
import { type HandledMessage, type Headers, headerValue } from "../../channel/index.js";
import { withContext } from "../../queue/enqueue/index.js";
import type { HandlingContext } from "../core/context.js";
import type { Outgoing } from "./outgoing.js";

/**
 * Starts the span of a send or request, if it needs one, and adds its context to the headers of the message.
 *
 * @param peer name of the sending peer
 */
export function startSending(
  kind: "send" | "request",
  topic: string,
  message: { headers: Headers | undefined; readonly payload: Uint8Array },
  peer: string,
): OperationSpan | undefined {
  if (!tracer?.wants("sometimes")) return undefined;
  const { headers, payload } = message;
  const messageId = messageIdIn(headers);
  const method = methodIn(kind, headers);
  const span = tracer.start({
    kind,
    system: "hawser",
    destination: topic,
    method,
    messageId,
    bytes: payload.length,
    peer,
  });
  if (span !== undefined) message.headers = withContext(headers ?? [], span.context);
  return span;
}

/** Starts the span of storing messages, if one of them belongs to a trace. */
export function startStoring(messages: readonly Outgoing[]): OperationSpan | undefined {
  if (tracer === undefined) return undefined;
  const from = messages.map(contextOf);
  const destination = messages[0]!.topic.topic;
  return startSpan({ kind: "store", system: "hawser", destination, from, count: messages.length }, "never");
}

/** Starts the span of an attempt to handle messages of a topic, or a request, if it needs one. */
export function startHandling(
  kind: "process" | "respond",
  { sender, membership }: Pick<HandlingContext, "sender" | "membership">,
  topic: string,
  messages: readonly HandledMessage[],
  attempt: number,
): OperationSpan | undefined {
  if (tracer === undefined) return undefined;
  const from = messages.map(contextOf);
  const begins = messages.every(({ fromWire }) => fromWire) ? "sometimes" : "always";
  // Most live messages belong to no trace.
  if (!tracer.continues(from.find(Boolean), begins)) return undefined;
  const only = messages.length === 1 ? messages[0] : undefined;
  // One literal: spread from two objects, it took 4 of the 18 µs of a message with two spans.
  return tracer.start({
    kind,
    system: "hawser",
    destination: topic,
    method: only && methodIn(kind, only.headers),
    from,
    count: only ? undefined : messages.length,
    messageId: only?.sentId,
    bytes: only?.payload.length,
    attempt: only && attempt,
    peer: sender.name,
    group: membership.group,
  });
}

function contextOf({ headers }: { readonly headers: Headers | undefined }): TraceContext | undefined {
  return headers && traceContextOf(headers);
}

function messageIdIn(headers: Headers | undefined): string | undefined {
  return headers && headerValue(headers, protocolConstants.messageIdHeader);
}

/** Method of an RPC call; undefined for any other operation. */
function methodIn(kind: Operation["kind"], headers: Headers | undefined): string | undefined {
  return headers && (kind === "request" || kind === "respond")
    ? headerValue(headers, rpcConstants.methodHeader)
    : undefined;
}
