/**
 * Context of a trace in the headers of a message, as in W3C Trace Context: https://www.w3.org/TR/trace-context/
 */
import { namedRules } from "../../../generated/ts/rules/named.js";
import { traceConstants } from "../../../generated/ts/settings/queue.js";

const { parentHeader, stateHeader } = traceConstants;
const { traceparent, tracestate } = namedRules;

/** Valid context of a trace. */
export interface TraceContext {
  /** Value of `traceparent`, of version 00. */
  readonly parent: string;
  /** Value of `tracestate`; empty if there is none, or it is invalid. */
  readonly state: string;
}

/** Trace id or parent id of zeros, which W3C Trace Context forbids. */
const zeroId = /^00-0{32}|-0{16}-/;

/** Context in headers, whose names may have any case; undefined if there is none, several, or an invalid one. */
export function traceContextOf(headers: Iterable<readonly [name: string, value: string]>): TraceContext | undefined {
  let parent: string | undefined;
  let states: string[] | undefined;
  for (const [name, value] of headers) {
    if (name.length === parentHeader.length && name.toLowerCase() === parentHeader) {
      if (parent !== undefined) return undefined;
      parent = value;
    } else if (name.length === stateHeader.length && name.toLowerCase() === stateHeader) {
      (states ??= []).push(value);
    }
  }
  if (parent === undefined || !traceparent.pattern.test(parent) || zeroId.test(parent)) return undefined;
  if (states === undefined) return { parent, state: "" };
  const state = states.join(",");
  const isValid = state.length <= tracestate.maxBytes && tracestate.pattern.test(state);
  return { parent, state: isValid ? state : "" };
}

/** Context in headers as a JSON object of strings, or of arrays of strings; undefined also for anything else. */
export function traceContextIn(headers: unknown): TraceContext | undefined {
  if (typeof headers !== "object" || headers === null) return undefined;
  const values = (given: unknown): unknown[] => (Array.isArray(given) ? given : [given]);
  return traceContextOf(
    Object.entries(headers).flatMap(([name, given]) => values(given).map((value) => [name, String(value)] as const)),
  );
}

/** Context that all messages share; undefined if they have different ones, or one has none. */
export function sharedTrace(traces: readonly (TraceContext | undefined)[]): TraceContext | undefined {
  const [first] = traces;
  const isShared = traces.every((trace) => trace?.parent === first?.parent && trace?.state === first?.state);
  return isShared ? first : undefined;
}
