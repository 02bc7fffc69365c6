/**
 * A responder's subject, and its micro service.
 */
import { createHash } from "node:crypto";
import { nuid } from "@nats-io/transport-node";
import { EndpointCounters, type MicroService } from "../../connections/index.js";
import type { Responder } from "../bindings.js";

/** The longest name by which a responder is found; longer ones are cut. */
const maxServiceNameLength = 128;

/** Properties that all services of a process share. */
export interface ServiceOrigin {
  /** Identifier of the database, equal in all processes that answer for it. */
  readonly database: string;
  readonly version: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * A subject with the service that currently answers it.
 *
 * Subject and queue group never change, so another function can take over under the same subscription.
 */
export class Endpoint {
  readonly subject: string;
  readonly queueGroup: string;
  readonly #origin: ServiceOrigin;
  #responder: Responder;
  #counters = new EndpointCounters();
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

  /** Counters of the current service. */
  get counters(): EndpointCounters {
    return this.#counters;
  }

  /** Replaces the responder by another one of the same subject. Another function becomes a new service. */
  setResponder(responder: Responder): void {
    const isSameFunction = responder.functionName === this.#responder.functionName;
    this.#responder = responder;
    if (!isSameFunction) this.#service = this.#newService(responder);
  }

  #newService({ functionName, subject }: Responder): MicroService {
    const { version, metadata } = this.#origin;
    const name = serviceName(functionName);
    this.#counters = new EndpointCounters();
    return {
      name,
      id: nuid.next(),
      version,
      description: `The SQL function ${functionName} answers requests to ${subject}.`,
      metadata,
      startedAt: new Date(),
      endpoints: [
        { name, subject, queueGroup: this.queueGroup, metadata: { function: functionName }, counters: this.#counters },
      ],
    };
  }
}

/**
 * Name of a service: schema and name of its function, without arguments, and with `_` for characters that service names
 * may not contain. `public.answer(bytea)` → `public_answer`. Two functions may get the same name; their ids differ.
 */
export function serviceName(functionName: string): string {
  const end = functionName.lastIndexOf("(");
  const path = end === -1 ? functionName : functionName.slice(0, end);
  const name = path.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^_+|_+$/g, "");
  return name.slice(0, maxServiceNameLength) || "responder";
}

/**
 * Queue group of a responder: the same in all processes of a database, so that one of them answers each request. Databases
 * have different groups, because their functions are different services and must not share the requests.
 */
export function queueGroup(database: string, subject: string): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([database, subject]))
    .digest("hex");
  return `hawser_${hash.slice(0, 24)}`;
}
