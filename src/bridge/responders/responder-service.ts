/**
 * SQL functions that answer requests, as micro services of NATS, over whatever connection there is now.
 *
 * - A responder is a service with one endpoint. Its queue group is the same in every process that answers for the
 *   database, so that one of them answers each request.
 * - A request is answered over the connection that it came by, or not at all: another one may lead elsewhere.
 * - A message without a reply subject is no request. It is counted and not run: there is no one to answer, and no one to
 *   tell of a failure. Subscriptions are for such messages.
 */

import type { Msg, NatsConnection } from "@nats-io/transport-node";
import type { BridgeConstants, ServeSettings } from "../../../generated/ts/settings/nats.js";
import { isAnswerable, receivedHeaders, takenOver } from "../../nats/index.js";
import { type Logger, RareLog, within } from "../../runtime/index.js";
import type { Responder } from "../bindings.js";
import { Attachment } from "./attachment.js";
import { RequestDispatcher } from "./dispatcher.js";
import { Endpoint, type ServiceOrigin } from "./endpoint.js";
import type { QueueLoad } from "./fair-queue.js";
import { isMeant, type Replies } from "./replies.js";
import { type RequestRunner, removedReply } from "./requests.js";

/** How the service is made. */
export interface ResponderServiceOptions
  extends ServiceOrigin,
    Pick<ServeSettings, "responderSessions">,
    Pick<BridgeConstants, "maxQueuedRequests" | "maxQueuedRequestBytes"> {
  readonly runner: RequestRunner;
  readonly logger: Logger;
  /** How long a request may wait for its turn, in milliseconds: `responder_timeout_ms` of now. */
  readonly responderTimeoutMs: () => number;
  /** A function was run, however it ended. */
  readonly onRun?: (responder: Responder, durationMs: number) => void;
  /** Says that a connection is in use, and returns what says that it is no more: `use` of a `NatsConnector`. */
  readonly use?: (connection: NatsConnection) => () => void;
}

export class ResponderService {
  readonly #origin: ServiceOrigin;
  readonly #logger: Logger;
  readonly #rareLog: RareLog;
  readonly #dispatcher: RequestDispatcher;
  readonly #use: (connection: NatsConnection) => () => void;
  /** By subject. */
  readonly #endpoints = new Map<string, Endpoint>();
  /** Subjects whose refusal was logged. */
  readonly #toldRefused = new Set<string>();
  #isDiscoveryRefusalTold = false;
  /** That of the present connection. */
  #attachment: Attachment | undefined;
  /** That one, and earlier ones that are still being left. */
  readonly #attachments = new Set<Attachment>();
  #stopped: Promise<void> | undefined;

  constructor(options: ResponderServiceOptions) {
    const { runner, logger, database, version, metadata } = options;
    this.#origin = { database, version, metadata };
    this.#logger = logger;
    this.#rareLog = new RareLog(logger, "responders");
    this.#use = options.use ?? (() => () => undefined);
    this.#dispatcher = new RequestDispatcher({
      runner,
      limits: {
        maxRunning: options.responderSessions,
        maxWaiting: options.maxQueuedRequests,
        maxWaitingBytes: options.maxQueuedRequestBytes,
      },
      timeoutMs: options.responderTimeoutMs,
      logger,
      rareLog: this.#rareLog,
      onRun: options.onRun ?? (() => undefined),
    });
  }

  /**
   * These are the responders from now on, at most one for each subject. Those that stay go on undisturbed. What runs for
   * a removed one ends and is answered; what waits for it is answered by an error. Another function for the same subject
   * takes over what waits, under the same subscription.
   *
   * @returns when the server has taken it, if there is a connection; never rejects
   */
  async configure(responders: readonly Responder[]): Promise<void> {
    if (this.#stopped !== undefined) return;
    const wanted = new Map<string, Responder>();
    // The oldest one has the subject, should there ever be two.
    for (const responder of responders) {
      if (!wanted.has(responder.subject)) wanted.set(responder.subject, responder);
    }
    for (const [subject, endpoint] of this.#endpoints) {
      if (wanted.has(subject)) continue;
      this.#endpoints.delete(subject);
      this.#toldRefused.delete(subject);
      this.#dispatcher.remove(endpoint);
    }
    for (const [subject, responder] of wanted) {
      const endpoint = this.#endpoints.get(subject);
      if (endpoint === undefined) this.#add(responder);
      else endpoint.become(responder);
    }
    const endpoints = [...this.#endpoints.values()];
    // Also where another connection takes over: requests for what is removed are for other processes.
    for (const each of this.#attachments) if (each !== this.#attachment) void each.update(endpoints);
    await this.#attachment?.update(endpoints);
  }

  /**
   * Answers over this connection from now on; what came by the one before is still answered over that. The one before
   * is left only when the server has taken the new subscriptions.
   *
   * @returns when it has, or the connection has ended; never rejects
   */
  async attach(connection: NatsConnection): Promise<void> {
    if (this.#stopped !== undefined || this.#attachment?.connection === connection) return;
    const before = this.#attachment;
    const attachment = new Attachment(connection, this.#observer(), this.#use(connection));
    this.#attachment = attachment;
    this.#attachments.add(attachment);
    await attachment.update([...this.#endpoints.values()]);
    if (before !== undefined) void takenOver(before.connection, connection).then(() => this.#leave(before));
    // The next refusal is logged as a warning again.
    for (const subject of this.#toldRefused) if (!attachment.isRefused(subject)) this.#toldRefused.delete(subject);
  }

  /** Takes no requests until the next `attach`. What has come is still answered, if its connection lives. */
  detach(): void {
    void this.#leaveAll();
  }

  /**
   * Takes no new requests, and resolves when those that have come are answered; after the deadline those that are left
   * are answered by errors, and their functions aborted. Answers are handed to the connection: drain it before it is
   * closed.
   */
  stop(deadlineMs: number): Promise<void> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  /** What is counted, of each responder. */
  stats(): ResponderServiceStats {
    const isRefused = (subject: string): boolean => this.#attachment?.isRefused(subject) ?? false;
    return statsOf(this.#endpoints.values(), this.#dispatcher, isRefused);
  }

  async #stop(deadlineMs: number): Promise<void> {
    const left = this.#leaveAll();
    await within(
      deadlineMs,
      left.then(() => this.#dispatcher.idle()),
    );
    await this.#dispatcher.stop();
    this.#rareLog.end();
  }

  #add(responder: Responder): void {
    const endpoint = new Endpoint(responder, this.#origin);
    this.#endpoints.set(endpoint.subject, endpoint);
    this.#dispatcher.add(endpoint);
  }

  async #leaveAll(): Promise<void> {
    this.#attachment = undefined;
    await Promise.all([...this.#attachments].map((attachment) => this.#leave(attachment)));
  }

  async #leave(attachment: Attachment): Promise<void> {
    await attachment.leave();
    this.#attachments.delete(attachment);
  }

  #observer() {
    return {
      onMessage: (subject: string, message: Msg, replies: Replies) => this.#receive(subject, message, replies),
      onRefused: (subject: string, error: Error) => {
        const isTold = this.#toldRefused.has(subject);
        this.#toldRefused.add(subject);
        const words = "NATS does not let this responder subscribe: its requests are not answered here";
        this.#logger[isTold ? "debug" : "warn"]({ subject, reason: error.name }, words);
      },
      onDiscoveryRefused: (error: Error) => {
        const level = this.#isDiscoveryRefusalTold ? "debug" : "warn";
        this.#isDiscoveryRefusalTold = true;
        const words = "NATS does not let responders be found ($SRV.>); requests are answered all the same";
        this.#logger[level]({ reason: error.name }, words);
      },
    };
  }

  #receive(subject: string, message: Msg, replies: Replies): void {
    const endpoint = this.#endpoints.get(subject);
    const { subject: requested, reply, data } = message;
    if (!isMeant(subject, requested)) return;
    if (endpoint === undefined) {
      // Sent before the server knew that it was removed.
      if (isAnswerable(reply)) replies.sendError(reply, removedReply);
      return;
    }
    if (!isAnswerable(reply)) {
      endpoint.counters.ignored += 1;
      const words = reply ? "has a reply subject of NATS's own, with $" : "has no reply subject";
      this.#rareLog.warn(`a message to a responder ${words}: it was not run`, subject);
      return;
    }
    const headersProblem = receivedHeaders(message)?.problem;
    const received = { subject: requested, reply, data, headersProblem };
    this.#dispatcher.submit(endpoint, received, replies, () => this.#use(replies.connection));
  }
}

/** What is counted of one responder. Numbers are since it began in this process, or its function was replaced by another one. */
export interface ResponderStats extends QueueLoad {
  readonly id: bigint;
  readonly subject: string;
  readonly functionName: string;
  /** Answered, also by an error. */
  readonly requests: number;
  /** Of those: by an error. */
  readonly errors: number;
  /** Of those: refused because too many were waiting. */
  readonly busy: number;
  /** Of those: out of time (`responder_timeout_ms`), waiting or running. */
  readonly timedOut: number;
  /** Messages without a reply subject. */
  readonly ignored: number;
  /** Not answered: the connection had ended. */
  readonly dropped: number;
  /** The server does not permit the subscription. */
  readonly isRefused: boolean;
}

/** What is counted of all responders of a process. */
export interface ResponderServiceStats {
  readonly responders: readonly ResponderStats[];
  /** Functions that run, also of responders that were removed. */
  readonly running: number;
}

function statsOf(
  endpoints: Iterable<Endpoint>,
  dispatcher: RequestDispatcher,
  isRefused: (subject: string) => boolean,
): ResponderServiceStats {
  const responders = [...endpoints].map((endpoint) => {
    const { subject, responder, counters } = endpoint;
    const { requests, errors, busy, timedOut, ignored, dropped } = counters;
    return {
      ...{ id: responder.id, subject, functionName: responder.functionName, isRefused: isRefused(subject) },
      ...{ requests, errors, busy, timedOut, ignored, dropped },
      ...dispatcher.loadOf(endpoint),
    };
  });
  return { responders, running: dispatcher.running };
}
