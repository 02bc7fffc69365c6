/**
 * The requests of one sender: they wait for a free handler, and are answered on the connection by which they came. None
 * outlives its connection or its deadline: then nobody waits for the answer.
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

/** What the requests of a peer share. */
export interface SharedByRequests {
  readonly context: PeerContext;
  readonly calls: HandlerCalls;
  readonly dispatcher: Dispatcher;
  readonly handlers: TopicHandlers;
  /** None may begin now. */
  readonly holdsUpRequests: () => boolean;
  readonly isolation: { handlerEnded(): void };
}

function bytesOf(request: IncomingRequest): number {
  return memoryBytes(request, protocolConstants.messageOverheadBytes);
}

export class RequestIntake implements Turn {
  #connection: ListenerConnection | undefined;
  /** In the order in which they came. One that is cancelled leaves at once: nobody else is told that it is busy for it. */
  readonly #waiting = new Set<IncomingRequest>();
  /** Goes on where it was, and so does not pass over all that have left before. */
  #inTurn = this.#waiting.values();
  /** The memory that they take. */
  #waitingBytes = 0;
  /** Those that wait and those whose handler has returned a promise, by their ids. */
  readonly #open = new Map<number, IncomingRequest>();
  /** How many handlers run, those of earlier connections included. */
  #handlers = 0;
  #isStopping = false;
  #whenIdle: (() => void)[] = [];

  readonly #shared: SharedByRequests;
  readonly #source: Source;

  constructor(shared: SharedByRequests, source: Source) {
    this.#shared = shared;
    this.#source = source;
  }

  /** A handler runs. */
  get isHandling(): boolean {
    return this.#handlers > 0;
  }

  /** The sender has a new connection, or none any more: whoever waited on the one before does not. */
  onConnection(connection: ListenerConnection | undefined): void {
    this.#connection = connection;
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const request of this.#open.values()) request.leave();
    this.#open.clear();
  }

  /** Nobody waits any longer for the handlers that run. */
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
      if (this.#waiting.size === 0 && this.#mayBegin(connection) && this.#shared.dispatcher.takeSlot())
        this.#begin(connection, request);
      else if (this.#hasRoom(request)) {
        this.#waiting.add(request);
        this.#open.set(frame.id, request);
        this.#waitingBytes += bytesOf(request);
        this.wake();
      } else this.#refuse(connection, frame, "busy", `${this.#waiting.size} requests wait at "${name}" already`);
    }
  }

  onCancel(connection: ListenerConnection, id: number): void {
    const request = connection === this.#connection ? this.#open.get(id) : undefined;
    if (request === undefined) return;
    request.leave();
    if (this.#leave(request)) this.#open.delete(id);
  }

  /** The connection can be written to again, or what held up requests is over. */
  wake(): void {
    if (this.#waiting.size > 0) this.#shared.dispatcher.wake(this);
  }

  /** Begins with what waits, as far as handlers are free and the event loop's turn goes. */
  run(): void {
    const { dispatcher } = this.#shared;
    const turnEnds = performance.now() + turnMs;
    while (this.#waiting.size > 0) {
      const connection = this.#connection;
      if (connection === undefined || !this.#mayBegin(connection)) return;
      if (performance.now() > turnEnds || !dispatcher.takeSlot()) {
        dispatcher.wake(this);
        return;
      }
      const request = this.#takeNext()!;
      if (!request.isOver) this.#begin(connection, request);
      else {
        this.#open.delete(request.id);
        dispatcher.freeSlot();
      }
    }
  }

  /** Begins with nothing more: what waits is for another listener. Resolves when no handler runs. */
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

  /** The one that has waited longest, which waits no more. */
  #takeNext(): IncomingRequest | undefined {
    let next = this.#inTurn.next();
    if (next.done) {
      this.#inTurn = this.#waiting.values();
      next = this.#inTurn.next();
    }
    if (next.done) return undefined;
    this.#leave(next.value);
    return next.value;
  }

  /** It waits no more. @returns whether it did */
  #leave(request: IncomingRequest): boolean {
    if (!this.#waiting.delete(request)) return false;
    this.#waitingBytes -= bytesOf(request);
    return true;
  }

  /** True if one more request may wait. A single one always may. */
  #hasRoom(request: IncomingRequest): boolean {
    const { maxRequests, creditBytes } = this.#shared.context.settings;
    if (this.#waiting.size === 0) return true;
    return this.#waiting.size < maxRequests && this.#waitingBytes + bytesOf(request) <= creditBytes;
  }

  /** Whether a request may begin, if a handler is free. Answers to one that does not read would pile up. */
  #mayBegin(connection: ListenerConnection): boolean {
    return connection.canWrite && !this.#shared.holdsUpRequests();
  }

  #begin(connection: ListenerConnection, request: IncomingRequest): void {
    this.#handlers += 1;
    let returned: unknown;
    try {
      returned = this.#shared.calls.answer(this.#source, request);
      if (isThenable(returned)) {
        this.#open.set(request.id, request);
        Promise.resolve(returned).then(
          (value) => this.#answered(connection, request, value),
          (error) => this.#failed(connection, request, error),
        );
        return;
      }
    } catch (error) {
      this.#failed(connection, request, error);
      return;
    }
    this.#answered(connection, request, returned);
  }

  #answered(connection: ListenerConnection, request: IncomingRequest, returned: unknown): void {
    try {
      const answer = answerOf(returned, request);
      if (this.#isWaitedFor(connection, request)) connection.writeAnswer(answer);
    } catch (error) {
      this.#failed(connection, request, error);
      return;
    }
    this.#ended(request);
  }

  #failed(connection: ListenerConnection, request: IncomingRequest, error: unknown): void {
    const { code, message } = failureOf(error);
    if (request.begun) {
      const { context, calls } = this.#shared;
      const topic = calls.topics.known(request.topicKey) ?? "";
      const peer = this.#source.senderName;
      context.status.tell({ kind: "attempt_failed", topic, peer, attempt: 1, code, message, error });
    }
    if (this.#isWaitedFor(connection, request)) this.#refuse(connection, request, code, message, request.begun);
    this.#ended(request);
  }

  #isWaitedFor(connection: ListenerConnection, request: IncomingRequest): boolean {
    return connection === this.#connection && !request.isOver;
  }

  #ended(request: IncomingRequest): void {
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
    { id }: { readonly id: number },
    code: HawserError["code"],
    why: string,
    begun = false,
  ): void {
    // To one that does not read, and asks on, nothing is said.
    if (!connection.canWrite && !begun) return;
    const message = shortened(why.replaceAll("\0", ""), limits.Answer.message.maxBytes);
    const { wireCode } = errorTable[code];
    connection.writeAnswer({ id, code: wireCode, message, begun, payload: noBytes, headers: [] });
  }
}
