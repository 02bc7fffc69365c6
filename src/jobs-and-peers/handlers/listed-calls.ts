/**
 * Calls of handlers with a list of messages: a batch, or one message, in a transaction if the handler is transactional. A list can
 * have jobs and messages of channels.
 */

import { asHawserError, HawserError, RetryAfter } from "../../foundation/errors/index.js";
import { outcomeOf } from "../../foundation/postgres/index.js";
import {
  Cancellation,
  delay,
  inSpan,
  sharedTrace,
  type TraceContext,
  traceContextOf,
  tracer,
} from "../../foundation/runtime/index.js";
import { postgresErrorOf } from "../../foundation/sql-clients/index.js";
import type { HandledMessage, HandlerResult } from "../channel/index.js";
import { isRefusedForGood, type Transaction } from "../store/index.js";
import { type Attempts, isThenable } from "./attempts.js";
import { BatchQueue } from "./batch-queue.js";
import type { HandledLink, HandledTurn } from "./handled-link.js";
import { cutOff, done, marked, retryLater, sessionEnded } from "./handler-result.js";
import type { HandlingContext } from "./handling-context.js";
import type { BatchHandling, HandlingSettings } from "./handling-settings.js";
import { changeLimit } from "./limits/concurrency-limit.js";
import { MessageView } from "./message.js";
import { startHandling } from "./spans.js";
import type { TopicHandlers } from "./topic-handlers.js";
import type { Completion } from "./transactions/transactional.js";

/** SQLSTATEs of serialization_failure and deadlock_detected. */
const conflictCodes: ReadonlySet<unknown> = new Set(["40001", "40P01"]);
/** Number of conflicts after which the next one fails the attempt. */
const mostConflicts = 10;
const conflictDelayMs = 5;
const maxConflictDelayMs = 500;

const committedByHandler =
  "the handler has committed its transaction itself, so its message counts as handled and is not tried again; leave COMMIT out: Hawser commits";

/** Message of a list that a handler is called with. */
interface ListedMessage {
  readonly link: HandledLink;
  readonly turn: HandledTurn;
  readonly message: HandledMessage;
  /** Decoded value, for a batch handler of one type. */
  readonly value: unknown;
}

/** End of a handler's transaction. It is rolled back without a failure if messages of it are not done. */
type TransactionEnd = "commit" | "rollBack";

/** Results of the messages of a list; undefined for those that are handled again, alone or with fewer others. */
type Results = readonly (HandlerResult | undefined)[];

/** Call of a handler with a list, which is repeated after a conflict of its transaction. */
interface ListedCall {
  readonly topic: string;
  readonly handling: HandlingSettings;
  readonly messages: readonly ListedMessage[];
  readonly cancellation: Cancellation;
  /** Errors of messages, by index: those that the handler has marked, or the one that it has thrown. */
  readonly errors: Map<number, unknown>;
  /** Results of messages that must not begin, by index. */
  readonly withheld: Map<number, HandlerResult>;
}

/** Stage of a call in its transaction. */
interface InTransaction {
  state: "waiting" | "called" | "done";
  /** Error that the handler has thrown. */
  thrown?: { readonly error: unknown };
}

export class ListedCalls {
  readonly #context: HandlingContext;
  readonly #handlers: TopicHandlers;
  readonly #attempts: Attempts;
  /** Batch queues by batch handler. */
  readonly #batches = new Map<BatchHandling, BatchQueue<ListedMessage>>();
  /** True while incomplete batches wait for further messages. */
  #mayDelayBatches = true;

  constructor(context: HandlingContext, handlers: TopicHandlers, attempts: Attempts) {
    this.#context = context;
    this.#handlers = handlers;
    this.#attempts = attempts;
  }

  /** Starts incomplete batches from now on without waiting for further messages. */
  stopWaiting(): void {
    this.#mayDelayBatches = false;
    for (const queue of this.#batches.values()) queue.stopWaiting();
  }

  addToBatch(
    handling: HandlingSettings,
    batch: BatchHandling,
    link: HandledLink,
    turn: HandledTurn,
    message: HandledMessage,
    topic: string,
  ): HandlerResult | Promise<HandlerResult> {
    let value: unknown;
    try {
      value = this.#handlers.decode(topic, message.headers, message.payload);
    } catch (error) {
      return this.#attempts.failed(message, topic, turn.attempts, error);
    }
    let queue = this.#batches.get(batch);
    if (queue === undefined) {
      queue = new BatchQueue(batch.settings, (messages) => this.#handle(topic, handling, messages));
      if (!this.#mayDelayBatches) queue.stopWaiting();
      this.#batches.set(batch, queue);
    }
    return queue.add({ link, turn, message, value }, message.payload.length, () => link.onJoined(turn));
  }

  /** Calls a handler with one message. The promise never rejects. */
  async handleOne(
    topic: string,
    handling: HandlingSettings,
    link: HandledLink,
    turn: HandledTurn,
    message: HandledMessage,
  ): Promise<HandlerResult> {
    const [result] = await this.#handle(topic, handling, [{ link, turn, message, value: undefined }]);
    return result!;
  }

  /** Calls a handler. Never rejects. @returns the results; a single message always has one */
  async #handle(topic: string, handling: HandlingSettings, messages: readonly ListedMessage[]): Promise<Results> {
    const early = this.#resultsBefore(topic, messages);
    if (early !== undefined) return early;
    const call: ListedCall = {
      ...{ topic, handling, messages, cancellation: new Cancellation(), errors: new Map(), withheld: new Map() },
    };
    const { errors, withheld } = call;
    const span =
      tracer && startHandling("process", this.#context, topic, messagesOf(messages), messages[0]!.turn.attempts);
    let result: HandlerResult | undefined;
    try {
      if (span === undefined) result = await this.#run(call, undefined);
      else {
        const failureIn = (): unknown => (handling.transactional ? errors.values().next().value : undefined);
        result = await inSpan(span, () => this.#run(call, span.context), failureIn);
      }
    } catch (error) {
      // A batch that is wanted later is not handled again in parts.
      if (messages.length === 1 || error instanceof RetryAfter)
        for (const index of messages.keys()) if (!errors.has(index)) errors.set(index, error);
    }
    if (withheld.size > 0) return messages.map((_, index) => withheld.get(index));
    if (messages.length === 1) result ??= retryLater;
    const results = new Array<HandlerResult | undefined>(messages.length).fill(result);
    for (const [index, { turn, message }] of messages.entries()) {
      if (!errors.has(index)) continue;
      results[index] = this.#attempts.isCancelled(message)
        ? retryLater
        : this.#attempts.failed(message, topic, turn.attempts, errors.get(index));
    }
    return results;
  }

  /** @param context context of the span of the call, if there is one */
  async #run(call: ListedCall, context: TraceContext | undefined): Promise<HandlerResult | undefined> {
    const { handling, messages } = call;
    if (handling.transactional) {
      const trace = messages.length === 1 ? (context ?? traceOf(messages)) : traceOf(messages);
      return await this.#inTransaction(call, trace);
    }
    await this.#call(call, undefined);
    return done;
  }

  /** Results of messages that do not begin, since they are gone, or the list is to wait; undefined if all may begin. */
  #resultsBefore(topic: string, messages: readonly ListedMessage[]): Results | undefined {
    let results: (HandlerResult | undefined)[] | undefined;
    for (const [index, { link, message }] of messages.entries()) {
      if (!link.isClosed && !this.#attempts.isCancelled(message)) continue;
      results ??= new Array(messages.length).fill(undefined);
      results[index] = retryLater;
    }
    if (results !== undefined) return results;
    // Nor the parts of a batch that was cut off.
    if (this.#attempts.isAborted) return messages.map(() => cutOff);
    // Since the messages have joined the batch.
    return this.#handlers.isPaused(topic) ? messages.map(() => retryLater) : undefined;
  }

  /**
   * Calls a handler in a transaction that also completes the messages. A call is repeated after a deadlock or a serialization failure, at
   * most {@link mostConflicts} times, as part of the same attempt. Nothing of it is committed, and the delays differ, so that the same
   * ones do not meet again.
   *
   * @param trace context of what the handler enqueues from SQL
   * @returns the result of every message; undefined if they are handled again, alone or with fewer others
   * @throws the error of the handler
   */
  async #inTransaction(call: ListedCall, trace: TraceContext | undefined): Promise<HandlerResult | undefined> {
    for (let conflicts = 1; ; conflicts += 1) {
      try {
        return await this.#transact(call, trace);
      } catch (error) {
        if (conflicts > mostConflicts || !conflictCodes.has(postgresErrorOf(error).code)) throw error;
        this.#context.logger.debug(
          { err: error, conflicts },
          "a transaction was in conflict with others; it is repeated",
        );
      }
      call.errors.clear();
      await delay(Math.random() * Math.min(conflictDelayMs * 2 ** conflicts, maxConflictDelayMs));
    }
  }

  async #transact(call: ListedCall, trace: TraceContext | undefined): Promise<HandlerResult | undefined> {
    const { topic, messages } = call;
    const { store, lease, sender, status } = this.#context;
    const { link } = messages[0]!;
    const at: InTransaction = { state: "waiting" };
    const completions: Completion[] = [];
    for (const one of messages) {
      const completion = one.link.completionOf(one.turn);
      if (completion !== undefined) completions.push(completion);
    }
    try {
      // The lease may be renewed on another server while the handler runs; its writes belong to the current epoch.
      const handler = (client: Transaction): Promise<TransactionEnd> => this.#callIn(client, call, at);
      const outcome = await store.handleInTransaction(completions, handler, {
        trace,
        party: `${lease?.name ?? sender.name}:${topic}`,
      });
      if (outcome === "committed") return marked;
      if (outcome === "committedByHandler") {
        const error = new HawserError("handler_failed", committedByHandler);
        this.#reportAll(call, { errorCode: error.code, errorMessage: error.message }, error);
        return marked;
      }
      if (outcome === "rolledBack") return undefined;
      if (messages.every((one) => one.link.isClosed)) return retryLater;
      if (messages.length > 1) return undefined;
      if (outcome === "duplicate") return marked;
      link.onNotOwned();
      return retryLater;
    } catch (error) {
      if (this.#isWithdrawn(messages)) return undefined;
      if (at.thrown !== undefined && Object.is(error, at.thrown.error)) throw error;
      // At-most-once messages are not retried, because the effects of the handler may be committed.
      if (at.state !== "waiting" && completions.length === 0) throw error;
      // Postgres rejects the commit because of the handler: a swallowed SQL error, a deferred constraint, a missing
      // privilege.
      if (at.state === "done" && isHandlersFault(error)) throw error;
      const failure = asHawserError(error);
      status.storeFailed(failure);
      if (at.state === "waiting" || outcomeOf(failure.cause) !== "unknown") return retryLater;
      const result = sessionEnded(failure.message);
      this.#reportAll(call, result, failure);
      return result;
    }
  }

  /** Calls a handler in its transaction, unless the call is obsolete when it has its connection. */
  async #callIn(client: Transaction, call: ListedCall, at: InTransaction): Promise<TransactionEnd> {
    if (this.#isObsolete(call)) return "rollBack";
    at.state = "called";
    try {
      const end = await this.#call(call, client);
      if (end === "rollBack" || this.#isWithdrawn(call.messages)) return "rollBack";
      at.state = "done";
      return end;
    } catch (error) {
      at.thrown = { error };
      throw error;
    }
  }

  /** Calls a handler. @throws the error of the handler */
  async #call(call: ListedCall, client: Transaction | undefined): Promise<TransactionEnd> {
    const { topic, handling, messages, cancellation, errors, withheld } = call;
    const { batch, timeoutMs } = handling;
    const beginnings: (readonly [number, Promise<HandlerResult | undefined>])[] = [];
    for (const [index, { link, turn }] of messages.entries()) {
      const begins = link.begin(turn);
      if (begins !== undefined) beginnings.push([index, begins]);
    }
    for (const [index, begins] of beginnings) {
      const { link, message } = messages[index]!;
      const result = (await begins) ?? this.#attempts.overtakenBy(link, message);
      if (result !== undefined) withheld.set(index, result);
    }
    if (withheld.size > 0) return "rollBack";
    const { stopReason } = this.#attempts;
    if (stopReason !== undefined) cancellation.stop(stopReason);
    const { reply } = this.#handlers;
    const views: MessageView[] = [];
    for (const { turn, message } of messages)
      views.push(new MessageView(reply, message, topic, turn.attempts, client, cancellation));
    this.#handlers.countsOf(topic).attempts += messages.length;
    const startedAt = performance.now();
    const returned =
      batch === undefined
        ? this.#handlers.handle(this.#handlers.get(topic), views[0]!)
        : batch.handle(
            views,
            messages.map((one) => one.value),
            (index, error) => void errors.set(index, error),
          );
    let value: unknown;
    try {
      const pending = { messages: messagesOf(messages), client };
      value = await this.#attempts.wait(returned, cancellation, timeoutMs, pending);
    } finally {
      if (isThenable(returned)) this.#handlers.tookMs(topic, performance.now() - startedAt);
    }
    if (value === retryLater) return "rollBack";
    keepResults(messages, batch === undefined ? [value] : value, performance.now() - startedAt, errors);
    return errors.size > 0 ? "rollBack" : "commit";
  }

  /**
   * Whether a call that may have waited for a connection must not begin: the peer has stopped, the topic was paused, or the handler was
   * removed or replaced.
   */
  #isObsolete({ topic, handling, messages }: ListedCall): boolean {
    const [{ link, turn, message }] = messages as [ListedMessage];
    for (const one of messages) if (one.link.isClosed) return true;
    return (
      this.#attempts.isAborted ||
      this.#isWithdrawn(messages) ||
      this.#handlers.isPaused(topic) ||
      (handling.batch === undefined &&
        !(this.#handlers.serves(topic) && changeLimit(turn, this.#handlers.limitOf(topic, message.headers), link)))
    );
  }

  #isWithdrawn(messages: readonly ListedMessage[]): boolean {
    for (const { message } of messages) if (this.#attempts.isWithdrawn(message)) return true;
    return false;
  }

  #reportAll({ topic, messages }: ListedCall, failure: Parameters<Attempts["report"]>[3], error: unknown): void {
    for (const { message, turn } of messages) this.#attempts.report(message, topic, turn.attempts, failure, error);
  }
}

/** True if the handler ended its transaction itself, or left it in a state that Postgres does not commit. */
function isHandlersFault(error: unknown): boolean {
  return (error instanceof HawserError && error.code === "handler_failed") || isRefusedForGood(error);
}

/**
 * Sets what is kept of messages without an error.
 *
 * @param returned list with the result of each message
 * @param errors gets an error for each message whose result cannot be kept
 */
function keepResults(
  messages: readonly ListedMessage[],
  returned: unknown,
  durationMs: number,
  errors: Map<number, unknown>,
): void {
  for (const [index, { message }] of messages.entries()) {
    if (message.kept === undefined || errors.has(index)) continue;
    try {
      message.kept.returned(Array.isArray(returned) ? returned[index] : undefined, durationMs);
    } catch (error) {
      errors.set(index, error);
    }
  }
}

function messagesOf(listed: readonly ListedMessage[]): readonly HandledMessage[] {
  const messages: HandledMessage[] = [];
  for (const { message } of listed) messages.push(message);
  return messages;
}

/** Context that all messages have; undefined if they have different ones, as messages of a batch continue their own traces. */
function traceOf(listed: readonly ListedMessage[]): TraceContext | undefined {
  if (listed.length === 1) return traceContextOf(listed[0]!.message.headers ?? []);
  return sharedTrace(listed.map(({ message }) => traceContextOf(message.headers ?? [])));
}
