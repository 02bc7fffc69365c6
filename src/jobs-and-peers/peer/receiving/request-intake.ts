/**
 * Incoming requests of one sender. They wait for a free slot and for the limit of their handler, and are answered on
 * the connection that they came from. A request ends with its connection or at its deadline, because its sender has
 * stopped waiting then.
 */

import type { Request } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { errorTable } from "../../../../generated/ts/errors/errors.js";
import { limits } from "../../../../generated/ts/rules/peer/frames.js";
import { type ErrorCode, HawserError, shortened } from "../../../foundation/errors/index.js";
import { Waiters } from "../../../foundation/runtime/index.js";
import { listenerDefaults, memoryBytes } from "../../channel/index.js";
import { isThenable } from "../../handlers/attempts.js";
import { type SlicedWork, timeSliceMs } from "../../handlers/dispatcher.js";
import { failureOf } from "../../handlers/handler-result.js";
import { type ConcurrencyLimit, changeLimit, type Waiter, Waitlist } from "../../handlers/limits/concurrency-limit.js";
import type { ListenerConnection } from "../../transport/index.js";
import type { Source } from "./channel-message.js";
import { IncomingRequest } from "./incoming-request.js";
import type { Receiver } from "./receiver.js";
import { answerOf, noBytes } from "./request-answer.js";

function bytesOf(request: IncomingRequest): number {
  return memoryBytes(request, listenerDefaults.messageOverheadBytes);
}

export class RequestIntake implements SlicedWork, Waiter {
  #connection: ListenerConnection | undefined;
  /** Waiting requests. Cancelled requests are removed at once, so that they cannot make the queue full for others. */
  readonly #waiting = new Waitlist<IncomingRequest>(this);
  /** Memory of the waiting requests. */
  #waitingBytes = 0;
  /** Waiting requests, and those whose handler returned a promise, by id. */
  readonly #open = new Map<number, IncomingRequest>();
  /** Number of running handlers, including those for earlier connections. */
  #handlers = 0;
  #isStopping = false;
  readonly #whenIdle = new Waiters();

  readonly #receiver: Receiver;
  readonly #source: Source;

  constructor(receiver: Receiver, source: Source) {
    this.#receiver = receiver;
    this.#source = source;
  }

  /** True while a handler is running. */
  get isHandling(): boolean {
    return this.#handlers > 0;
  }

  /** Number of running handlers. */
  get running(): number {
    return this.#handlers;
  }

  /** Sets the sender's new connection, or undefined. Requests of the previous connection are cancelled. */
  onConnection(connection: ListenerConnection | undefined): void {
    this.#connection = connection;
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const request of this.#open.values()) request.abandon();
    this.#open.clear();
  }

  /** Aborts the signals of all running handlers. */
  abort(reason: HawserError): void {
    for (const request of this.#open.values()) request.abort(reason);
  }

  /** Tells all running handlers that the peer stops. */
  stopping(reason: HawserError): void {
    for (const request of this.#open.values()) request.stop(reason);
  }

  onClosed(connection: ListenerConnection): void {
    if (this.#connection === connection) this.onConnection(undefined);
  }

  onRequest(connection: ListenerConnection, frame: Request): void {
    if (connection !== this.#connection) return;
    const { context, dispatcher, handlers } = this.#receiver;
    const { name } = context.sender;
    const request = new IncomingRequest(connection, this.#source, frame);
    if (this.#isStopping) this.#refuse(request, "not_running", `"${name}" is stopping`);
    else if (handlers.isEmpty) this.#refuse(request, "unsubscribed", `"${name}" has no handler`);
    else if (this.#mayOvertake(request) && this.#canStart(connection) && dispatcher.takeSlot()) this.#start(request);
    else if (this.#hasRoom(request)) {
      this.#addWaiting(request);
      this.#open.set(frame.id, request);
      this.wake();
    } else this.#refuse(request, "busy", `${this.#waiting.size} requests already wait at "${name}"`);
  }

  onCancel(connection: ListenerConnection, id: number): void {
    const request = connection === this.#connection ? this.#open.get(id) : undefined;
    if (request === undefined) return;
    request.abandon();
    if (this.#removeWaiting(request)) this.#open.delete(id);
  }

  /** Schedules the waiting requests, after the connection has drained or a pause has ended. */
  wake(): void {
    if (this.#waiting.first !== undefined) this.#receiver.dispatcher.wake(this);
  }

  limitFreed(limit: ConcurrencyLimit): void {
    this.#receiver.dispatcher.wake(limit);
  }

  /** Starts waiting requests while slots are free and the time slice lasts. */
  run(): void {
    const { dispatcher, channelCalls } = this.#receiver;
    const turnEnds = performance.now() + timeSliceMs;
    for (let request = this.#waiting.first; request !== undefined; request = this.#waiting.first) {
      if (!this.#canStart(request.connection)) return;
      if (request.isOver) {
        this.#removeWaiting(request);
        this.#open.delete(request.id);
      } else if (request.limit !== channelCalls.limitOfRequest(request.topicId)) this.#addWaiting(request);
      else if (performance.now() > turnEnds || !dispatcher.takeSlot()) {
        dispatcher.wake(this);
        return;
      } else {
        this.#removeWaiting(request);
        this.#start(request);
      }
    }
  }

  /** Refuses waiting requests, so that they go to another listener. Resolves when no handler is running. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const { name } = this.#receiver.context.sender;
    for (const request of this.#waiting) {
      this.#removeWaiting(request);
      this.#open.delete(request.id);
      this.#refuse(request, "not_running", `"${name}" is stopping`);
    }
    if (this.isHandling) await this.#whenIdle.next();
  }

  /** Adds a request to the waiting ones under the limit of its current handler, or moves it there. */
  #addWaiting(request: IncomingRequest): void {
    this.#removeWaiting(request);
    request.limit = this.#receiver.channelCalls.limitOfRequest(request.topicId);
    this.#waiting.add(request);
    this.#waitingBytes += bytesOf(request);
  }

  /** Removes a waiting request. @returns false if it was not waiting */
  #removeWaiting(request: IncomingRequest): boolean {
    if (!this.#waiting.delete(request)) return false;
    this.#waitingBytes -= bytesOf(request);
    return true;
  }

  /** True if a new request may start before the waiting ones: the limits of those are full, and its own is not. */
  #mayOvertake(request: IncomingRequest): boolean {
    return (
      this.#waiting.first === undefined && this.#receiver.channelCalls.limitOfRequest(request.topicId)?.isFull !== true
    );
  }

  /** True if one more request may wait; always true for the first one. */
  #hasRoom(request: IncomingRequest): boolean {
    const { maxRequests, creditBytes } = this.#receiver.context.settings;
    if (this.#waiting.size === 0) return true;
    return this.#waiting.size < maxRequests && this.#waitingBytes + bytesOf(request) <= creditBytes;
  }

  /**
   * True if a request may start once a slot is free. Answers to a sender that does not read would pile up, so its
   * requests wait.
   */
  #canStart(connection: ListenerConnection): boolean {
    const { isPaused, quarantine } = this.#receiver;
    return connection.canWrite && !isPaused && quarantine.holder === undefined;
  }

  #start(request: IncomingRequest): void {
    const { channelCalls } = this.#receiver;
    this.#handlers += 1;
    request.limit = channelCalls.limitOfRequest(request.topicId);
    request.limit?.take();
    const topic = channelCalls.topics.of(request.topicId);
    if (typeof topic === "string") {
      this.#call(request, topic);
      return;
    }
    this.#open.set(request.id, request);
    topic.then(
      (name) => {
        if (changeLimit(request, channelCalls.limitOfRequest(request.topicId), this)) this.#call(request, name);
        else this.#onFailed(request, new HawserError("busy", `all handlers of "${name}" are running`));
      },
      (error) => this.#onFailed(request, error),
    );
  }

  /** Calls the handler of a request that has a slot and a place of its limit. */
  #call(request: IncomingRequest, topic: string | undefined): void {
    let returned: unknown;
    try {
      returned = this.#receiver.requestCalls.answer(request, topic);
      if (isThenable(returned)) {
        this.#open.set(request.id, request);
        Promise.resolve(returned).then(
          (value) => this.#onReturned(request, value),
          (error) => this.#onFailed(request, error),
        );
        return;
      }
    } catch (error) {
      this.#onFailed(request, error);
      return;
    }
    this.#onReturned(request, returned);
  }

  #onReturned(request: IncomingRequest, returned: unknown): void {
    try {
      const answer = answerOf(returned, request);
      if (this.#isAwaited(request)) request.connection.writeAnswer(answer);
      this.#receiver.channelCalls.countsOf(request.topicId).requests.answered += 1;
    } catch (error) {
      this.#onFailed(request, error);
      return;
    }
    this.#onEnded(request);
  }

  #onFailed(request: IncomingRequest, error: unknown): void {
    const { code, message } = failureOf(error);
    if (request.isStarted) {
      const { calls, channelCalls } = this.#receiver;
      const topic = channelCalls.topics.known(request.topicId) ?? "";
      channelCalls.countsOf(request.topicId).requests.failed += 1;
      calls.attempts.report(request, topic, 1, { errorCode: code, errorMessage: message }, error);
    }
    if (this.#isAwaited(request)) this.#refuse(request, code, message);
    this.#onEnded(request);
  }

  #isAwaited(request: IncomingRequest): boolean {
    return request.connection === this.#connection && !request.isOver;
  }

  #onEnded(request: IncomingRequest): void {
    request.end();
    if (this.#open.get(request.id) === request) this.#open.delete(request.id);
    this.#handlers -= 1;
    request.limit?.release(this, false);
    const { dispatcher, quarantine } = this.#receiver;
    dispatcher.freeSlot();
    quarantine.handlerEnded();
    if (!this.#whenIdle.isEmpty && !this.isHandling) this.#whenIdle.settle();
  }

  /** Answers with an error, which also says whether the handler was started. */
  #refuse({ connection, id, topicId, isStarted: begun }: IncomingRequest, code: ErrorCode, why: string): void {
    if (!begun) this.#receiver.channelCalls.countsOf(topicId).requests.refused += 1;
    // A sender that does not read its answers and keeps sending requests gets no refusals.
    if (!connection.canWrite && !begun) return;
    const message = shortened(why.replaceAll("\0", ""), limits.Answer.message.maxBytes);
    const { wireCode } = errorTable[code];
    connection.writeAnswer({ id, code: wireCode, message, begun, payload: noBytes, headers: [] });
  }
}
