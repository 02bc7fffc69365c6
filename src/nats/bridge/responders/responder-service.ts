/**
 * SQL functions that answer requests, as NATS micro services, over the current connection.
 *
 * - A responder is a service with one endpoint. Its queue group is the same in all processes of the database, so that
 *   one of them answers each request.
 * - A request is answered over the connection that delivered it or not at all, because another connection may lead to
 *   another account or server.
 * - A message without a reply subject, or whose reply subject belongs to NATS, is not a request. It is counted and not
 *   run, because nobody could receive the answer or the failure. Such messages are for subscriptions.
 */

import type { Msg, NatsConnection } from "@nats-io/transport-node";
import type { ServeSettings } from "../../../../generated/ts/settings/nats.js";
import { type Logger, RareLog, traceContextOf, within } from "../../../foundation/runtime/index.js";
import { interestPropagated, isAnswerable, receivedHeaders } from "../../connections/index.js";
import type { Responder } from "../bindings.js";
import { pairsOf } from "../message.js";
import { Attachment } from "./attachment.js";
import { RequestDispatcher, type ResponderLoad } from "./dispatcher.js";
import { Endpoint, type ServiceOrigin } from "./endpoint.js";
import { isForResponder, type Replies } from "./replies.js";
import { type RequestRunner, removedReply } from "./requests.js";

/** Limits of the requests that wait. Tests give others. */
export const requestQueueDefaults = {
  /** Maximum number of requests that wait for a responder; more are refused at once. */
  maxQueuedRequests: 1_000,
  /** Maximum size of all requests together that wait for a responder. */
  maxQueuedRequestBytes: 16 * 1024 * 1024,
};

/** Collaborators and limits of a {@link ResponderService}. */
export interface ResponderServiceOptions
  extends ServiceOrigin,
    Pick<ServeSettings, "responderSessions">,
    Readonly<typeof requestQueueDefaults> {
  readonly runner: RequestRunner;
  readonly logger: Logger;
  /** Maximum wait of a request in the queue, in milliseconds: the current `responder_timeout_ms`. */
  readonly responderTimeoutMs: () => number;
  /** Called after each run of a function, successful or not. */
  readonly onRun?: (responder: Responder, durationMs: number) => void;
  /** Marks a connection as used, and returns the release: `use` of a `NatsConnector`. */
  readonly use?: (connection: NatsConnection) => () => void;
}

export class ResponderService {
  readonly #origin: ServiceOrigin;
  readonly #logger: Logger;
  readonly #rareLog: RareLog;
  readonly #dispatcher: RequestDispatcher;
  readonly #use: (connection: NatsConnection) => () => void;
  /** Endpoints by subject. */
  readonly #endpoints = new Map<string, Endpoint>();
  /** Subjects whose refusal is already logged. */
  readonly #loggedRefused = new Set<string>();
  #loggedDiscoveryRefusal = false;
  /** Attachment of the current connection. */
  #attachment: Attachment | undefined;
  /** The current attachment, and earlier ones that are being released. */
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
      maxRunning: options.responderSessions,
      maxWaiting: options.maxQueuedRequests,
      maxWaitingBytes: options.maxQueuedRequestBytes,
      timeoutMs: options.responderTimeoutMs,
      logger,
      rareLog: this.#rareLog,
      onRun: options.onRun ?? (() => undefined),
    });
  }

  /**
   * Replaces the set of responders, at most one per subject. Unchanged ones continue undisturbed. Running requests of a
   * removed responder finish and are answered; its waiting requests get an error. Another function of the same subject
   * takes over the waiting requests, under the same subscription.
   *
   * Resolves when the server has processed the change, at once without a connection. Never rejects.
   */
  async configure(responders: readonly Responder[]): Promise<void> {
    if (this.#stopped !== undefined) return;
    const wanted = new Map<string, Responder>();
    // Registering permits one responder per subject. If there were two nevertheless, the oldest would answer.
    for (const responder of responders) {
      if (!wanted.has(responder.subject)) wanted.set(responder.subject, responder);
    }
    for (const [subject, endpoint] of this.#endpoints) {
      if (wanted.has(subject)) continue;
      this.#endpoints.delete(subject);
      this.#loggedRefused.delete(subject);
      this.#dispatcher.remove(endpoint);
    }
    for (const [subject, responder] of wanted) {
      const endpoint = this.#endpoints.get(subject);
      if (endpoint === undefined) this.#add(responder);
      else endpoint.setResponder(responder);
    }
    const endpoints = [...this.#endpoints.values()];
    // Attachments that are being replaced are updated too, so that requests for removed responders reach other
    // processes.
    for (const each of this.#attachments) if (each !== this.#attachment) void each.update(endpoints);
    await this.#attachment?.update(endpoints);
  }

  /**
   * Answers requests of this connection from now on. Requests of the previous connection are still answered over that
   * one, which is released only when the server has processed the new subscriptions. Resolves when it has, or when the
   * connection has closed. Never rejects.
   */
  async attach(connection: NatsConnection): Promise<void> {
    if (this.#stopped !== undefined || this.#attachment?.connection === connection) return;
    const before = this.#attachment;
    const attachment = new Attachment(connection, this.#observer(), this.#use(connection));
    this.#attachment = attachment;
    this.#attachments.add(attachment);
    await attachment.update([...this.#endpoints.values()]);
    if (before !== undefined)
      void interestPropagated(before.connection, connection).then(() => this.#endAttachment(before));
    // A subject that is permitted now is removed, so that its next refusal is logged as a warning again.
    for (const subject of this.#loggedRefused) if (!attachment.isRefused(subject)) this.#loggedRefused.delete(subject);
  }

  /**
   * Accepts no requests until the next `attach`. Accepted requests are still answered while their connection is open.
   */
  detach(): void {
    void this.#endAll();
  }

  /**
   * Accepts no more requests, and resolves when the accepted ones are answered: after the deadline by errors, while
   * their functions may still run. Answers may still be in the buffer of the connection, which must be drained before
   * it is closed.
   */
  stop(deadlineMs: number): Promise<void> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  /** Counts of each responder. */
  stats(): ResponderServiceStats {
    const isRefused = (subject: string): boolean => this.#attachment?.isRefused(subject) ?? false;
    return statsOf(this.#endpoints.values(), this.#dispatcher, isRefused);
  }

  async #stop(deadlineMs: number): Promise<void> {
    const ended = this.#endAll();
    await within(
      deadlineMs,
      ended.then(() => this.#dispatcher.idle()),
    );
    await this.#dispatcher.stop();
    this.#rareLog.end();
  }

  #add(responder: Responder): void {
    const endpoint = new Endpoint(responder, this.#origin);
    this.#endpoints.set(endpoint.subject, endpoint);
    this.#dispatcher.add(endpoint);
  }

  async #endAll(): Promise<void> {
    this.#attachment = undefined;
    await Promise.all([...this.#attachments].map((attachment) => this.#endAttachment(attachment)));
  }

  async #endAttachment(attachment: Attachment): Promise<void> {
    await attachment.end();
    this.#attachments.delete(attachment);
  }

  #observer() {
    return {
      onMessage: (subject: string, message: Msg, replies: Replies) => this.#receive(subject, message, replies),
      onRefused: (subject: string, error: Error) => {
        const level = this.#loggedRefused.has(subject) ? "debug" : "warn";
        this.#loggedRefused.add(subject);
        const text =
          "the NATS server does not permit this responder's subscription, so its requests are not answered here";
        this.#logger[level]({ subject, reason: error.name }, text);
      },
      onDiscoveryRefused: (error: Error) => {
        const level = this.#loggedDiscoveryRefusal ? "debug" : "warn";
        this.#loggedDiscoveryRefusal = true;
        const text = "the NATS server does not permit service discovery ($SRV.>); requests are answered nevertheless";
        this.#logger[level]({ reason: error.name }, text);
      },
    };
  }

  #receive(subject: string, message: Msg, replies: Replies): void {
    const endpoint = this.#endpoints.get(subject);
    const { subject: requested, reply, data } = message;
    if (!isForResponder(subject, requested)) return;
    if (endpoint === undefined) {
      // The request was sent before the server had processed the removal.
      if (isAnswerable(reply)) replies.sendError(reply, removedReply);
      return;
    }
    if (!isAnswerable(reply)) {
      endpoint.counters.ignored += 1;
      const reason = reply ? "has a reply subject of NATS itself, with $" : "has no reply subject";
      this.#rareLog.warn(`a message to a responder ${reason}, so it was not run`, subject);
      return;
    }
    const headers = receivedHeaders(message);
    const trace = headers && traceContextOf(pairsOf(headers));
    const received = { subject: requested, reply, data, headersProblem: headers?.problem, trace };
    this.#dispatcher.submit(endpoint, received, replies, () => this.#use(replies.connection));
  }
}

/** Counts of one responder since it started in this process, or its function was replaced. */
export interface ResponderStats extends ResponderLoad {
  readonly id: bigint;
  readonly subject: string;
  readonly functionName: string;
  /** Requests that were answered, including errors. */
  readonly requests: number;
  /** Requests that were answered with an error. */
  readonly errors: number;
  /** Requests that were refused because too many were waiting. */
  readonly busy: number;
  /** Requests that timed out (`responder_timeout_ms`), waiting or running. */
  readonly timedOut: number;
  /** Messages without a reply subject, or whose reply subject belongs to NATS; no function ran for them. */
  readonly ignored: number;
  /** Requests that were not answered because the connection had closed. */
  readonly dropped: number;
  /** True if the server does not permit the subscription. */
  readonly isRefused: boolean;
}

/** Counts of all responders of a process. */
export interface ResponderServiceStats {
  readonly responders: readonly ResponderStats[];
  /** Running functions, including those of removed responders. */
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
