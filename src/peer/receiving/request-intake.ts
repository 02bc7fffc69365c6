/**
 * Incoming requests of one sender. They wait for a free slot and for the limit of their handler, and are answered on
 * the connection that they came from. A request ends with its connection or at its deadline, because its sender has
 * stopped waiting then.
 */

import type { Request } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { errorTable } from "../../../generated/ts/errors/errors.js";
import { limits } from "../../../generated/ts/rules/peer/frames.js";
import {
  type ConcurrencyLimit,
  changeLimit,
  listenerDefaults,
  memoryBytes,
  type Waiter,
  Waitlist,
} from "../../channel/index.js";
import { HawserError, shortened } from "../../errors/index.js";
import type { ListenerConnection } from "../../transport/index.js";
import type { PeerContext } from "../core/context.js";
import { failureOf } from "../core/handler-result.js";
import type { Source } from "../core/message.js";
import { type Dispatcher, type SlicedWork, timeSliceMs } from "./dispatcher.js";
import { type HandlerCalls, isThenable } from "./handler-call.js";
import { IncomingRequest } from "./incoming-request.js";
import { answerOf, noBytes } from "./request-answer.js";
import type { TopicHandlers } from "./topic-handlers.js";

/** Objects that all request intakes of a peer share. */
export interface SharedByRequests {
  readonly context: PeerContext;
  readonly calls: HandlerCalls;
  readonly dispatcher: Dispatcher;
  readonly handlers: TopicHandlers;
  /** True while no request may start. */
  readonly requestsPaused: () => boolean;
  readonly quarantine: { handlerEnded(): void };
}

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
  #whenIdle: (() => void)[] = [];

  readonly #shared: SharedByRequests;
  readonly #source: Source;

  constructor(shared: SharedByRequests, source: Source) {
    this.#shared = shared;
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

  onClosed(connection: ListenerConnection): void {
    if (this.#connection === connection) this.onConnection(undefined);
  }

  onRequest(connection: ListenerConnection, frame: Request): void {
    if (connection !== this.#connection) return;
    const { context, handlers } = this.#shared;
    const { name } = context.sender;
    if (this.#isStopping) this.#refuse(connection, frame, "not_running", `"${name}" is stopping`);
    else if (handlers.isEmpty) this.#refuse(connection, frame, "unsubscribed", `"${name}" has no handler`);
    else {
      const request = new IncomingRequest(frame);
      if (this.#mayOvertake(request) && this.#canStart(connection) && this.#shared.dispatcher.takeSlot())
        this.#start(connection, request);
      else if (this.#hasRoom(request)) {
        this.#addWaiting(request);
        this.#open.set(frame.id, request);
        this.wake();
      } else this.#refuse(connection, frame, "busy", `${this.#waiting.size} requests already wait at "${name}"`);
    }
  }

  onCancel(connection: ListenerConnection, id: number): void {
    const request = connection === this.#connection ? this.#open.get(id) : undefined;
    if (request === undefined) return;
    request.abandon();
    if (this.#removeWaiting(request)) this.#open.delete(id);
  }

  /** Schedules the waiting requests, after the connection has drained or a pause has ended. */
  wake(): void {
    if (this.#waiting.first !== undefined) this.#shared.dispatcher.wake(this);
  }

  limitFreed(limit: ConcurrencyLimit): void {
    this.#shared.dispatcher.wake(limit);
  }

  /** Starts waiting requests while slots are free and the time slice lasts. */
  run(): void {
    const { dispatcher, calls } = this.#shared;
    const turnEnds = performance.now() + timeSliceMs;
    for (let request = this.#waiting.first; request !== undefined; request = this.#waiting.first) {
      const connection = this.#connection;
      if (connection === undefined || !this.#canStart(connection)) return;
      if (request.isOver) {
        this.#removeWaiting(request);
        this.#open.delete(request.id);
      } else if (request.limit !== calls.limitOfRequest(request)) this.#addWaiting(request);
      else if (performance.now() > turnEnds || !dispatcher.takeSlot()) {
        dispatcher.wake(this);
        return;
      } else {
        this.#removeWaiting(request);
        this.#start(connection, request);
      }
    }
  }

  /** Refuses waiting requests, so that they go to another listener. Resolves when no handler is running. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const { context } = this.#shared;
    for (const request of this.#waiting) {
      this.#removeWaiting(request);
      this.#open.delete(request.id);
      if (this.#connection !== undefined)
        this.#refuse(this.#connection, request, "not_running", `"${context.sender.name}" is stopping`);
    }
    if (this.isHandling) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Adds a request to the waiting ones under the limit of its current handler, or moves it there. */
  #addWaiting(request: IncomingRequest): void {
    this.#removeWaiting(request);
    request.limit = this.#shared.calls.limitOfRequest(request);
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
    return this.#waiting.first === undefined && this.#shared.calls.limitOfRequest(request)?.isFull !== true;
  }

  /** True if one more request may wait; always true for the first one. */
  #hasRoom(request: IncomingRequest): boolean {
    const { maxRequests, creditBytes } = this.#shared.context.settings;
    if (this.#waiting.size === 0) return true;
    return this.#waiting.size < maxRequests && this.#waitingBytes + bytesOf(request) <= creditBytes;
  }

  /**
   * True if a request may start once a slot is free. Answers to a sender that does not read would pile up, so its
   * requests wait.
   */
  #canStart(connection: ListenerConnection): boolean {
    return connection.canWrite && !this.#shared.requestsPaused();
  }

  #start(connection: ListenerConnection, request: IncomingRequest): void {
    const { calls } = this.#shared;
    this.#handlers += 1;
    request.limit = calls.limitOfRequest(request);
    request.limit?.take();
    const topic = calls.topics.of(request.topicId);
    if (typeof topic === "string") {
      this.#call(connection, request, topic);
      return;
    }
    this.#open.set(request.id, request);
    topic.then(
      (name) => {
        if (changeLimit(request, calls.limitOfRequest(request), this)) this.#call(connection, request, name);
        else this.#onFailed(connection, request, new HawserError("busy", `all handlers of "${name}" are running`));
      },
      (error) => this.#onFailed(connection, request, error),
    );
  }

  /** Calls the handler of a request that has a slot and a place of its limit. */
  #call(connection: ListenerConnection, request: IncomingRequest, topic: string | undefined): void {
    let returned: unknown;
    try {
      returned = this.#shared.calls.answer(this.#source, request, topic);
      if (isThenable(returned)) {
        this.#open.set(request.id, request);
        Promise.resolve(returned).then(
          (value) => this.#onReturned(connection, request, value),
          (error) => this.#onFailed(connection, request, error),
        );
        return;
      }
    } catch (error) {
      this.#onFailed(connection, request, error);
      return;
    }
    this.#onReturned(connection, request, returned);
  }

  #onReturned(connection: ListenerConnection, request: IncomingRequest, returned: unknown): void {
    try {
      const answer = answerOf(returned, request);
      if (this.#isAwaited(connection, request)) connection.writeAnswer(answer);
      this.#shared.calls.countsOf(request.topicId).requests.answered += 1;
    } catch (error) {
      this.#onFailed(connection, request, error);
      return;
    }
    this.#onEnded(request);
  }

  #onFailed(connection: ListenerConnection, request: IncomingRequest, error: unknown): void {
    const { code, message } = failureOf(error);
    if (request.isStarted) {
      const { context, calls } = this.#shared;
      const topic = calls.topics.known(request.topicId) ?? "";
      calls.countsOf(request.topicId).requests.failed += 1;
      const peer = this.#source.senderName;
      context.status.report({ kind: "attempt_failed", topic, peer, attempt: 1, code, message, error });
    }
    if (this.#isAwaited(connection, request)) this.#refuse(connection, request, code, message, request.isStarted);
    this.#onEnded(request);
  }

  #isAwaited(connection: ListenerConnection, request: IncomingRequest): boolean {
    return connection === this.#connection && !request.isOver;
  }

  #onEnded(request: IncomingRequest): void {
    request.end();
    if (this.#open.get(request.id) === request) this.#open.delete(request.id);
    this.#handlers -= 1;
    request.limit?.release(this, false);
    const { dispatcher, quarantine } = this.#shared;
    dispatcher.freeSlot();
    quarantine.handlerEnded();
    if (this.#whenIdle.length > 0 && !this.isHandling) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #refuse(
    connection: ListenerConnection,
    { id, topicId }: Pick<Request, "id" | "topicId">,
    code: HawserError["code"],
    why: string,
    begun = false,
  ): void {
    if (!begun) this.#shared.calls.countsOf(topicId).requests.refused += 1;
    // A sender that does not read its answers and keeps sending requests gets no refusals.
    if (!connection.canWrite && !begun) return;
    const message = shortened(why.replaceAll("\0", ""), limits.Answer.message.maxBytes);
    const { wireCode } = errorTable[code];
    connection.writeAnswer({ id, code: wireCode, message, begun, payload: noBytes, headers: [] });
  }
}
