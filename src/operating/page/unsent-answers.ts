/**
 * Memory of answers that their clients have not taken. A client that does not read would otherwise keep its answer, such
 * as the payload of a dead letter, for as long as its connection lasts.
 */
import type { UnderlyingSource } from "node:stream/web";
import type { Clock } from "../../foundation/runtime/index.js";

/** Bytes of unsent answers from which on the page refuses requests. A single answer may be larger. */
export const maxUnsentBytes = 64 * 1024 * 1024;
/** Bytes that a server takes at a time, as fast as its client reads. */
const pieceBytes = 64 * 1024;
/** Time limit for a server to take the next piece. Servers that end idle connections earlier have cancelled by then. */
const takeTimeoutMs = 60_000;

const nothing = new Uint8Array();

/** Counts answers until the servers that send them have taken their last piece. */
export class UnsentAnswers {
  #bytes = 0;
  readonly #clock: Clock;
  readonly #maxBytes: number;

  constructor(clock: Clock, maxBytes = maxUnsentBytes) {
    this.#clock = clock;
    this.#maxBytes = maxBytes;
  }

  /** True while nothing more may be answered. */
  get isFull(): boolean {
    return this.#bytes >= this.#maxBytes;
  }

  /**
   * Returns the answer with a body that counts until its last piece is taken, its client is gone, or a piece is not taken
   * in time; undefined if there is no room for it.
   */
  async add(answer: Response): Promise<Response | undefined> {
    if (answer.body === null) return answer;
    const body = new Uint8Array(await answer.arrayBuffer());
    if (this.#bytes > 0 && this.#bytes + body.length > this.#maxBytes) return undefined;
    const headers = new Headers(answer.headers);
    headers.set("Content-Length", String(body.length));
    return new Response(this.#pieces(body), { status: answer.status, headers });
  }

  #pieces(body: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
    let rest = body;
    let counted = body.length;
    this.#bytes += counted;
    let cancelTimer = (): void => {};
    const end = (): void => {
      cancelTimer();
      rest = nothing;
      this.#bytes -= counted;
      counted = 0;
    };
    const awaitRead = (cut: (reason: Error) => void): void => {
      cancelTimer();
      const cutOff = (): void => {
        end();
        cut(new Error(`the client has read nothing for ${takeTimeoutMs} ms`));
      };
      cancelTimer = this.#clock.setTimeout(cutOff, takeTimeoutMs, false);
    };
    const source: UnderlyingSource<Uint8Array<ArrayBuffer>> = {
      start: (controller) => awaitRead((reason) => controller.error(reason)),
      pull: (controller) => {
        // A copy, because a view would keep the whole body.
        controller.enqueue(rest.slice(0, pieceBytes));
        rest = rest.subarray(pieceBytes);
        if (rest.length > 0) return awaitRead((reason) => controller.error(reason));
        end();
        controller.close();
      },
      cancel: end,
    };
    return new ReadableStream(source, { highWaterMark: 0 });
  }
}
