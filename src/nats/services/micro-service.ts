/**
 * The protocol by which NATS services are found, described and measured (ADR-32): subjects and documents. Pure.
 *
 *   $SRV.PING              every service answers
 *   $SRV.PING.NAME         every service of that name
 *   $SRV.PING.NAME.ID      that one
 *
 * and the same with INFO and STATS.
 */

/** A micro service: each responder is one, and each service of Connect. */
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
  readonly endpoints: readonly MicroEndpoint[];
}

/** Where it answers. */
export interface MicroEndpoint {
  /** Of letters, digits, `_` and `-`. */
  readonly name: string;
  readonly subject: string;
  readonly queueGroup: string;
  readonly metadata: Readonly<Record<string, string>>;
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
  const identified = (endpoint: MicroEndpoint) => ({
    name: endpoint.name,
    subject: endpoint.subject,
    queue_group: endpoint.queueGroup,
  });
  if (verb === "INFO") {
    const endpoints = service.endpoints.map((each) => ({ ...identified(each), metadata: each.metadata }));
    return { ...identity, description: service.description, endpoints };
  }
  return {
    ...identity,
    started: service.startedAt.toISOString(),
    endpoints: service.endpoints.map((each) => ({ ...identified(each), ...measures(each.counters) })),
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

/**
 * What is counted of one endpoint: the statistics of ADR-32, and what operators ask beyond them.
 *
 * All are counted since the service began; times are of the functions, without waiting for their turn.
 */
export class EndpointCounters {
  /** Requests that were answered, also by an error. */
  requests = 0;
  /** Those answered by an error. */
  errors = 0;
  /** Of those: refused because too many were waiting. */
  busy = 0;
  /** Of those: out of time, waiting or running. */
  timedOut = 0;
  /** Messages without a reply subject, or with one that is NATS's own: not requests, and not run. */
  ignored = 0;
  /** Requests whose connection ended before they could be answered. */
  dropped = 0;
  /** "" if there was none. */
  lastError = "";
  processingMs = 0;

  /** A function has run. */
  ran(elapsedMs: number): void {
    this.processingMs += elapsedMs;
  }

  answered(): void {
    this.requests += 1;
  }

  /** Answered by an error. @param status of the reply @param summary without what a function says of a request */
  failed(status: number, summary: string): void {
    this.requests += 1;
    this.errors += 1;
    if (status === 504) this.timedOut += 1;
    this.lastError = `${status}: ${summary}`;
  }
}
