/** Spans of what a peer sends and stores: which operations have one, and what is said of them. */
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { type OperationSpan, startSpan, tracer } from "../../../foundation/runtime/index.js";
import { type Headers, headerValue } from "../../channel/index.js";
import { contextOf, methodIn } from "../../handlers/spans.js";
import { withContext } from "../../queue/enqueue/index.js";
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

function messageIdIn(headers: Headers | undefined): string | undefined {
  return headers && headerValue(headers, protocolConstants.messageIdHeader);
}
