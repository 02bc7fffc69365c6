/**
 * What operators are told of responders.
 */
import type { RequestDispatcher } from "./dispatcher.js";
import type { Endpoint } from "./endpoint.js";
import type { LaneLoad } from "./fair-queue.js";

/** Of one responder. Numbers are since it began in this process, or its function was replaced by another one. */
export interface ResponderStats extends LaneLoad {
  readonly id: bigint;
  readonly subject: string;
  readonly functionName: string;
  /** Answered, also by an error. */
  readonly requests: number;
  /** Of those: by an error. */
  readonly errors: number;
  /** Of those: refused because too many were waiting. */
  readonly busy: number;
  /** Of those: out of time, waiting or running. */
  readonly timedOut: number;
  /** Messages without a reply subject. */
  readonly ignored: number;
  /** Not answered: the connection had ended. */
  readonly dropped: number;
  /** The time of its functions, without waiting for their turn. */
  readonly processingMs: number;
  /** The server does not permit the subscription. */
  readonly isRefused: boolean;
}

/** Of a process. */
export interface ResponderServiceStats {
  readonly responders: readonly ResponderStats[];
  /** Functions that run, also of responders that were removed. */
  readonly running: number;
}

/** See above. */
export function statsOf(
  endpoints: Iterable<Endpoint>,
  dispatcher: RequestDispatcher,
  isRefused: (subject: string) => boolean,
): ResponderServiceStats {
  const responders = [...endpoints].map((endpoint) => {
    const { subject, responder, service } = endpoint;
    const { requests, errors, busy, timedOut, ignored, dropped, processingMs } = service.counters;
    return {
      ...{ id: responder.id, subject, functionName: responder.functionName, isRefused: isRefused(subject) },
      ...{ requests, errors, busy, timedOut, ignored, dropped, processingMs },
      ...dispatcher.loadOf(endpoint),
    };
  });
  return { responders, running: dispatcher.running };
}
