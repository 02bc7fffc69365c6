/**
 * The requests to one listener: those that wait for a connection that can take them, and those that wait for their answer.
 * A request is written once, on one connection, and ends by its deadline: one timer serves all.
 */
import type { TuningSettings } from "../../generated/ts/settings/peer.js";
import { errorOfWireCode, HawserError } from "../errors/index.js";
import { DeadlineTimer } from "../runtime/index.js";
import type { SenderConnection } from "../transport/index.js";
import { type Answer as AnswerFrame, ErrorNumber } from "../wire/index.js";
import { asHawserError } from "./context.js";
import { pairsOfFrame } from "./frame-headers.js";
import type { MessageTopic } from "./outgoing.js";
import { type OutgoingRequest, ReceivedAnswer } from "./outgoing-request.js";

export class LinkRequests {
  readonly listenerName: string;
  #connection: SenderConnection | undefined;
  /** Not written yet. */
  readonly #waiting = new Set<OutgoingRequest>();
  #waitingBytes = 0;
  /** Written, by their ids. */
  readonly #written = new Map<number, OutgoingRequest>();
  #lastId = 0;
  readonly #timer = new DeadlineTimer(() => this.#endLate());
  #whenSettled: (() => void)[] = [];

  readonly #settings: TuningSettings;
  readonly #connect: () => void;

  /** @param connect called for a request if there is no connection: makes one, or ends in {@link onUnreachable} */
  constructor(listenerName: string, settings: TuningSettings, connect: () => void) {
    this.listenerName = listenerName;
    this.#settings = settings;
    this.#connect = connect;
  }

  /** How many wait for their answer, written or not. */
  get underWay(): number {
    return this.#written.size + this.#waiting.size;
  }

  /**
   * Makes a request of the listener. It fails with
   * - `unreachable`, `busy`, `unsubscribed`, `not_running`, `store_failed`: a handler has surely not begun;
   * - `listener_lost`, with outcome `unknown`: the connection ended after the request had been written;
   * - the code with which the listener answered: `handler_failed`, `rejected`, …
   */
  ask(topic: MessageTopic, request: OutgoingRequest): void {
    const { maxRequests, maxSendQueueBytes } = this.#settings;
    const bytes = this.#waitingBytes + request.payload.length;
    request.askedOf(this, topic);
    if (this.underWay >= maxRequests || (this.#waiting.size > 0 && bytes > maxSendQueueBytes)) {
      const text = `${this.underWay} requests to "${this.listenerName}" wait for their answers already`;
      request.failed(new HawserError("busy", `${text}; await earlier ones first, or raise maxRequests`));
      return;
    }
    this.#timer.arm(request.until);
    if (this.#connection !== undefined && this.#write(this.#connection, request)) return;
    this.#waiting.add(request);
    this.#waitingBytes = bytes;
    if (this.#connection === undefined) this.#connect();
  }

  /** Nobody waits for the answer any more: the request is not written, or the listener is told. */
  leave(request: OutgoingRequest): void {
    this.#remove(request);
    if (this.#written.delete(request.id)) this.#connection?.writeCancel(request.id);
    this.#tellSettled();
  }

  /** Resolves when none waits for its answer. */
  async settled(): Promise<void> {
    if (this.underWay > 0) await new Promise<void>((resolve) => this.#whenSettled.push(resolve));
  }

  onConnected(connection: SenderConnection): void {
    this.#connection = connection;
    this.onDrain();
  }

  /** The connection can be written to again. */
  onDrain(): void {
    for (const request of this.#waiting) {
      if (this.#connection === undefined || !this.#write(this.#connection, request)) return;
      this.#remove(request);
    }
    this.#tellSettled();
  }

  onAnswer({ id, code, message, begun, payload, headers }: AnswerFrame): void {
    const request = this.#written.get(id);
    if (request === undefined) return;
    this.#written.delete(id);
    if (code === ErrorNumber.UNSPECIFIED) {
      request.answered(new ReceivedAnswer(payload, pairsOfFrame(headers), this.listenerName));
    } else {
      const known = errorOfWireCode(code)?.code ?? "handler_failed";
      request.failed(new HawserError(known, message, begun ? { outcome: "unknown" } : {}));
    }
    this.#tellSettled();
  }

  /** The connection has ended. */
  onClosed(): void {
    this.#connection = undefined;
    const lost = [...this.#written.values()];
    this.#written.clear();
    for (const request of lost) {
      const text = `the connection to "${this.listenerName}" ended before it had answered; it may have handled the request`;
      request.failed(new HawserError("listener_lost", text, { outcome: "unknown" }));
    }
    this.onUnreachable("the connection ended");
  }

  /** There is no connection, and none will be made now: what was not written yet is for another listener. */
  onUnreachable(why: string): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const request of waiting) request.failed(this.#unreachable(why));
    this.#timer.stop();
    this.#tellSettled();
  }

  /** Writes a request, or says why that cannot be. @returns false if it has to wait until the connection can be written to */
  #write(connection: SenderConnection, request: OutgoingRequest): boolean {
    const { topic, topicKey } = request.topic!;
    if (!connection.takesRequests) request.failed(this.#unreachable("it is of a version without requests"));
    // The keys of another database are being looked up.
    else if (topicKey === 0) request.failed(this.#unreachable(`the key of "${topic}" is not known yet`));
    else if (!connection.canWrite) return false;
    else {
      request.id = this.#lastId + 1;
      request.topicKey = topicKey;
      request.timeoutMs = Math.max(1, Math.ceil(request.until - performance.now()));
      try {
        connection.writeRequest(request);
        this.#lastId = request.id;
        this.#written.set(request.id, request);
      } catch (error) {
        request.fail(asHawserError(error));
      }
    }
    return true;
  }

  #unreachable(why: string): HawserError {
    return new HawserError("unreachable", `"${this.listenerName}" takes no request now: ${why}`);
  }

  #remove(request: OutgoingRequest): void {
    if (this.#waiting.delete(request)) this.#waitingBytes -= request.payload.length;
  }

  /** Those whose time is over are waited for no more. */
  #endLate(): void {
    const at = performance.now();
    let next = Number.POSITIVE_INFINITY;
    for (const requests of [this.#waiting, this.#written.values()]) {
      for (const request of requests) {
        if (request.until <= at) request.timeOut();
        else next = Math.min(next, request.until);
      }
    }
    this.#timer.arm(next);
  }

  #tellSettled(): void {
    if (this.#whenSettled.length === 0 || this.underWay > 0) return;
    for (const resolve of this.#whenSettled.splice(0)) resolve();
  }
}
