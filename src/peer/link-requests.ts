/**
 * The requests to one listener: those that wait for a connection that can take them, and those that wait for their answer.
 * A request is written once, on one connection. What becomes of one whose connection ends is for the caller to decide.
 */
import type { PeerSettings } from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { errorOfWireCode, type HawserError, PeerError } from "../errors/index.js";
import type { SenderConnection } from "../transport/index.js";
import { type Answer as AnswerFrame, ErrorNumber } from "../wire/index.js";
import { asHawserError } from "./context.js";
import { frameHeaders, pairsOfFrame } from "./frame-headers.js";
import type { MessageTopic } from "./outgoing.js";

/** The answer to a request. */
export interface Answer {
  /** What the handler returned, as bytes. A view into what was received: copy what is kept for long. */
  readonly payload: Uint8Array;
  readonly headers: Headers;
  /** The name of the listener that answered. */
  readonly peer: string;
}

/** A request whose arguments are checked. */
export interface CheckedRequest {
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
  /** When nobody waits for the answer any more, as `performance.now()` has it. */
  readonly until: number;
}

/** A request on its way to one listener. */
export interface Asked {
  /** @throws PeerError (as a rejection) as {@link LinkRequests.ask} says */
  readonly answer: Promise<Answer>;
  /** It has left for the listener. */
  readonly isWritten: () => boolean;
  /** Nobody waits for the answer any more. */
  leave(): void;
}

/** Its fields one by one: to copy those of another object takes longer than all that is done for a request. */
class Pending implements CheckedRequest {
  /** 0: it was not written yet. */
  id = 0;
  resolve!: (answer: Answer) => void;
  reject!: (error: HawserError) => void;
  readonly answer: Promise<Answer>;
  readonly topic: MessageTopic;
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
  readonly until: number;

  constructor(topic: MessageTopic, { payload, headers, until }: CheckedRequest) {
    this.topic = topic;
    this.payload = payload;
    this.headers = headers;
    this.until = until;
    this.answer = new Promise<Answer>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

/** A request that was not carried out, and may be made of another listener. */
export function wasNotBegun(error: HawserError): boolean {
  return error.outcome === undefined && notBegun.has(error.code);
}

const notBegun: ReadonlySet<string> = new Set(["unreachable", "busy", "unsubscribed", "not_running", "store_failed"]);

export class LinkRequests {
  #connection: SenderConnection | undefined;
  /** Not written yet. */
  readonly #waiting = new Set<Pending>();
  #waitingBytes = 0;
  /** Written, by their ids. */
  readonly #asked = new Map<number, Pending>();
  #lastId = 0;
  #whenSettled: (() => void)[] = [];

  readonly #listenerName: string;
  readonly #settings: PeerSettings;

  constructor(listenerName: string, settings: PeerSettings) {
    this.#listenerName = listenerName;
    this.#settings = settings;
  }

  /** How many wait for their answer, written or not. */
  get underWay(): number {
    return this.#asked.size + this.#waiting.size;
  }

  /**
   * Makes a request of the listener.
   *
   * @param connect called if there is no connection: makes one, or ends in {@link onUnreachable}
   * @throws PeerError (as rejections of the answer)
   * - `unreachable`, `busy`, `unsubscribed`, `not_running`, `store_failed`: a handler has surely not begun;
   * - `listener_lost`, with outcome `unknown`: the connection ended after the request had been written;
   * - the code with which the listener answered: `handler_failed`, `rejected`, …
   */
  ask(topic: MessageTopic, request: CheckedRequest, connect: () => void): Asked {
    const pending = new Pending(topic, request);
    const { answer } = pending;
    const { maxRequests, maxSendQueueBytes } = this.#settings;
    const bytes = this.#waitingBytes + request.payload.length;
    answer.then(this.#tellSettled, this.#tellSettled);
    if (this.underWay >= maxRequests || (this.#waiting.size > 0 && bytes > maxSendQueueBytes)) {
      const text = `${this.underWay} requests to "${this.#listenerName}" wait for their answers already`;
      pending.reject(new PeerError("busy", `${text}; await earlier ones first, or raise maxRequests`));
      return { answer, isWritten: () => false, leave: () => undefined };
    }
    this.#waiting.add(pending);
    this.#waitingBytes = bytes;
    if (this.#connection === undefined) connect();
    else this.#write(this.#connection, pending);
    return { answer, isWritten: () => pending.id > 0, leave: () => this.#leave(pending) };
  }

  /** Resolves when none waits for its answer. */
  async settled(): Promise<void> {
    if (this.underWay > 0) await new Promise<void>((resolve) => this.#whenSettled.push(resolve));
  }

  onConnected(connection: SenderConnection): void {
    this.#connection = connection;
    this.#writeAll();
  }

  /** The connection can be written to again. */
  onDrain(): void {
    this.#writeAll();
  }

  onAnswer({ id, code, message, begun, payload, headers }: AnswerFrame): void {
    const pending = this.#asked.get(id);
    if (pending === undefined) return;
    this.#asked.delete(id);
    if (code === ErrorNumber.UNSPECIFIED) {
      pending.resolve({ payload, headers: pairsOfFrame(headers), peer: this.#listenerName });
      return;
    }
    const known = errorOfWireCode(code)?.code ?? "handler_failed";
    pending.reject(new PeerError(known, message, begun ? { outcome: "unknown" } : {}));
  }

  /** The connection has ended. */
  onClosed(): void {
    this.#connection = undefined;
    const lost = [...this.#asked.values()];
    this.#asked.clear();
    for (const pending of lost) {
      const text = `the connection to "${this.#listenerName}" ended before it had answered; it may have handled the request`;
      pending.reject(new PeerError("listener_lost", text, { outcome: "unknown" }));
    }
    this.onUnreachable("the connection ended");
  }

  /** What was not written yet is for another listener. */
  onUnreachable(why: string): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const pending of waiting) {
      pending.reject(new PeerError("unreachable", `"${this.#listenerName}" takes no request now: ${why}`));
    }
  }

  #writeAll(): void {
    for (const pending of this.#waiting) {
      if (this.#connection === undefined || !this.#connection.canWrite) return;
      this.#write(this.#connection, pending);
    }
  }

  /** Writes a request, unless it has to wait until the connection can be written to. */
  #write(connection: SenderConnection, pending: Pending): void {
    const { topic, payload, headers, until } = pending;
    if (!connection.takesRequests) {
      this.onUnreachable("it is of a version without requests");
      return;
    }
    // The keys of another database are being looked up.
    if (topic.topicKey === 0) {
      this.onUnreachable(`the key of "${topic.topic}" is not known yet`);
      return;
    }
    if (!connection.canWrite) return;
    this.#remove(pending);
    const id = this.#lastId + 1;
    try {
      connection.writeRequest({
        id,
        topicKey: topic.topicKey,
        timeoutMs: Math.max(1, Math.ceil(until - performance.now())),
        maxAnswerBytes: this.#settings.maxMessageBytes,
        payload,
        headers: headers === undefined ? [] : frameHeaders(headers),
      });
    } catch (error) {
      pending.reject(asHawserError(error));
      return;
    }
    this.#lastId = id;
    pending.id = id;
    this.#asked.set(id, pending);
  }

  #remove(pending: Pending): void {
    if (this.#waiting.delete(pending)) this.#waitingBytes -= pending.payload.length;
  }

  /** Nobody waits for the answer any more: it is not written, or the listener is told. */
  #leave(pending: Pending): void {
    this.#remove(pending);
    if (this.#asked.delete(pending.id)) this.#connection?.writeCancel(pending.id);
    this.#tellSettled();
  }

  readonly #tellSettled = (): void => {
    if (this.#whenSettled.length === 0 || this.underWay > 0) return;
    for (const resolve of this.#whenSettled.splice(0)) resolve();
  };
}
