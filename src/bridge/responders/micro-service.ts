/**
 * The protocol by which NATS services are found, described and measured (ADR-32): subjects and documents. Pure.
 *
 *   $SRV.PING              every service answers
 *   $SRV.PING.NAME         every service of that name
 *   $SRV.PING.NAME.ID      that one
 *
 * and the same with INFO and STATS.
 */
import { createHash } from "node:crypto";
import { nuid } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { Responder } from "../bindings.js";

/** A micro service: each responder is one. */
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

/** What all services of a process have in common. */
export interface ServiceOrigin {
  /** What every process has that answers for this database, and none that answers for another one. */
  readonly database: string;
  readonly version: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * A subject that is answered, and the service that answers it now.
 *
 * Subject and queue group stay; so a function takes another one's place under the same subscription.
 */
export class Endpoint {
  readonly subject: string;
  readonly queueGroup: string;
  readonly #origin: ServiceOrigin;
  #responder: Responder;
  #service: MicroService;

  constructor(responder: Responder, origin: ServiceOrigin) {
    this.subject = responder.subject;
    this.queueGroup = queueGroup(origin.database, responder.subject);
    this.#origin = origin;
    this.#responder = responder;
    this.#service = this.#newService(responder);
  }

  get responder(): Responder {
    return this.#responder;
  }

  get service(): MicroService {
    return this.#service;
  }

  /** Answers by this responder from now on, which has the same subject. Another function is another service. */
  become(responder: Responder): void {
    const isSameFunction = responder.functionName === this.#responder.functionName;
    this.#responder = responder;
    if (!isSameFunction) this.#service = this.#newService(responder);
  }

  #newService({ functionName, subject }: Responder): MicroService {
    const { version, metadata } = this.#origin;
    return {
      name: serviceName(functionName),
      id: nuid.next(),
      version,
      description: `The SQL function ${functionName} answers requests to ${subject}.`,
      metadata,
      startedAt: new Date(),
      subject,
      queueGroup: this.queueGroup,
      endpointMetadata: { function: functionName },
      counters: new EndpointCounters(),
    };
  }
}

/**
 * The service's name: that of its function with its schema, without arguments, and with `_` for what a name of a service
 * may not have. `public.answer(bytea)` → `public_answer`. Two functions may have one name; ids tell them apart.
 */
export function serviceName(functionName: string): string {
  const end = functionName.lastIndexOf("(");
  const path = end === -1 ? functionName : functionName.slice(0, end);
  const name = path.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^_+|_+$/g, "");
  return name.slice(0, bridgeConstants.maxServiceNameLength) || "responder";
}

/**
 * The queue group, the same in every process that answers for the database, so that a request is answered by one of
 * them; another one for another database, whose function of the same subject is another service and must not get half of
 * the requests.
 */
export function queueGroup(database: string, subject: string): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([database, subject]))
    .digest("hex");
  return `hawser_${hash.slice(0, 24)}`;
}

/**
 * What is counted of one responder: the statistics of ADR-32, and what operators ask beyond them.
 *
 * All are counted since the service began; times are of the functions, without waiting for their turn.
 */
class EndpointCounters {
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
