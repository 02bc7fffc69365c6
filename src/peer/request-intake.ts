/**
 * The requests of one sender: they wait for a free handler, and are answered on the connection by which they came. None
 * outlives its connection or its deadline: then nobody waits for the answer.
 */
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { errorTable, type HawserError, PeerError, shortened } from "../errors/index.js";
import type { ListenerConnection } from "../transport/index.js";
import { ErrorNumber, type Request } from "../wire/index.js";
import type { PeerContext } from "./context.js";
import { type Dispatcher, type Turn, turnMs } from "./dispatcher.js";
import type { Source } from "./due-message.js";
import { type FrameHeaders, frameHeaders } from "./frame-headers.js";
import { failureOf, type HandlerCalls, type RequestAnswer } from "./handler-call.js";
import { IncomingRequest } from "./incoming-request.js";
import { type AnswerToSend, bytesOf } from "./message.js";
import { checkHeaders } from "./options.js";

/** What the requests of a peer share. */
export interface SharedByRequests {
  readonly context: PeerContext;
  readonly calls: HandlerCalls;
  readonly dispatcher: Dispatcher;
  /** Whether there is a handler at all. */
  readonly handles: () => boolean;
  /** None may begin now. */
  readonly holdsUpRequests: () => boolean;
  /** A handler has ended. */
  readonly onRequestEnded: () => void;
}

export class RequestIntake implements Turn {
  #connection: ListenerConnection | undefined;
  /** In the order in which they came. One that is cancelled leaves at once: nobody else is told that it is busy for it. */
  readonly #waiting = new Set<IncomingRequest>();
  /** Goes on where it was, and so does not pass over all that have left before. */
  #inTurn = this.#waiting.values();
  #waitingBytes = 0;
  /** Those that wait and those in a handler, by their ids. */
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
    for (const request of this.#open.values()) request.abort();
    this.#open.clear();
  }

  onClosed(connection: ListenerConnection): void {
    if (this.#connection === connection) this.onConnection(undefined);
  }

  onRequest(connection: ListenerConnection, frame: Request): void {
    if (connection !== this.#connection) return;
    const { context, handles } = this.#shared;
    const { name } = context.sender;
    const { maxRequests, creditBytes } = context.settings;
    const bytes = this.#waitingBytes + frame.payload.length;
    if (this.#isStopping) this.#refuse(connection, frame, "not_running", `"${name}" is stopping`);
    else if (!handles()) this.#refuse(connection, frame, "unsubscribed", `"${name}" has no handler, and only sends`);
    else if (this.#waiting.size >= maxRequests || (this.#waiting.size > 0 && bytes > creditBytes)) {
      this.#refuse(connection, frame, "busy", `${this.#waiting.size} requests wait at "${name}" already`);
    } else {
      const request = new IncomingRequest(frame);
      this.#waiting.add(request);
      this.#open.set(frame.id, request);
      this.#waitingBytes = bytes;
      this.run();
    }
  }

  onCancel(connection: ListenerConnection, id: number): void {
    const request = connection === this.#connection ? this.#open.get(id) : undefined;
    if (request === undefined) return;
    request.abort();
    if (this.#leave(request)) this.#open.delete(id);
  }

  /** The connection can be written to again, or what held up requests is over. */
  wake(): void {
    if (this.#waiting.size > 0) this.#shared.dispatcher.wake(this);
  }

  /** Begins with what waits, as far as handlers are free and the event loop's turn goes. */
  run(): void {
    const { dispatcher, holdsUpRequests } = this.#shared;
    const turnEnds = performance.now() + turnMs;
    while (this.#waiting.size > 0) {
      const connection = this.#connection;
      // Answers to one that does not read would pile up.
      if (connection === undefined || !connection.canWrite || holdsUpRequests()) return;
      if (performance.now() > turnEnds || !dispatcher.takeSlot()) {
        dispatcher.wake(this);
        return;
      }
      const request = this.#takeNext()!;
      if (!request.isOver) this.#begin(connection, request);
      else {
        this.#open.delete(request.frame.id);
        dispatcher.freeSlot();
      }
    }
  }

  /** Begins with nothing more: what waits is for another listener. Resolves when no handler runs. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const { context } = this.#shared;
    for (let request = this.#takeNext(); request !== undefined; request = this.#takeNext()) {
      this.#open.delete(request.frame.id);
      if (this.#connection !== undefined)
        this.#refuse(this.#connection, request.frame, "not_running", `"${context.sender.name}" is stopping`);
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
    this.#waitingBytes -= request.frame.payload.length;
    return true;
  }

  #begin(connection: ListenerConnection, request: IncomingRequest): void {
    this.#handlers += 1;
    let answer: CheckedAnswer | Promise<CheckedAnswer>;
    try {
      const { maxAnswerBytes } = request.frame;
      answer = this.#shared.calls.answer(this.#source, request, (returned) => answerOf(returned, maxAnswerBytes));
    } catch (error) {
      this.#failed(connection, request, error);
      return;
    }
    if (!(answer instanceof Promise)) this.#answered(connection, request, answer);
    else
      answer.then(
        (given) => this.#answered(connection, request, given),
        (error) => this.#failed(connection, request, error),
      );
  }

  #answered(connection: ListenerConnection, request: IncomingRequest, { payload, headers }: CheckedAnswer): void {
    try {
      if (this.#isWaitedFor(connection, request)) {
        const { id } = request.frame;
        connection.writeAnswer({ id, code: ErrorNumber.UNSPECIFIED, message: "", begun: true, payload, headers });
      }
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
      const topic = calls.topics.known(request.frame.topicKey) ?? "";
      const peer = this.#source.senderName;
      context.status.tell({ kind: "attempt_failed", topic, peer, attempt: 1, code, message, error });
    }
    if (this.#isWaitedFor(connection, request)) this.#refuse(connection, request.frame, code, message, request.begun);
    this.#ended(request);
  }

  #isWaitedFor(connection: ListenerConnection, request: IncomingRequest): boolean {
    return connection === this.#connection && !request.isOver;
  }

  #ended(request: IncomingRequest): void {
    request.end();
    if (this.#open.get(request.frame.id) === request) this.#open.delete(request.frame.id);
    this.#handlers -= 1;
    const { dispatcher, onRequestEnded } = this.#shared;
    dispatcher.freeSlot();
    onRequestEnded();
    if (!this.isHandling) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #refuse(
    connection: ListenerConnection,
    { id }: Request,
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

const noBytes = new Uint8Array(0);

/** What a handler returned, ready to be sent. */
interface CheckedAnswer extends RequestAnswer {
  readonly payload: Uint8Array;
  readonly headers: FrameHeaders;
}

/** Whether it is an `AnswerToSend`. Of any other object nothing would be sent, in silence. */
function isAnswer(given: unknown): boolean {
  if (typeof given !== "object" || given === null) return false;
  if ("payload" in given || "headers" in given) return true;
  return Object.getPrototypeOf(given) === Object.prototype && Object.keys(given).length === 0;
}

/** What a handler returned, as an answer. @throws PeerError `handler_failed`, `payload_too_large`, naming what is wrong with it */
function answerOf(returned: unknown, maxBytes: number): CheckedAnswer {
  const given = returned ?? {};
  const isPayload = typeof given === "string" || given instanceof Uint8Array;
  const { payload = noBytes, headers, rollBack = false } = (isPayload ? { payload: given } : given) as AnswerToSend;
  const bytes = bytesOf(payload);
  const isOther = !isPayload && !isAnswer(given);
  if (isOther || !(bytes instanceof Uint8Array)) {
    const otherType = typeof given === "object" ? "an object without payload and headers" : typeof given;
    const type = isOther ? otherType : `an object with a payload of type ${typeof payload}`;
    throw new PeerError(
      "handler_failed",
      `the handler returned ${type} for a request; return text, a Uint8Array, { payload, headers }, or nothing`,
    );
  }
  if (typeof rollBack !== "boolean") {
    const text = `the handler returned an object with a rollBack of type ${typeof rollBack} for a request; it must be a boolean`;
    throw new PeerError("handler_failed", text);
  }
  if (bytes.length > maxBytes) {
    throw new PeerError(
      "payload_too_large",
      `the handler returned ${bytes.length} bytes; the sender of the request takes at most ${maxBytes}`,
    );
  }
  const pairs = checkHeaders(headers);
  return { payload: bytes, headers: pairs === undefined ? [] : frameHeaders(pairs), rollBack };
}
