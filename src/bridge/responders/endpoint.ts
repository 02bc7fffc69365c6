/**
 * A subject that is answered, and the service that answers it now.
 */
import { nuid } from "@nats-io/transport-node";
import type { Responder } from "../bindings.js";
import { EndpointCounters } from "./counters.js";
import type { MicroService } from "./micro-protocol.js";
import { queueGroup, serviceName } from "./service-names.js";

/** What all services of a process have in common. */
export interface ServiceOrigin {
  /** What every process has that answers for this database, and none that answers for another one. */
  readonly database: string;
  readonly version: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** See above. Subject and queue group stay; so a function takes another one's place under the same subscription. */
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
