/** A request on its way: one object, and one promise, from its caller to the answer, however many listeners are asked. */
import type { Headers } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import { jsonOf, textOf } from "../typed/index.js";
import type { Request } from "../wire/index.js";
import { type Content, type MessageHeaders, ReceivedHeaders } from "./content.js";
import { type FrameHeaders, frameHeaders } from "./frame-headers.js";
import { type MessageTopic, onAbort } from "./outgoing.js";

/** The answer to a request. */
export interface Answer extends Content {
  readonly headers: MessageHeaders;
  /** Name of the listener that answered. */
  readonly peer: string;
}

/** An {@link Answer} as it came. */
export class ReceivedAnswer implements Answer {
  readonly payload: Uint8Array;
  readonly headers: MessageHeaders;
  readonly peer: string;

  constructor(payload: Uint8Array, headers: Headers, peer: string) {
    this.payload = payload;
    this.headers = new ReceivedHeaders(headers);
    this.peer = peer;
  }

  text(): string {
    return textOf(this.payload);
  }

  json<T>(): T {
    return jsonOf<T>(this.payload);
  }
}

/** The requests to one listener. */
interface Asked {
  readonly listenerName: string;
  /** Nobody waits for the answer to the request any more. */
  leave(request: OutgoingRequest): void;
}

/** A caller's request. It is written as it is: its first fields are those of the frame. */
export class OutgoingRequest implements Request {
  /** 0: it was not written yet to the listener that is asked. */
  id = 0;
  topicKey = 0;
  /** Rest of the caller's wait when the request is written, in ms. */
  timeoutMs: number;
  readonly maxAnswerBytes: number;
  readonly payload: Uint8Array;
  headers: FrameHeaders;

  readonly answer: Promise<Answer>;
  /** When the caller waits no more, as `performance.now()` has it. */
  readonly until: number;
  /** Its topic, since a listener was asked. */
  topic: MessageTopic | undefined = undefined;
  /** The listeners that have not taken it. */
  refusedBy: ReadonlySet<string> = nobody;
  /** Why the last of them has not. */
  failure: HawserError | undefined = undefined;
  /** Why a listener is lost that may have handled it. */
  #lost: HawserError | undefined = undefined;
  #asked: Asked | undefined = undefined;
  /** Nobody waits for the answer any more, or there is one. */
  isOver = false;
  #unlisten: (() => void) | undefined = undefined;
  #resolve!: (answer: Answer | PromiseLike<never>) => void;

  readonly #limitMs: number;
  readonly #isIdempotent: boolean;
  readonly #askNext: (request: OutgoingRequest) => void;

  /**
   * @param isIdempotent after a connection that ended before the answer came, one other listener is asked
   * @param askNext asks another listener, after one that has surely not begun or, once, is lost
   */
  constructor(
    payload: Uint8Array,
    headers: Headers | undefined,
    maxAnswerBytes: number,
    limitMs: number,
    isIdempotent: boolean,
    askNext: (request: OutgoingRequest) => void,
  ) {
    this.payload = payload;
    this.headers = headers === undefined ? noHeaders : frameHeaders(headers);
    this.maxAnswerBytes = maxAnswerBytes;
    this.timeoutMs = limitMs;
    this.until = performance.now() + limitMs;
    this.#limitMs = limitMs;
    this.#isIdempotent = isIdempotent;
    this.#askNext = askNext;
    // Written so, the compiler leaves out what is not used of it.
    this.answer = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** The caller waits no more when the signal is aborted. */
  endWith(signal: AbortSignal): void {
    this.#unlisten = onAbort(signal, () =>
      this.#leave("aborted", "the wait for the answer was aborted", { cause: signal.reason }),
    );
  }

  /** The caller's time is over. */
  timeOut(): void {
    this.#leave("request_timeout", `no answer came within ${this.#limitMs} ms`, {});
  }

  /** A listener is asked from now on. */
  askedOf(asked: Asked, topic: MessageTopic): void {
    this.#asked = asked;
    this.topic = topic;
    this.id = 0;
  }

  /** The listener has answered. */
  answered(answer: Answer): void {
    this.#end();
    this.#resolve(answer);
  }

  /** The listener has not taken it, has answered with an error, or is lost. */
  failed(error: HawserError): void {
    const isLost = this.#isIdempotent && this.#lost === undefined && error.code === "listener_lost";
    if (!isLost && (error.outcome !== undefined || !notBegun.has(error.code))) {
      this.fail(error);
      return;
    }
    if (isLost) this.#lost = error;
    this.failure = error;
    this.refusedBy = new Set([...this.refusedBy, this.#asked!.listenerName]);
    this.#asked = undefined;
    // Not at once: the listener may be failing many.
    queueMicrotask(() => this.isOver || this.#askNext(this));
  }

  /** Ends the wait with an error. Once a listener may have begun, every error has the outcome `unknown`. */
  fail(error: HawserError): void {
    const lost = this.#lost;
    this.#end();
    this.#resolve(
      Promise.reject(lost === undefined || error.outcome === "unknown" ? error : notTakenAfter(lost, error)),
    );
  }

  #leave(code: "request_timeout" | "aborted", why: string, cause: object): void {
    if (this.isOver) return;
    const mayHaveBegun = this.#lost !== undefined || this.id > 0;
    this.#asked?.leave(this);
    const text = `${why}${mayHaveBegun ? "; the request may be handled all the same" : "; it had not left yet"}`;
    this.fail(new HawserError(code, text, mayHaveBegun ? { ...cause, outcome: "unknown" } : cause));
  }

  #end(): void {
    this.isOver = true;
    this.#unlisten?.();
  }
}

const nobody: ReadonlySet<string> = new Set();

const noHeaders: FrameHeaders = [];

/** The errors of a request that was not carried out, and may be made of another listener. */
const notBegun: ReadonlySet<string> = new Set([
  "unreachable",
  "busy",
  "unsubscribed",
  "not_running",
  "store_failed",
  "not_supported",
]);

/** The first listener may have handled the request, whatever the next one says of itself. */
function notTakenAfter(lost: HawserError, failed: HawserError): HawserError {
  const text = `${lost.message}; no other listener took it: ${failed.message}`;
  return new HawserError("listener_lost", text, { outcome: "unknown", cause: failed });
}
