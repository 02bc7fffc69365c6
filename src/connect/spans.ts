/** Spans of calls over NATS. Those over peers are the ones of their requests. */
import type { DescMethod } from "@bufbuild/protobuf";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import { type OperationSpan, startSpan, type TraceContext } from "../runtime/index.js";
import { firstValue, type HeaderPairs } from "./headers.js";

/** Starts the span of one side of a call, if it needs one. @param from context in the headers of the call */
export function startCall(
  kind: "request" | "respond",
  { parent, name }: DescMethod,
  payload: Uint8Array,
  from: TraceContext | undefined,
): OperationSpan | undefined {
  const method = `${parent.typeName}.${name}`;
  const operation = { kind, system: "nats", destination: method, method, bytes: payload.length } as const;
  return startSpan(kind === "respond" ? { ...operation, from: [from] } : operation, "sometimes");
}

/** Error in the headers of an answer; undefined if the call succeeded. */
export function errorIn(headers: HeaderPairs): { readonly code: string; readonly message: string } | undefined {
  const code = firstValue(headers, rpcConstants.errorHeader);
  return code === undefined ? undefined : { code, message: "" };
}
