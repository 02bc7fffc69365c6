/**
 * Protocol of service discovery and statistics of NATS micro services (ADR-32): subjects and documents. Pure.
 *
 *   $SRV.PING              every service answers
 *   $SRV.PING.NAME         every service of that name
 *   $SRV.PING.NAME.ID      that one
 *
 * and the same with INFO and STATS.
 */

/** A micro service: a responder, or a Connect service. */
export interface MicroService {
  /** Consists of letters, digits, `_` and `-`. */
  readonly name: string;
  /** Globally unique. */
  readonly id: string;
  /** Semantic version. */
  readonly version: string;
  readonly description: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly startedAt: Date;
  readonly endpoints: readonly MicroEndpoint[];
}

/** Subject at which a service answers. */
export interface MicroEndpoint {
  /** Consists of letters, digits, `_` and `-`. */
  readonly name: string;
  readonly subject: string;
  readonly queueGroup: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly counters: EndpointCounters;
}

const verbs = ["PING", "INFO", "STATS"] as const;

export type Verb = (typeof verbs)[number];

/** An inquiry: the requested document, and the services that should answer. */
export interface Inquiry {
  readonly verb: Verb;
  readonly name: string | undefined;
  readonly id: string | undefined;
}

/** Subject that is subscribed to first, to learn whether the server permits discovery. */
export const firstSubject = "$SRV.PING";

/** All discovery subjects of the services; empty without services. */
export function inquirySubjects(services: Iterable<Pick<MicroService, "name" | "id">>): Set<string> {
  const subjects = new Set<string>();
  for (const { name, id } of services) {
    for (const verb of verbs) {
      subjects.add(`$SRV.${verb}`).add(`$SRV.${verb}.${name}`).add(`$SRV.${verb}.${name}.${id}`);
    }
  }
  return subjects;
}

/** Parses a discovery subject; undefined for any other subject. */
export function readInquiry(subject: string): Inquiry | undefined {
  const [prefix, word, name, id, ...rest] = subject.split(".");
  const verb = verbs.find((each) => each === word);
  if (prefix !== "$SRV" || verb === undefined || rest.length > 0) return undefined;
  return { verb, name, id };
}

/** True if the inquiry addresses the service. */
export function isAsked({ name, id }: Inquiry, service: Pick<MicroService, "name" | "id">): boolean {
  return (name === undefined || name === service.name) && (id === undefined || id === service.id);
}

/** Answer of a service, to be sent as JSON. */
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

/** Statistics with times in whole nanoseconds. */
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
 * Counters of one endpoint: the statistics of ADR-32, and further ones for operators.
 *
 * All counters start with the service. Times are run times of the functions, without waiting.
 */
export class EndpointCounters {
  /** Requests that were answered, including errors. */
  requests = 0;
  /** Requests that were answered with an error. */
  errors = 0;
  /** Requests that were refused because too many were waiting. */
  busy = 0;
  /** Requests that timed out, waiting or running. */
  timedOut = 0;
  /**
   * Messages without a reply subject, or whose reply subject belongs to NATS. They are not requests, and no function
   * runs for them.
   */
  ignored = 0;
  /** Requests that were not answered because their connection had closed. */
  dropped = 0;
  /** Empty if there was no error. */
  lastError = "";
  processingMs = 0;

  /** Adds the duration of a function. */
  ran(elapsedMs: number): void {
    this.processingMs += elapsedMs;
  }

  answered(): void {
    this.requests += 1;
  }

  /**
   * Counts an error reply.
   *
   * @param status status of the reply
   * @param summary text without the function's error message
   */
  failed(status: number, summary: string): void {
    this.requests += 1;
    this.errors += 1;
    if (status === 504) this.timedOut += 1;
    this.lastError = `${status}: ${summary}`;
  }
}
