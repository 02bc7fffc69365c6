/**
 * Calls of the user's handlers of messages, jobs and those of channels alike. A call ends with a {@link HandlerResult}, and never throws.
 *
 * There are two ways. A handler of single messages without a transaction is called with its message, and is done when
 * it returns ({@link HandlerCalls.call}); most messages of channels go this way. Every other handler is called with a list of
 * messages, one or a batch of them, in one transaction if the handler is transactional ({@link ListedCalls}).
 */
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import type { HawserError } from "../../foundation/errors/index.js";
import { nothingThrown, type OperationSpan, tracer } from "../../foundation/runtime/index.js";
import { type HandledMessage, type HandlerResult, type Headers, headerValue } from "../channel/index.js";
import { Attempts, expiredMs, isThenable } from "./attempts.js";
import type { HandledLink, HandledTurn } from "./handled-link.js";
import { done, refused, retryLater } from "./handler-result.js";
import type { HandlingContext } from "./handling-context.js";
import { ListedCalls } from "./listed-calls.js";
import { MessageView } from "./message.js";
import { startHandling } from "./spans.js";
import type { ServedTopic, TopicHandlers } from "./topic-handlers.js";

const { messageKeyHeader } = protocolConstants;

export class HandlerCalls {
  readonly attempts: Attempts;
  readonly #context: HandlingContext;
  readonly #handlers: TopicHandlers;
  readonly #lists: ListedCalls;

  constructor(context: HandlingContext, handlers: TopicHandlers) {
    this.#context = context;
    this.#handlers = handlers;
    this.attempts = new Attempts(context);
    this.#lists = new ListedCalls(context, handlers, this.attempts);
  }

  /** Tells all message handlers that the peer stops, and starts incomplete batches from now on without waiting for further messages. */
  stop(reason: HawserError): void {
    this.attempts.stop(reason);
    this.#lists.stopWaiting();
  }

  /** Starts the handler of a message. Returns a promise, which never rejects, unless the result is known at once. */
  start(
    link: HandledLink,
    turn: HandledTurn,
    message: HandledMessage,
    topic: string,
  ): HandlerResult | Promise<HandlerResult> {
    const { headers, fault } = message;
    if (this.attempts.isCancelled(message)) return retryLater;
    if (fault !== undefined) return refused("invalid_message", fault);
    const served = this.#handlers.get(topic);
    if (served?.isServed !== true) return link.unserved(turn, topic);
    if (this.#handlers.isPaused(topic)) return retryLater;
    const late = headers === undefined ? 0 : expiredMs(headers);
    if (late > 0) return refused("expired", `its time to live ended ${late} ms before its handler could start`);
    if (turn.attempts > this.#handlers.retryOf(topic, headers).attempts) {
      const why = "the process or its Postgres session ended while its handler was running";
      return refused("handler_crashed", `${why}, and it has no attempts left`);
    }
    const handling = this.#handlers.handlingOf(topic, headers);
    const { batch, transactional } = handling;
    if (batch !== undefined) return this.#lists.addToBatch(handling, batch, link, turn, message, topic);
    if (transactional || message.kept !== undefined) return this.#lists.handleOne(topic, handling, link, turn, message);
    const begins = link.begin(turn);
    const call = (): HandlerResult | Promise<HandlerResult> => {
      served.counts.attempts += 1;
      return this.call(message, served, turn.attempts, performance.now());
    };
    return begins === undefined ? call() : this.#callAfter(begins, link, message, call);
  }

  /** Calls the handler of a message, unless it must not begin, or was overtaken while Postgres was told of its start. */
  async #callAfter(
    begins: Promise<HandlerResult | undefined>,
    link: HandledLink,
    message: HandledMessage,
    call: () => HandlerResult | Promise<HandlerResult>,
  ): Promise<HandlerResult> {
    return (await begins) ?? this.attempts.overtakenBy(link, message) ?? (await call());
  }

  /**
   * Returns true if a message can go straight to {@link call}: its topic is not paused, its handler has no limit, its time
   * to live has not ended, and it has no key.
   */
  mayCall({ name, isServed, messages }: ServedTopic, headers: Headers | undefined): boolean {
    if (!isServed || messages === undefined || this.#handlers.isPaused(name)) return false;
    if (headers !== undefined && (expiredMs(headers) > 0 || headerValue(headers, messageKeyHeader) !== undefined))
      return false;
    const { batch, transactional, limit } = messages.settingsOf(headers) ?? this.#handlers.defaults;
    return !transactional && batch === undefined && limit === undefined;
  }

  /**
   * Calls a handler that is neither transactional nor a batch handler.
   *
   * @param startedAt time of the call (`performance.now()`, ms); a recent one is enough
   * @returns {@link done} if the handler has returned, a result if it has thrown, a promise if it returned one; the
   * promise never rejects
   */
  call(
    message: HandledMessage,
    topic: ServedTopic,
    attempt: number,
    startedAt: number,
  ): HandlerResult | Promise<HandlerResult> {
    const view = new MessageView(this.#handlers.reply, message, topic.name, attempt);
    const { stopReason } = this.attempts;
    if (stopReason !== undefined) view.cancellation.stop(stopReason);
    const span = tracer && startHandling("process", this.#context, topic.name, [message], attempt);
    try {
      const returned = span === undefined ? this.#handlers.handle(topic, view) : this.#handleIn(span, topic, view);
      if (isThenable(returned)) return this.#awaitHandler(message, view, startedAt, returned, span);
      span?.end();
      return done;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return this.attempts.failed(message, topic.name, attempt, error);
    }
  }

  /** Apart from {@link call}, where a closure would take memory for each message. */
  #handleIn(span: OperationSpan, topic: ServedTopic, view: MessageView): unknown {
    return span.run(() => this.#handlers.handle(topic, view));
  }

  async #awaitHandler(
    message: HandledMessage,
    view: MessageView,
    startedAt: number,
    returned: PromiseLike<unknown>,
    span: OperationSpan | undefined,
  ): Promise<HandlerResult> {
    const { topic, attempt, cancellation } = view;
    const { timeoutMs } = this.#handlers.handlingOf(topic, message.headers);
    try {
      const pending = { messages: [message], client: undefined };
      const value = await this.attempts.wait(returned, cancellation, timeoutMs, pending);
      span?.end();
      return value === retryLater ? retryLater : done;
    } catch (error) {
      span?.end(error ?? nothingThrown);
      return this.attempts.isCancelled(message) ? retryLater : this.attempts.failed(message, topic, attempt, error);
    } finally {
      this.#handlers.tookMs(topic, performance.now() - startedAt);
    }
  }
}
