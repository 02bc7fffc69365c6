/** Request of a caller: one object and one promise from the call to the answer, even if several listeners are tried. */

import type { Request } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { ReceivedContent } from "../../../foundation/payloads/index.js";
import type { Headers } from "../../channel/index.js";
import { type Content, type MessageHeaders, ReceivedHeaders } from "../../handlers/content.js";
import type { RequestOutcome } from "../../worker/counters.js";
import { type FrameHeaders, frameHeaders } from "../core/frame-headers.js";
import { type MessageTopic, onAbort } from "./outgoing.js";

/** Answer to a request. */
export interface Answer extends Content {
  readonly headers: MessageHeaders;
  /** Name of the listener that answered. */
  readonly peer: string;
}

/** {@link Answer} from a frame. */
export class ReceivedAnswer extends ReceivedContent implements Answer {
  readonly headers: MessageHeaders;
  readonly peer: string;

  constructor(payload: Uint8Array, headers: Headers, peer: string) {
    super(payload);
    this.headers = new ReceivedHeaders(headers);
    this.peer = peer;
  }
}

/** Requests of the listener that was tried last. */
interface RequestQueue {
  readonly listenerName: string;
  /** Removes a request whose caller no longer waits. */
  abandon(request: OutgoingRequest): void;
}

/** Sending side that a request belongs to. */
interface RequestSender {
  /**
   * Sends the request to another listener, after one that did not start the handler or, once, after a lost connection.
   */
  tryNext(request: OutgoingRequest): void;
  /** Called when the request is over. */
  requestEnded(request: OutgoingRequest, outcome: RequestOutcome): void;
}

/** Request of a caller. The frame encoder reads it directly: its first fields are the fields of the frame. */
export class OutgoingRequest implements Request {
  /** Number of the request on its connection; 0 until the request is written to the current listener. */
  id = 0;
  topicId = 0;
  /** Remaining wait of the caller in ms, updated when the request is written. */
  timeoutMs: number;
  readonly maxAnswerBytes: number;
  readonly payload: Uint8Array;
  headers: FrameHeaders;

  readonly answer: Promise<Answer>;
  /** Time at which the caller stops waiting (`performance.now()`, ms). */
  readonly until: number;
  /** Name of the topic. */
  readonly to: string;
  /** Topic of the request; undefined until a listener is tried. */
  topic: MessageTopic | undefined = undefined;
  /** Names of the listeners that did not accept the request. */
  refusedBy: ReadonlySet<string> = noNames;
  /** Error of the last listener that did not accept the request. */
  failure: HawserError | undefined = undefined;
  /** Error of a lost listener that may have handled the request. */
  #lost: HawserError | undefined = undefined;
  #requests: RequestQueue | undefined = undefined;
  /** True after the answer or an error. */
  isOver = false;
  #unlisten: (() => void) | undefined = undefined;
  #resolve!: (answer: Answer | PromiseLike<never>) => void;

  readonly #limitMs: number;
  readonly #isIdempotent: boolean;
  readonly #sender: RequestSender;

  /**
   * @param isIdempotent true to try one other listener after a connection that ended before the answer
   */
  constructor(
    to: string,
    payload: Uint8Array,
    headers: Headers | undefined,
    maxAnswerBytes: number,
    limitMs: number,
    isIdempotent: boolean,
    sender: RequestSender,
  ) {
    this.to = to;
    this.payload = payload;
    this.headers = headers === undefined ? noHeaders : frameHeaders(headers);
    this.maxAnswerBytes = maxAnswerBytes;
    this.timeoutMs = limitMs;
    this.until = performance.now() + limitMs;
    this.#limitMs = limitMs;
    this.#isIdempotent = isIdempotent;
    this.#sender = sender;
    // An executor that only stores `resolve` is cheaper: `reject` is not captured.
    this.answer = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Fails the request when the signal is aborted. */
  abortOn(signal: AbortSignal): void {
    this.#unlisten = onAbort(signal, () =>
      this.#abandon("aborted", "waiting for the answer was aborted", { cause: signal.reason }),
    );
  }

  /** Fails the request at its deadline. */
  timeOut(): void {
    this.#abandon("request_timeout", `no answer within ${this.#limitMs} ms`, {});
  }

  /** Sets the listener that is tried now. */
  sentTo(requests: RequestQueue, topic: MessageTopic): void {
    this.#requests = requests;
    this.topic = topic;
    this.id = 0;
  }

  /** Resolves with the answer of the listener. */
  answered(answer: Answer): void {
    this.#end("answered");
    this.#resolve(answer);
  }

  /**
   * Handles an error of the listener, a refusal, or a lost connection: fails the request, or tries the next listener.
   */
  failed(error: HawserError): void {
    const isLost = this.#isIdempotent && this.#lost === undefined && error.code === "listener_lost";
    if (!isLost && (error.outcome !== undefined || !notStartedCodes.has(error.code))) {
      this.fail(error);
      return;
    }
    if (isLost) this.#lost = error;
    this.failure = error;
    this.refusedBy = new Set([...this.refusedBy, this.#requests!.listenerName]);
    this.#requests = undefined;
    // Deferred, because the listener may be failing many requests in a loop.
    queueMicrotask(() => this.isOver || this.#sender.tryNext(this));
  }

  /** Rejects the promise. If a listener may have started the handler, the error has the outcome `unknown`. */
  fail(error: HawserError): void {
    const lost = this.#lost;
    const failure = lost === undefined || error.outcome === "unknown" ? error : lostThenRefused(lost, error);
    this.#end(outcomeOf(failure));
    this.#resolve(Promise.reject(failure));
  }

  #abandon(code: "request_timeout" | "aborted", why: string, cause: object): void {
    if (this.isOver) return;
    const mayHaveBegun = this.#lost !== undefined || this.id > 0;
    this.#requests?.abandon(this);
    const text = `${why}${mayHaveBegun ? "; the request may still be handled" : "; it was not sent yet"}`;
    this.fail(new HawserError(code, text, mayHaveBegun ? { ...cause, outcome: "unknown" } : cause));
  }

  #end(outcome: RequestOutcome): void {
    this.isOver = true;
    this.#unlisten?.();
    this.#sender.requestEnded(this, outcome);
  }
}

const noNames: ReadonlySet<string> = new Set();

const noHeaders: FrameHeaders = [];

/** Error codes of requests whose handler was not started, so that another listener can be tried. */
const notStartedCodes: ReadonlySet<string> = new Set([
  "unreachable",
  "busy",
  "unsubscribed",
  "not_running",
  "store_failed",
  "not_supported",
]);

/** Outcome of a failed request for the metrics. */
function outcomeOf({ code, outcome }: HawserError): RequestOutcome {
  if (code === "request_timeout") return "timed_out";
  if (code === "aborted") return "aborted";
  if (code === "listener_lost") return "lost";
  return outcome === undefined && (code === "no_listener" || notStartedCodes.has(code)) ? "unreachable" : "failed";
}

/** Error of a request that a lost listener may have handled and no other listener accepted. */
function lostThenRefused(lost: HawserError, failed: HawserError): HawserError {
  const text = `${lost.message}; no other listener accepted the request: ${failed.message}`;
  return new HawserError("listener_lost", text, { outcome: "unknown", cause: failed });
}
