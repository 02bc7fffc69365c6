/** Spans of calls over NATS. Those over peers are the ones of their requests. */
import type { DescMethod } from "@bufbuild/protobuf";
import { type OperationSpan, startSpan, type TraceContext } from "../../foundation/runtime/index.js";

/** Starts the span of one side of a call, if it needs one. @param from context in the headers of the call */
export function startCall(
  kind: "request" | "respond",
  { parent, name }: DescMethod,
  payload: Uint8Array,
  from: TraceContext | undefined,
): OperationSpan | undefined {
  const method = `${parent.typeName}.${name}`;
  const bytes = payload.length;
  const origin = kind === "respond" ? [from] : undefined;
  return startSpan({ kind, system: "nats", destination: method, method, from: origin, bytes }, "sometimes");
}
