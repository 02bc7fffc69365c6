/**
 * Incoming requests of one sender. They wait for a free slot, and are answered on the connection that they came from. A
 * request ends with its connection or at its deadline, because its sender has stopped waiting then.
 */
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { memoryBytes } from "../channel/index.js";
import { errorTable, type HawserError, shortened } from "../errors/index.js";
import type { ListenerConnection } from "../transport/index.js";
import type { Request } from "../wire/index.js";
import type { PeerContext } from "./context.js";
import { type Dispatcher, type Turn, turnMs } from "./dispatcher.js";
import { failureOf, type HandlerCalls, isThenable } from "./handler-call.js";
import { IncomingRequest } from "./incoming-request.js";
import type { Source } from "./message.js";
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
  readonly isolation: { handlerEnded(): void };
}

function bytesOf(request: IncomingRequest): number {
  return memoryBytes(request, protocolConstants.messageOverheadBytes);
}

export class RequestIntake implements Turn {
  #connection: ListenerConnection | undefined;
  /**
   * Waiting requests in the order of arrival. Cancelled requests are removed at once, so that they cannot make the
   * queue full for others.
   */
  readonly #waiting = new Set<IncomingRequest>();
  /** Iterator that keeps its position, so that it does not skip over all removed entries each time. */
  #iterator = this.#waiting.values();
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
      if (this.#waiting.size === 0 && this.#canStart(connection) && this.#shared.dispatcher.takeSlot())
        this.#start(connection, request);
      else if (this.#hasRoom(request)) {
        this.#waiting.add(request);
        this.#open.set(frame.id, request);
        this.#waitingBytes += bytesOf(request);
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
    if (this.#waiting.size > 0) this.#shared.dispatcher.wake(this);
  }

  /** Starts waiting requests while slots are free and the time slice lasts. */
  run(): void {
    const { dispatcher } = this.#shared;
    const turnEnds = performance.now() + turnMs;
    while (this.#waiting.size > 0) {
      const connection = this.#connection;
      if (connection === undefined || !this.#canStart(connection)) return;
      if (performance.now() > turnEnds || !dispatcher.takeSlot()) {
        dispatcher.wake(this);
        return;
      }
      const request = this.#takeNext()!;
      if (!request.isOver) this.#start(connection, request);
      else {
        this.#open.delete(request.id);
        dispatcher.freeSlot();
      }
    }
  }

  /** Refuses waiting requests, so that they go to another listener. Resolves when no handler is running. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const { context } = this.#shared;
    for (let request = this.#takeNext(); request !== undefined; request = this.#takeNext()) {
      this.#open.delete(request.id);
      if (this.#connection !== undefined)
        this.#refuse(this.#connection, request, "not_running", `"${context.sender.name}" is stopping`);
    }
    if (this.isHandling) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Removes and returns the oldest waiting request. */
  #takeNext(): IncomingRequest | undefined {
    let next = this.#iterator.next();
    if (next.done) {
      this.#iterator = this.#waiting.values();
      next = this.#iterator.next();
    }
    if (next.done) return undefined;
    this.#removeWaiting(next.value);
    return next.value;
  }

  /** Removes a waiting request. @returns false if it was not waiting */
  #removeWaiting(request: IncomingRequest): boolean {
    if (!this.#waiting.delete(request)) return false;
    this.#waitingBytes -= bytesOf(request);
    return true;
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
    this.#handlers += 1;
    let returned: unknown;
    try {
      returned = this.#shared.calls.answer(this.#source, request);
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
      this.#shared.calls.countsOf(request.topicKey).requests.answered += 1;
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
      const topic = calls.topics.known(request.topicKey) ?? "";
      calls.countsOf(request.topicKey).requests.failed += 1;
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
    const { dispatcher, isolation } = this.#shared;
    dispatcher.freeSlot();
    isolation.handlerEnded();
    if (this.#whenIdle.length > 0 && !this.isHandling) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #refuse(
    connection: ListenerConnection,
    { id, topicKey }: Pick<Request, "id" | "topicKey">,
    code: HawserError["code"],
    why: string,
    begun = false,
  ): void {
    if (!begun) this.#shared.calls.countsOf(topicKey).requests.refused += 1;
    // A sender that does not read its answers and keeps sending requests gets no refusals.
    if (!connection.canWrite && !begun) return;
    const message = shortened(why.replaceAll("\0", ""), limits.Answer.message.maxBytes);
    const { wireCode } = errorTable[code];
    connection.writeAnswer({ id, code: wireCode, message, begun, payload: noBytes, headers: [] });
  }
}
