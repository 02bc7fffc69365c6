/**
 * Dispatcher of requests: each waits in a fair queue, runs, and is answered over the connection that delivered it.
 */
import { namedRules } from "../../../generated/ts/rules/named.js";
import { DeadlineTimer, type Logger, type RareLog, type TraceContext } from "../../runtime/index.js";
import type { Responder } from "../bindings.js";
import { overheadBytes } from "../message.js";
import type { Endpoint } from "./endpoint.js";
import { FairQueue, type FairQueueLimits, type QueuedItem, type QueueLoad } from "./fair-queue.js";
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

/** Collaborators and limits of a {@link RequestDispatcher}. */
export interface DispatcherOptions {
  readonly runner: RequestRunner;
  readonly limits: FairQueueLimits;
  /** Maximum wait of a request in the queue, in milliseconds. */
  readonly timeoutMs: () => number;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** Called after each run of a function, successful or not. */
  readonly onRun: (responder: Responder, durationMs: number) => void;
}

interface PendingRequest extends QueuedItem {
  readonly endpoint: Endpoint;
  readonly request: ResponderRequest;
  readonly replies: Replies;
  readonly timeoutMs: number;
  /** Releases the connection of the request. */
  readonly release: () => void;
}

/** A received request. Its payload is a view of everything that the connection read at once. */
export interface ReceivedRequest {
  readonly subject: string;
  readonly reply: string;
  readonly data: Uint8Array;
  /** Reason why the headers cannot be read; undefined if they can. */
  readonly headersProblem?: string | undefined;
  readonly trace?: TraceContext | undefined;
}

export class RequestDispatcher {
  readonly #options: DispatcherOptions;
  readonly #queue: FairQueue<Endpoint, PendingRequest>;
  /** Abort controllers of running functions. */
  readonly #controllers = new Set<AbortController>();
  readonly #answers = new Set<Promise<void>>();
  readonly #endpoints = new Set<Endpoint>();
  /** Timer of the next deadline in the queue. */
  readonly #timer = new DeadlineTimer(() => this.#pump());
  #onIdle: (() => void) | undefined;
  #isStopped = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#queue = new FairQueue(options.limits);
  }

  /** Number of running functions. */
  get running(): number {
    return this.#queue.running;
  }

  loadOf(endpoint: Endpoint): QueueLoad {
    return this.#queue.loadOf(endpoint);
  }

  /** Starts to accept requests for an endpoint. */
  add(endpoint: Endpoint): void {
    this.#endpoints.add(endpoint);
    this.#queue.open(endpoint);
  }

  /** Stops accepting requests. Running ones continue; waiting ones get an error, because their function may be gone. */
  remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint);
    for (const pending of this.#queue.remove(endpoint)) this.#refusePending(pending, removedReply);
    this.#pump();
  }

  /** Accepts a request, or answers it with an error. @param begin marks the connection as used; returns its release */
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
      request: { subject, reply, payload: new Uint8Array(data), trace: received.trace },
      replies,
      bytes,
      timeoutMs,
      deadlineAt: performance.now() + timeoutMs,
      release: begin(),
    });
    this.#pump();
  }

  /** Resolves when no request waits or runs. */
  async idle(): Promise<void> {
    if (this.#queue.isIdle) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Answers waiting and running requests with errors, without waiting for their functions, and starts no more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const endpoint of this.#endpoints) {
      for (const pending of this.#queue.remove(endpoint)) this.#refusePending(pending, stoppingReply);
    }
    for (const controller of this.#controllers) controller.abort(new Error("the process is shutting down"));
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
      this.#refusePending(pending, waitedTooLongReply(pending.timeoutMs));
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
        await replies.backpressure();
      } else {
        // The connection has closed, so the answer could not be sent, and the function is not run.
        this.#drop(pending);
      }
    } catch (err) {
      // A defect of one request must not stop the others.
      this.#options.logger.error({ err, function: endpoint.responder.functionName }, "cannot answer a request");
    } finally {
      release();
      end();
      this.#pump();
    }
  }

  async #answer(pending: PendingRequest): Promise<void> {
    const { endpoint, request, replies } = pending;
    // Counters and responder are read before the run: the endpoint may have another function when it ends.
    const { counters, responder } = endpoint;
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

  #refusePending(pending: PendingRequest, why: ErrorReply): void {
    const { endpoint, request, replies, release } = pending;
    if (replies.isOpen) this.#refuse(endpoint, request.reply, replies, why);
    else this.#drop(pending);
    release();
  }

  #drop({ endpoint: { counters, responder, subject } }: PendingRequest): void {
    counters.dropped += 1;
    this.#options.logger.debug(
      { function: responder.functionName, subject },
      "a request's connection has closed; its answer is dropped",
    );
  }
}

function fitting(payload: Uint8Array, maxPayload: number): Uint8Array | ErrorReply {
  return payload.length <= maxPayload ? payload : tooLargeReply(payload.length, maxPayload);
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
