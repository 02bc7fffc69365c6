/**
 * The subject of a responder, and the micro service that it is.
 */
import { createHash } from "node:crypto";
import { nuid } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { EndpointCounters, type MicroService } from "../../nats/index.js";
import type { Responder } from "../bindings.js";

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

  /** Those of the service. */
  get counters(): EndpointCounters {
    return this.#counters;
  }

  /** Answers by this responder from now on, which has the same subject. Another function is another service. */
  become(responder: Responder): void {
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
