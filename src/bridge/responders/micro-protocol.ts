/**
 * The protocol by which NATS services are found, described and measured (ADR-32): subjects and documents. Pure.
 *
 *   $SRV.PING              every service answers
 *   $SRV.PING.NAME         every service of that name
 *   $SRV.PING.NAME.ID      that one
 *
 * and the same with INFO and STATS.
 */
import type { EndpointCounters } from "./counters.js";

/** A service, of which each responder is one. */
export interface MicroService {
  /** Of letters, digits, `_` and `-`. */
  readonly name: string;
  /** No other service anywhere has it. */
  readonly id: string;
  /** Semantic. */
  readonly version: string;
  readonly description: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly startedAt: Date;
  /** Where it answers. */
  readonly subject: string;
  readonly queueGroup: string;
  readonly endpointMetadata: Readonly<Record<string, string>>;
  readonly counters: EndpointCounters;
}

const verbs = ["PING", "INFO", "STATS"] as const;

/** What is asked of services. */
export type Verb = (typeof verbs)[number];

/** Which services are asked, and for what. */
export interface Inquiry {
  readonly verb: Verb;
  readonly name: string | undefined;
  readonly id: string | undefined;
}

/** Subscribed to before the others, to learn whether the server permits services to be found. */
export const firstSubject = "$SRV.PING";

/** All subjects by which these services are asked; none without services. */
export function inquirySubjects(services: Iterable<Pick<MicroService, "name" | "id">>): Set<string> {
  const subjects = new Set<string>();
  for (const { name, id } of services) {
    for (const verb of verbs) {
      subjects.add(`$SRV.${verb}`).add(`$SRV.${verb}.${name}`).add(`$SRV.${verb}.${name}.${id}`);
    }
  }
  return subjects;
}

/** What is asked by a message to this subject; undefined if it is no such subject. */
export function readInquiry(subject: string): Inquiry | undefined {
  const [prefix, word, name, id, ...rest] = subject.split(".");
  const verb = verbs.find((each) => each === word);
  if (prefix !== "$SRV" || verb === undefined || rest.length > 0) return undefined;
  return { verb, name, id };
}

/** True if the service is one of those asked. */
export function isAsked({ name, id }: Inquiry, service: Pick<MicroService, "name" | "id">): boolean {
  return (name === undefined || name === service.name) && (id === undefined || id === service.id);
}

/** What the service answers, to be sent as JSON. */
export function describeService(verb: Verb, service: MicroService): object {
  const { name, id, version, metadata } = service;
  const identity = { type: `io.nats.micro.v1.${verb.toLowerCase()}_response`, name, id, version, metadata };
  if (verb === "PING") return identity;
  const endpoint = { name, subject: service.subject, queue_group: service.queueGroup };
  if (verb === "INFO") {
    const { description, endpointMetadata } = service;
    return { ...identity, description, endpoints: [{ ...endpoint, metadata: endpointMetadata }] };
  }
  return {
    ...identity,
    started: service.startedAt.toISOString(),
    endpoints: [{ ...endpoint, ...measures(service.counters) }],
  };
}

/** Times in whole nanoseconds. */
function measures({ requests, errors, lastError, processingMs }: EndpointCounters): object {
  const processingTime = Math.round(processingMs * 1e6);
  return {
    num_requests: requests,
    num_errors: errors,
    last_error: lastError,
    processing_time: processingTime,
    average_processing_time: requests === 0 ? 0 : Math.round(processingTime / requests),
  };
}
