/** A request as its handler sees it, while somebody waits for the answer. */
import { PeerError } from "../errors/index.js";
import type { Request } from "../wire/index.js";

/** A request for which somebody waits. */
export class IncomingRequest {
  /** A handler has begun with it. */
  begun = false;
  #controller: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  readonly frame: Request;
  /** When its sender waits no more, as `performance.now()` has it. */
  readonly until: number;

  constructor(frame: Request) {
    this.frame = frame;
    this.until = performance.now() + frame.timeoutMs;
  }

  /** Nobody waits for the answer. */
  get isOver(): boolean {
    return this.#isOver || performance.now() >= this.until;
  }

  /** Aborted when nobody waits for the answer any more. Made when it is asked for: most handlers do not. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#isOver) this.#controller.abort(notWaitedFor());
      else this.#timer = setTimeout(() => this.abort(), this.until - performance.now());
    }
    return this.#controller.signal;
  }

  /** Nobody waits any more. */
  abort(): void {
    this.end();
    this.#controller?.abort(notWaitedFor());
  }

  /** It was answered. */
  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }
}

function notWaitedFor(): PeerError {
  return new PeerError("aborted", "the sender of the request does not wait for its answer any more");
}
