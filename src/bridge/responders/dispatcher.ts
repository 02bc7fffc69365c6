/**
 * Runs requests: each waits for its turn, runs, and is answered over the connection that it came by.
 */
import { namedRules } from "../../../generated/ts/rules/named.js";
import { DeadlineTimer, type Logger, type RareLog } from "../../runtime/index.js";
import type { Responder } from "../bindings.js";
import { overheadBytes } from "../message.js";
import type { Endpoint } from "./endpoint.js";
import { FairQueue, type FairQueueLimits, type QueueLoad, type Waiting } from "./fair-queue.js";
import type { Replies } from "./replies.js";
import {
  busyReply,
  defectReply,
  type ErrorReply,
  failureReply,
  interruptedReply,
  type RequestRunner,
  type ResponderRequest,
  removedReply,
  stoppingReply,
  tooLargeReply,
  unreadableReply,
  waitedTooLongReply,
} from "./requests.js";

/** What a dispatcher is made with. */
export interface DispatcherOptions {
  readonly runner: RequestRunner;
  readonly limits: FairQueueLimits;
  /** How long a request may wait for its turn, in milliseconds. */
  readonly timeoutMs: () => number;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** A function was run, however it ended. */
  readonly onRun: (responder: Responder, durationMs: number) => void;
}

interface PendingRequest extends Waiting {
  readonly endpoint: Endpoint;
  readonly request: ResponderRequest;
  readonly replies: Replies;
  readonly timeoutMs: number;
  /** Says that the request needs its connection no more. */
  readonly release: () => void;
}

/** A request as it was received. Its payload is a view of all that the connection has read at once. */
export interface ReceivedRequest {
  readonly subject: string;
  readonly reply: string;
  readonly data: Uint8Array;
  /** Why its headers cannot be read. */
  readonly headersProblem?: string | undefined;
}

/** The requests of all responders: which wait, which run, and how each is answered. */
export class RequestDispatcher {
  readonly #options: DispatcherOptions;
  readonly #queue: FairQueue<Endpoint, PendingRequest>;
  /** Those of the functions that run. */
  readonly #controllers = new Set<AbortController>();
  readonly #answers = new Set<Promise<void>>();
  readonly #endpoints = new Set<Endpoint>();
  /** Of the first request that has waited too long. */
  readonly #timer = new DeadlineTimer(() => this.#pump());
  #onIdle: (() => void) | undefined;
  #isStopped = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#queue = new FairQueue(options.limits);
  }

  /** Functions that run. */
  get running(): number {
    return this.#queue.running;
  }

  loadOf(endpoint: Endpoint): QueueLoad {
    return this.#queue.loadOf(endpoint);
  }

  /** Requests to the endpoint are run from now on. */
  add(endpoint: Endpoint): void {
    this.#endpoints.add(endpoint);
    this.#queue.open(endpoint);
  }

  /** What runs for the endpoint goes on; what waits is answered by an error: its function may be gone. */
  remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint);
    for (const pending of this.#queue.remove(endpoint)) this.#dismiss(pending, removedReply);
    this.#pump();
  }

  /** Takes a request. @param begin says that something is under way, and returns what says that it has ended */
  submit(endpoint: Endpoint, received: ReceivedRequest, replies: Replies, begin: () => () => void): void {
    const { subject, reply, data } = received;
    const bytes = data.length + 2 * (subject.length + reply.length) + overheadBytes;
    const refusal =
      this.#refusal(endpoint, bytes) ??
      (received.headersProblem === undefined ? undefined : unreadableReply(received.headersProblem));
    if (refusal !== undefined) {
      this.#refuse(endpoint, reply, replies, refusal);
      return;
    }
    const timeoutMs = this.#options.timeoutMs();
    this.#queue.push(endpoint, {
      endpoint,
      request: { subject, reply, payload: new Uint8Array(data) },
      replies,
      bytes,
      timeoutMs,
      deadlineAt: performance.now() + timeoutMs,
      release: begin(),
    });
    this.#pump();
  }

  /** Resolves when nothing waits and nothing runs. */
  async idle(): Promise<void> {
    if (this.#queue.isIdle) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Answers by errors what waits and what runs, which is aborted, and runs nothing any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const endpoint of this.#endpoints) {
      for (const pending of this.#queue.remove(endpoint)) this.#dismiss(pending, stoppingReply);
    }
    for (const controller of this.#controllers) controller.abort(new Error("the process stops"));
    this.#pump();
    await Promise.all(this.#answers);
  }

  #refusal(endpoint: Endpoint, bytes: number): ErrorReply | undefined {
    if (this.#isStopped) return stoppingReply;
    if (!this.#endpoints.has(endpoint)) return removedReply;
    return this.#queue.hasRoom(endpoint, bytes) ? undefined : busyReply;
  }

  #pump(): void {
    for (const pending of this.#queue.expire(performance.now())) {
      this.#dismiss(pending, waitedTooLongReply(pending.timeoutMs));
    }
    for (let turn = this.#queue.next(); turn !== undefined; turn = this.#queue.next()) {
      void this.#run(turn.item, turn.end);
    }
    const { nextDeadline } = this.#queue;
    if (nextDeadline === undefined) this.#timer.stop();
    else this.#timer.arm(nextDeadline);
    if (this.#queue.isIdle) this.#onIdle?.();
  }

  async #run(pending: PendingRequest, end: () => void): Promise<void> {
    const { endpoint, replies, release } = pending;
    try {
      if (replies.isOpen) {
        const answer = this.#answer(pending);
        this.#answers.add(answer);
        await answer.finally(() => this.#answers.delete(answer));
        await replies.room();
      } else {
        // The answer could not be sent; the requester asks again.
        this.#drop(pending);
      }
    } catch (err) {
      // The other requests go on.
      this.#options.logger.error({ err, function: endpoint.responder.functionName }, "a request could not be answered");
    } finally {
      release();
      end();
      this.#pump();
    }
  }

  async #answer(pending: PendingRequest): Promise<void> {
    const { endpoint, request, replies } = pending;
    // Read now: the endpoint may have another function by the time this one has ended.
    const { counters } = endpoint;
    const { responder } = endpoint;
    const startedAt = performance.now();
    const outcome = await this.#outcome(endpoint, request);
    const durationMs = performance.now() - startedAt;
    counters.ran(durationMs);
    this.#options.onRun(responder, durationMs);
    const answer = outcome instanceof Uint8Array ? fitting(outcome, replies.maxPayload) : outcome;
    if (answer instanceof Uint8Array) {
      if (replies.send(request.reply, answer)) counters.answered();
      else this.#drop(pending);
      return;
    }
    this.#options.rareLog.warn(
      "a responder's function failed",
      `${responder.functionName} on ${endpoint.subject}: ${answer.summary}`,
    );
    if (replies.sendError(request.reply, answer)) counters.failed(answer.status, answer.summary);
    else this.#drop(pending);
  }

  async #outcome({ responder }: Endpoint, request: ResponderRequest): Promise<Uint8Array | ErrorReply> {
    const controller = new AbortController();
    const { signal } = controller;
    this.#controllers.add(controller);
    try {
      const outcome = await Promise.race([this.#options.runner.run(responder, request, signal), aborted(signal)]);
      if (outcome.kind === "removed") return removedReply;
      if (outcome.kind === "too_large") return tooLargeReply(outcome.bytes, namedRules.natsPayload.maxBytes);
      return outcome.kind === "answer" ? outcome.payload : failureReply(outcome);
    } catch (error) {
      if (signal.aborted) return interruptedReply;
      this.#options.logger.error(
        { err: error, function: responder.functionName },
        "running a responder's function failed",
      );
      return defectReply;
    } finally {
      this.#controllers.delete(controller);
    }
  }

  #refuse(endpoint: Endpoint, reply: string, replies: Replies, refusal: ErrorReply): void {
    const { counters } = endpoint;
    const { status, summary } = refusal;
    counters.failed(status, summary);
    if (refusal === busyReply) counters.busy += 1;
    this.#options.rareLog.warn(
      "a request was not run",
      `${endpoint.responder.functionName} on ${endpoint.subject}: ${summary}`,
    );
    replies.sendError(reply, refusal);
  }

  #dismiss(pending: PendingRequest, why: ErrorReply): void {
    const { endpoint, request, replies, release } = pending;
    if (replies.isOpen) this.#refuse(endpoint, request.reply, replies, why);
    else this.#drop(pending);
    release();
  }

  #drop({ endpoint: { counters, responder, subject } }: PendingRequest): void {
    counters.dropped += 1;
    this.#options.logger.debug(
      { function: responder.functionName, subject },
      "a request's connection has ended: no answer",
    );
  }
}

function fitting(payload: Uint8Array, maxPayload: number): Uint8Array | ErrorReply {
  return payload.length <= maxPayload ? payload : tooLargeReply(payload.length, maxPayload);
}

/** Rejects when the signal is aborted. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
