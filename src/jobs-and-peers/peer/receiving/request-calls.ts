/** Calls of the user's handlers of requests. */
import { HawserError } from "../../../foundation/errors/index.js";
import { inSpan, rpcErrorIn, type TraceContext, traceContextOf, tracer } from "../../../foundation/runtime/index.js";
import { type Attempts, isThenable } from "../../handlers/attempts.js";
import { MessageView } from "../../handlers/message.js";
import { startHandling } from "../../handlers/spans.js";
import type { TopicHandler, TopicHandlers } from "../../handlers/topic-handlers.js";
import type { Transaction } from "../../store/index.js";
import type { PeerContext } from "../core/context.js";
import { pairsOfFrame } from "../core/frame-headers.js";
import type { IncomingRequest } from "./incoming-request.js";
import { answerOf, type RequestAnswer } from "./request-answer.js";

export class RequestCalls {
  readonly #context: PeerContext;
  readonly #handlers: TopicHandlers;
  readonly #attempts: Attempts;

  constructor(context: PeerContext, handlers: TopicHandlers, attempts: Attempts) {
    this.#context = context;
    this.#handlers = handlers;
    this.#attempts = attempts;
  }

  /**
   * Calls the handler of a request.
   *
   * @param topic undefined if the id of the topic is not in the catalog
   * @returns the value that the handler returned, a {@link RequestAnswer} made of it, or a promise of either
   * @throws the error of the handler or of `answerOf` (then `request.isStarted` is true), or the reason why the handler
   * was not called; synchronously or as a rejection
   */
  answer(request: IncomingRequest, topic: string | undefined): unknown {
    if (topic === undefined) throw new HawserError("unsubscribed", `topic id ${request.topicId} is not in the catalog`);
    const handler = this.#handlerOf(topic);
    const span = tracer && startHandling("respond", this.#context, topic, [request], 1);
    if (span !== undefined) {
      const call = async () => answerOf(await this.#answerOf(request, topic, handler, span.context), request);
      return inSpan(span, call, ({ headers }) => rpcErrorIn(pairsOfFrame(headers)));
    }
    return this.#answerOf(request, topic, handler, undefined);
  }

  /** @param trace context of the span, if there is one */
  #answerOf(request: IncomingRequest, topic: string, handler: TopicHandler, trace: TraceContext | undefined): unknown {
    return handler.settings[0]?.transactional
      ? this.#answerInTransaction(request, topic, handler, trace ?? traceContextOf(request.headers ?? []))
      : this.#callFor(request, topic, handler, undefined);
  }

  /** @throws HawserError `unsubscribed`, `not_supported` */
  #handlerOf(topic: string): TopicHandler {
    if (!this.#handlers.serves(topic)) throw this.#handlers.unserved(topic);
    const handler = this.#handlers.handlerOf(topic, "requests");
    if (handler !== undefined) return handler;
    const { name } = this.#context.sender;
    throw new HawserError(
      "not_supported",
      `"${name}" handles messages of "${topic}" but no requests; set a handler with respond`,
    );
  }

  /** The answer is sent after the transaction has ended: a transaction whose answer cannot be sent must not commit. */
  async #answerInTransaction(
    request: IncomingRequest,
    topic: string,
    handler: TopicHandler,
    trace: TraceContext | undefined,
  ): Promise<RequestAnswer> {
    const { store, lease } = this.#context;
    let answer: RequestAnswer | undefined;
    await store.runInTransaction(
      async (client) => {
        answer = answerOf(await this.#callFor(request, topic, handler, client), request);
        return answer.rollBack ? "rollBack" : "commit";
      },
      { trace, party: `${lease.name}:${topic}` },
    );
    return answer!;
  }

  /** Calls the handler of a request. Returns a promise unless the handler finished synchronously. */
  #callFor(request: IncomingRequest, topic: string, handler: TopicHandler, client: Transaction | undefined): unknown {
    request.isStarted = true;
    const view = new MessageView(this.#handlers.reply, request, topic, 1, client, request);
    const returned = handler.handle(view);
    const timeoutMs = handler.settings[0]?.timeoutMs;
    if (timeoutMs === undefined || !isThenable(returned)) return returned;
    return this.#attempts.wait(returned, request, timeoutMs, { messages: [], client });
  }
}
