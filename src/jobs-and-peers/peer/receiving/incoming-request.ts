/** Request as its handler sees it, until the sender stops waiting for the answer. */

import type { Request } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { Cancellation } from "../../../foundation/runtime/index.js";
import type { HandledMessage, Headers, Origin } from "../../channel/index.js";
import type { ConcurrencyLimit, Limited } from "../../handlers/limits/concurrency-limit.js";
import type { ListenerConnection } from "../../transport/index.js";
import { pairsOfFrame } from "../core/frame-headers.js";
import { messageIdOf, originOf, type Source } from "./channel-message.js";

/**
 * Request with a waiting sender. It is the message for the handler; its signal is aborted when the sender stops
 * waiting.
 */
export class IncomingRequest extends Cancellation implements HandledMessage, Limited {
  /** Connection for the answer. */
  readonly connection: ListenerConnection;
  readonly source: Source;
  readonly id: number;
  readonly maxAnswerBytes: number;
  /** Time at which the sender stops waiting (`performance.now()`, ms). */
  readonly until: number;
  /** True after the handler was started. */
  isStarted = false;
  limit: ConcurrencyLimit | undefined = undefined;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined = undefined;

  readonly topicId: number;
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
  readonly position = undefined;
  readonly key = undefined;
  readonly enqueuedBy = undefined;
  readonly isAtMostOnce = true;
  readonly fromWire = true;

  constructor(
    connection: ListenerConnection,
    source: Source,
    { id, topicId, timeoutMs, maxAnswerBytes, payload, headers }: Request,
  ) {
    super();
    this.connection = connection;
    this.source = source;
    this.id = id;
    this.topicId = topicId;
    this.maxAnswerBytes = maxAnswerBytes;
    this.payload = payload;
    this.headers = headers.length === 0 ? undefined : pairsOfFrame(headers);
    this.until = performance.now() + timeoutMs;
  }

  get messageId(): string | undefined {
    return messageIdOf(this.source, this);
  }

  get sentId(): string | undefined {
    return this.messageId;
  }

  get sender(): Origin {
    return originOf(this.source);
  }

  /** True if the sender no longer waits for the answer. */
  get isOver(): boolean {
    return this.#isOver || performance.now() >= this.until;
  }

  override get signal(): AbortSignal {
    if (this.#timer === undefined) {
      if (this.#isOver) this.abort(abandoned());
      else this.#timer = setTimeout(() => this.abandon(), this.until - performance.now());
    }
    return super.signal;
  }

  /** Aborts the signal, because the sender no longer waits. */
  abandon(): void {
    this.end();
    this.abort(abandoned());
  }

  /** Ends the timer after the answer. */
  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }
}

function abandoned(): HawserError {
  return new HawserError("aborted", "the sender of the request no longer waits for its answer");
}
