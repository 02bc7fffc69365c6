/**
 * Dispatcher of requests: each waits for a slot, runs, and is answered over the connection that delivered it.
 *
 * Requests of one responder run in their order, and responders take turns. A slow responder must not hold all slots
 * while others wait. So a responder that already runs requests starts another one only if afterwards it holds at most
 * twice as many slots as are free; a responder without running requests may always take a free slot. If there is only
 * one responder, it may use all slots.
 */
import { setMaxListeners } from "node:events";
import { namedRules } from "../../../../generated/ts/rules/named.js";
import {
  type Logger,
  type RareLog,
  Semaphore,
  type TraceContext,
  unlessAborted,
} from "../../../foundation/runtime/index.js";
import type { Responder } from "../bindings.js";
import { overheadBytes } from "../message.js";
import type { Endpoint } from "./endpoint.js";
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
  /** Maximum number of running functions. */
  readonly maxRunning: number;
  /** Maximum number of waiting requests of a responder. */
  readonly maxWaiting: number;
  /** Maximum size of the waiting requests of a responder; one request always fits. */
  readonly maxWaitingBytes: number;
  /** Maximum wait of a request, in milliseconds. */
  readonly timeoutMs: () => number;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** Called after each run of a function, successful or not. */
  readonly onRun: (responder: Responder, durationMs: number) => void;
}

/** Waiting and running requests of a responder. */
export interface ResponderLoad {
  readonly waiting: number;
  readonly waitingBytes: number;
  readonly running: number;
}

interface PendingRequest {
  readonly endpoint: Endpoint;
  readonly request: ResponderRequest;
  readonly replies: Replies;
  readonly bytes: number;
}

/** Requests of an endpoint that wait for a slot. */
interface WaitingRequests {
  /** Functions that answer a request with an error instead of running it. */
  readonly refusals: Set<(reply: ErrorReply) => void>;
  bytes: number;
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
  /** Slots of running functions. */
  readonly #slots: Semaphore;
  /** Waiting requests of the endpoints that accept requests. */
  readonly #waiting = new Map<Endpoint, WaitingRequests>();
  /** Requests that wait, run, or are answered while the server does not read. */
  readonly #requests = new Set<Promise<void>>();
  readonly #answers = new Set<Promise<void>>();
  /** Aborted by {@link stop}. */
  readonly #stopping = new AbortController();

  constructor(options: DispatcherOptions) {
    this.#options = options;
    // Each running function adds one.
    setMaxListeners(0, this.#stopping.signal);
    this.#slots = new Semaphore(
      options.maxRunning,
      (held, free) => held === 1 || this.#waiting.size === 1 || held <= 2 * (free - 1),
    );
  }

  /** Number of occupied slots, including those of removed endpoints. */
  get running(): number {
    return this.#slots.acquired;
  }

  loadOf(endpoint: Endpoint): ResponderLoad {
    const waiting = this.#waiting.get(endpoint);
    return {
      waiting: waiting?.refusals.size ?? 0,
      waitingBytes: waiting?.bytes ?? 0,
      running: this.#slots.acquiredBy(endpoint),
    };
  }

  /** Starts to accept requests for an endpoint. */
  add(endpoint: Endpoint): void {
    this.#waiting.set(endpoint, { refusals: new Set(), bytes: 0 });
  }

  /**
   * Stops accepting requests. Running ones continue; waiting ones get an error, by default because their function may be
   * gone.
   */
  remove(endpoint: Endpoint, reply = removedReply): void {
    const waiting = this.#waiting.get(endpoint);
    this.#waiting.delete(endpoint);
    for (const refuse of waiting?.refusals ?? []) refuse(reply);
    this.#slots.admit();
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
    const request = { subject, reply, payload: new Uint8Array(data), trace: received.trace };
    const release = begin();
    const handled = this.#handle({ endpoint, request, replies, bytes }).finally(() => {
      release();
      this.#requests.delete(handled);
    });
    this.#requests.add(handled);
  }

  /** Resolves when the requests that were accepted neither wait nor run. */
  async idle(): Promise<void> {
    await Promise.all(this.#requests);
  }

  /** Answers waiting and running requests with errors, without waiting for their functions, and starts no more. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const endpoint of this.#waiting.keys()) this.remove(endpoint, stoppingReply);
    await Promise.all(this.#answers);
  }

  #refusal(endpoint: Endpoint, bytes: number): ErrorReply | undefined {
    if (this.#stopping.signal.aborted) return stoppingReply;
    const waiting = this.#waiting.get(endpoint);
    if (waiting === undefined) return removedReply;
    const { maxWaiting, maxWaitingBytes } = this.#options;
    const hasRoom = waiting.refusals.size < maxWaiting && waiting.bytes + bytes <= maxWaitingBytes;
    return hasRoom || waiting.refusals.size === 0 ? undefined : busyReply;
  }

  async #handle(pending: PendingRequest): Promise<void> {
    const { endpoint, replies } = pending;
    if (!this.#slots.tryAcquire(1, endpoint) && !(await this.#waitForSlot(pending))) return;
    try {
      if (replies.isOpen) {
        const answer = this.#answer(pending);
        this.#answers.add(answer);
        await answer.finally(() => this.#answers.delete(answer));
        await replies.backpressure();
      } else {
        // The connection has closed, so the answer could not be sent, and the function is not run.
        this.#drop(endpoint);
      }
    } catch (err) {
      // A defect of one request must not stop the others.
      this.#options.logger.error({ err, function: endpoint.responder.functionName }, "cannot answer a request");
    } finally {
      this.#slots.release(1, endpoint);
    }
  }

  /** Waits for a slot. Returns false if the request was answered by an error meanwhile. */
  async #waitForSlot({ endpoint, request, replies, bytes }: PendingRequest): Promise<boolean> {
    const waiting = this.#waiting.get(endpoint)!;
    const timeoutMs = this.#options.timeoutMs();
    const refused = new AbortController();
    const refuse = (reply: ErrorReply): void => {
      refused.abort();
      if (replies.isOpen) this.#refuse(endpoint, request.reply, replies, reply);
      else this.#drop(endpoint);
    };
    const timer = setTimeout(refuse, timeoutMs, waitedTooLongReply(timeoutMs));
    waiting.refusals.add(refuse);
    waiting.bytes += bytes;
    const hasSlot = await this.#slots.acquire(1, refused.signal, endpoint).then(
      () => true,
      () => false,
    );
    clearTimeout(timer);
    waiting.refusals.delete(refuse);
    waiting.bytes -= bytes;
    if (!refused.signal.aborted) return true;
    // The request was refused just after it got the slot.
    if (hasSlot) this.#slots.release(1, endpoint);
    return false;
  }

  async #answer({ endpoint, request, replies }: PendingRequest): Promise<void> {
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
      else this.#drop(endpoint);
      return;
    }
    this.#options.rareLog.warn(
      "a responder's function failed",
      `${responder.functionName} on ${endpoint.subject}: ${answer.summary}`,
    );
    if (replies.sendError(request.reply, answer)) counters.failed(answer.status, answer.summary);
    else this.#drop(endpoint);
  }

  async #outcome({ responder }: Endpoint, request: ResponderRequest): Promise<Uint8Array | ErrorReply> {
    const { signal } = this.#stopping;
    try {
      const outcome = await unlessAborted(this.#options.runner.run(responder, request), signal);
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

  #drop({ counters, responder, subject }: Endpoint): void {
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
