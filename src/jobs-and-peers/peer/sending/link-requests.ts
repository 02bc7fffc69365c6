/**
 * Requests to one listener: those that wait for a connection and those that wait for an answer. A request is written
 * once, on one connection. One timer ends all requests at their deadlines.
 */

import type { Answer as AnswerFrame } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { TuningSettings } from "../../../../generated/ts/settings/peer.js";
import { asHawserError, errorOfWireCode, HawserError } from "../../../foundation/errors/index.js";
import { DeadlineTimer, Waiters } from "../../../foundation/runtime/index.js";
import type { SenderConnection } from "../../transport/index.js";
import { ErrorNumber } from "../../wire/index.js";
import { pairsOfFrame } from "../core/frame-headers.js";
import type { MessageTopic } from "./outgoing.js";
import { type OutgoingRequest, ReceivedAnswer } from "./outgoing-request.js";

export class LinkRequests {
  readonly listenerName: string;
  #connection: SenderConnection | undefined;
  /** Requests that are not written yet. */
  readonly #waiting = new Set<OutgoingRequest>();
  #waitingBytes = 0;
  /** Written requests by id. */
  readonly #written = new Map<number, OutgoingRequest>();
  #lastId = 0;
  readonly #timer = new DeadlineTimer(() => this.#failExpired());
  readonly #whenIdle = new Waiters();

  readonly #settings: TuningSettings;
  readonly #connect: () => void;

  /** @param connect called for a request without a connection: must connect, or call {@link onUnreachable} */
  constructor(listenerName: string, settings: TuningSettings, connect: () => void) {
    this.listenerName = listenerName;
    this.#settings = settings;
    this.#connect = connect;
  }

  /** Number of unanswered requests, written or not. */
  get pending(): number {
    return this.#written.size + this.#waiting.size;
  }

  /**
   * Sends a request to the listener. It fails with
   * - `unreachable`, `busy`, `unsubscribed`, `not_running`, `store_failed`: no handler was started;
   * - `listener_lost`, with outcome `unknown`: the connection ended after the request was written;
   * - the code of the listener's answer: `handler_failed`, `rejected`, …
   */
  send(topic: MessageTopic, request: OutgoingRequest): void {
    const { maxRequests, maxSendQueueBytes } = this.#settings;
    const bytes = this.#waitingBytes + request.payload.length;
    request.sentTo(this, topic);
    if (this.pending >= maxRequests || (this.#waiting.size > 0 && bytes > maxSendQueueBytes)) {
      const text = `${this.pending} requests to "${this.listenerName}" already wait for their answers`;
      request.failed(new HawserError("busy", `${text}; await earlier ones first, or raise maxRequests`));
      return;
    }
    this.#timer.arm(request.until);
    if (this.#connection !== undefined && this.#write(this.#connection, request)) return;
    this.#waiting.add(request);
    this.#waitingBytes = bytes;
    if (this.#connection === undefined) this.#connect();
  }

  /** Removes a request whose caller no longer waits. If it was written already, the listener is notified. */
  abandon(request: OutgoingRequest): void {
    this.#remove(request);
    if (this.#written.delete(request.id)) this.#connection?.writeCancel(request.id);
    this.#resolveIfIdle();
  }

  /** Resolves when no request waits for an answer. */
  async idle(): Promise<void> {
    if (this.pending > 0) await this.#whenIdle.next();
  }

  onConnected(connection: SenderConnection): void {
    this.#connection = connection;
    this.onDrain();
  }

  /** Continues to write after the connection has drained. */
  onDrain(): void {
    for (const request of this.#waiting) {
      if (this.#connection === undefined || !this.#write(this.#connection, request)) return;
      this.#remove(request);
    }
    this.#resolveIfIdle();
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
    this.#resolveIfIdle();
  }

  /** Fails the written requests with an unknown outcome; the others go to another listener. */
  onClosed(): void {
    this.#connection = undefined;
    const lost = [...this.#written.values()];
    this.#written.clear();
    for (const request of lost) {
      const text = `the connection to "${this.listenerName}" ended before the answer; the request may have been handled`;
      request.failed(new HawserError("listener_lost", text, { outcome: "unknown" }));
    }
    this.onUnreachable("the connection ended");
  }

  /**
   * Fails the requests that are not written yet, so that they go to another listener. Called when there is no
   * connection and no attempt to connect.
   */
  onUnreachable(why: string): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const request of waiting) request.failed(this.#unreachable(why));
    this.#timer.stop();
    this.#resolveIfIdle();
  }

  /** Writes a request, or fails it. @returns false if it has to wait until the connection drains */
  #write(connection: SenderConnection, request: OutgoingRequest): boolean {
    const { topic, topicId } = request.topic!;
    if (!connection.takesRequests) request.failed(this.#unreachable("its version does not support requests"));
    // The ids are looked up again after a move to another database.
    else if (topicId === 0) request.failed(this.#unreachable(`the id of "${topic}" is being looked up`));
    else if (!connection.canWrite) return false;
    else {
      request.id = this.#lastId + 1;
      request.topicId = topicId;
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
    return new HawserError("unreachable", `"${this.listenerName}" cannot take requests now: ${why}`);
  }

  #remove(request: OutgoingRequest): void {
    if (this.#waiting.delete(request)) this.#waitingBytes -= request.payload.length;
  }

  /** Fails the requests whose deadline has passed. */
  #failExpired(): void {
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

  #resolveIfIdle(): void {
    if (this.pending === 0) this.#whenIdle.settle();
  }
}
