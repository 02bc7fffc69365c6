/** A request as its handler sees it, while somebody waits for the answer. */
import type { Headers, IncomingMessage } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { Request } from "../wire/index.js";
import { Cancellation } from "./cancellation.js";
import { pairsOfFrame } from "./frame-headers.js";

/** A request for which somebody waits: the message for its handler, whose signal is aborted when nobody does any more. */
export class IncomingRequest extends Cancellation implements IncomingMessage {
  readonly id: number;
  readonly maxAnswerBytes: number;
  /** When its sender waits no more, as `performance.now()` has it. */
  readonly until: number;
  /** A handler has begun with it. */
  begun = false;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined = undefined;

  readonly topicKey: number;
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
  readonly position = undefined;
  readonly encoding = undefined;
  readonly key = undefined;
  readonly fromWire = true;

  constructor({ id, topicKey, timeoutMs, maxAnswerBytes, payload, headers }: Request) {
    super();
    this.id = id;
    this.topicKey = topicKey;
    this.maxAnswerBytes = maxAnswerBytes;
    this.payload = payload;
    this.headers = headers.length === 0 ? undefined : pairsOfFrame(headers);
    this.until = performance.now() + timeoutMs;
  }

  /** Nobody waits for the answer. */
  get isOver(): boolean {
    return this.#isOver || performance.now() >= this.until;
  }

  override get signal(): AbortSignal {
    if (this.#timer === undefined) {
      if (this.#isOver) this.abort(notWaitedFor());
      else this.#timer = setTimeout(() => this.leave(), this.until - performance.now());
    }
    return super.signal;
  }

  /** Nobody waits any more. */
  leave(): void {
    this.end();
    this.abort(notWaitedFor());
  }

  /** It was answered. */
  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }
}

function notWaitedFor(): HawserError {
  return new HawserError("aborted", "the sender of the request does not wait for its answer any more");
}
