/**
 * Messages of subscribed functions that wait in the queue. Every `hawser serve` takes some of them, leader or not, with a worker of the
 * queue (`src/jobs-and-peers/queue/worker`), which decides about retries, limits and dead letters as for jobs. A function runs by the
 * executor, in a transaction that deletes the rows of its messages, so that it takes effect exactly once.
 *
 * Each binding has a topic of its own, with a reserved prefix: nobody can enqueue for it. `hawser.check_places` refuses everybody but
 * `hawser serve` who takes from it.
 */
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { errorTable, HawserError } from "../../foundation/errors/index.js";
import { type PostgresSession, sourceOf } from "../../foundation/postgres/index.js";
import { type Logger, type RareLog, systemClock } from "../../foundation/runtime/index.js";
import { type HandlerResult, type Headers, headerValue } from "../../jobs-and-peers/channel/index.js";
import { policyOf } from "../../jobs-and-peers/handlers/handling-settings.js";
import { ConcurrencyLimit } from "../../jobs-and-peers/handlers/limits/concurrency-limit.js";
import { StatusReporter } from "../../jobs-and-peers/handlers/status.js";
import { plainHandler, TopicHandlers } from "../../jobs-and-peers/handlers/topic-handlers.js";
import type { QueueStore } from "../../jobs-and-peers/peer-store/index.js";
import { type CallMessage, QueueWorker } from "../../jobs-and-peers/queue/worker/queue-worker.js";
import { Queue, type QueuedMessage } from "../../jobs-and-peers/store/index.js";
import { endHandlers, endOf } from "../../jobs-and-peers/worker/ending.js";
import type { Subscription } from "./bindings.js";
import type { BatchRunner } from "./executor/index.js";
import type { InboundMessage } from "./message.js";
import type { FunctionError, Outcome } from "./queue/index.js";

const { functionPrefix, functionHeader } = queueConstants;

/** Retries after failures that no message causes. A message that makes its function fail is a dead letter at once. */
const retry = policyOf({ attempts: 20, delayMs: 100, factor: 2, maxDelayMs: 5_000, jitterPercent: 50 });
/** Time until a message is tried again whose function could not run: it waited for a lock, or no session could be opened. */
const waitsMs = 1_000;
/**
 * Time after the end of a subscription in which messages of ended subscriptions are looked for at each call: some
 * are locked at the first one, or are being put into the queue.
 */
const dropsForMs = 60_000;
/** SQLSTATE of a lock timeout: other transactions can hold a lock without limit. */
const lockNotAvailable = "55P03";

interface QueuedMessagesOptions {
  readonly databaseUrl: string | undefined;
  readonly runner: BatchRunner;
  /** Number of functions that run at a time. */
  readonly sessions: number;
  readonly logger: Logger;
  readonly rareLog: RareLog;
}

/** Content of the header {@link functionHeader}. */
interface FunctionHeader {
  readonly subject: string;
  readonly id: string;
  readonly headers: unknown;
  readonly problem?: string;
}

export class QueuedMessages {
  readonly #options: QueuedMessagesOptions;
  readonly #queue: Queue;
  readonly #handlers: TopicHandlers;
  readonly #worker: QueueWorker;
  /** Bindings by topic. */
  #bindings: ReadonlyMap<string, Subscription> = new Map();
  /** Time until which messages are looked for whose functions are not subscribed any more: at least once. */
  #dropsUntil = Number.POSITIVE_INFINITY;

  constructor(options: QueuedMessagesOptions) {
    const { databaseUrl, sessions, logger } = options;
    this.#options = options;
    const name = "hawser serve";
    const membership = { group: undefined, takeoverMs: undefined };
    const handling = { ...membership, transactional: false, durable: false, timeoutMs: undefined, retry };
    const noReply = () => Promise.reject(new HawserError("no_listener", "a subscribed function does not reply"));
    this.#handlers = new TopicHandlers(
      { name, topic: "" },
      { ...handling, limit: undefined, batch: undefined },
      noReply,
    );
    this.#queue = new Queue(sourceOf({ databaseUrl }), { clock: systemClock, logger });
    this.#worker = new QueueWorker(
      {
        sender: { name },
        settings: { concurrency: sessions, maxMessageBytes: Number.POSITIVE_INFINITY },
        membership,
        // The executor has the transactions, so the worker needs nothing but the queue.
        store: { queue: this.#queue } as QueueStore,
        workerName: `${name}:${process.pid}`,
        idleBeatMs: queueConstants.idleBeatMs,
        lease: undefined,
        status: new StatusReporter(undefined, undefined, name),
        logger,
        nameLost: () => undefined,
      },
      this.#handlers,
      undefined,
      (...given) => this.#call(...given),
    );
    this.#worker.start();
  }

  /** Takes messages of these bindings from now on. */
  configure(bindings: readonly Subscription[]): void {
    const { sessions } = this.#options;
    const before = this.#bindings;
    this.#bindings = new Map(bindings.map((binding) => [topicOf(binding), binding]));
    const isSame = [...this.#bindings].every(([topic, { runAs }]) => before.get(topic)?.runAs === runAs);
    if (isSame && bindings.length === before.size) return;
    for (const topic of before.keys()) {
      if (this.#bindings.has(topic)) continue;
      this.#handlers.remove(topic);
      this.#dropsUntil = performance.now() + dropsForMs;
    }
    // One session is left for other roles, or for other functions of the only role.
    const hasRoles = bindings.some(({ runAs }) => runAs !== bindings[0]!.runAs);
    const most = Math.max(1, sessions - (bindings.length > 1 ? 1 : 0));
    const limits = new Map<string, ConcurrencyLimit>();
    for (const [topic, { runAs }] of this.#bindings) {
      const party = hasRoles ? runAs : topic;
      const limit = limits.get(party) ?? new ConcurrencyLimit(most);
      limits.set(party, limit);
      this.#handlers.set(topic, "messages", plainHandler(nothing, { ...this.#handlers.defaults, limit }, nothing));
    }
    this.#worker.handlersChanged();
  }

  /** Makes dead letters again of messages whose functions are not subscribed any more, if there may be some. @throws errors of the session */
  async dropUnsubscribed(session: PostgresSession): Promise<void> {
    if (performance.now() > this.#dropsUntil) return;
    if (this.#dropsUntil === Number.POSITIVE_INFINITY) this.#dropsUntil = Number.NEGATIVE_INFINITY;
    const [row] = await session.query<{ dropped: bigint }>("SELECT dropped FROM hawser.drop_unsubscribed()");
    const dropped = Number(row!.dropped);
    if (dropped > 0)
      this.#options.logger.info(
        { dropped },
        "messages of functions that are not subscribed any more are dead letters again",
      );
  }

  /** Gives back what has not begun, and waits for functions that run. Those that exceed the deadline are cut off. */
  async stop(deadlineMs: number): Promise<void> {
    const reason = new HawserError("aborted", "hawser serve stops");
    await endHandlers(this.#worker.stop(reason), deadlineMs, endOf(deadlineMs), {
      warn: () => undefined,
      abort: () => this.#worker.calls.attempts.abort(reason),
      cutOff: () => this.#worker.cutOff(),
    });
  }

  /** Closes the session. */
  async close(): Promise<void> {
    this.#worker.close();
    await this.#queue.close();
  }

  readonly #call: CallMessage = async (link, turn, message) => {
    const binding = this.#bindings.get(message.topic);
    if (binding === undefined) return await link.unserved(turn, message.topic);
    if (turn.attempts > retry.attempts)
      return refused({
        code: errorTable.session_lost.sqlstate,
        message: "processes ended while the function ran for this message",
      });
    return (await link.begin(turn)) ?? (await this.#run(binding, message));
  };

  async #run(binding: Subscription, message: QueuedMessage): Promise<HandlerResult> {
    const step = { subscription: binding, messages: [inboundOf(message)], savedIds: [], queued: [message.id] };
    const run = () => this.#options.runner.run(step, undefined);
    let outcome = await run();
    // An operator may have ended the first session, or it may have been lost after the commit.
    if (outcome.kind === "session_lost") outcome = await run();
    const result = resultOf(outcome);
    if (result.kind === "refused") {
      const { functionName, subject } = binding;
      this.#options.rareLog.warn(
        "a message became a dead letter",
        `${functionName} on ${subject}: SQLSTATE ${result.errorCode}`,
      );
    }
    return result;
  }
}

const nothing = (): void => undefined;

/** Topic of the messages of a binding. */
function topicOf({ id }: Subscription): string {
  return `${functionPrefix}${id}`;
}

function inboundOf({ headers, payload }: QueuedMessage): InboundMessage {
  const {
    subject,
    id,
    headers: given,
    problem,
  } = JSON.parse(headerValue(headers as Headers, functionHeader)!) as FunctionHeader;
  const text = given == null ? undefined : JSON.stringify(given);
  return { id, subject, payload, headers: text, headersProblem: problem, receivedAt: performance.now() };
}

function resultOf(outcome: Outcome): HandlerResult {
  switch (outcome.kind) {
    case "committed":
      return { kind: "done", isMarked: true };
    case "failed":
    case "timed_out":
      return refused(outcome.error);
    case "session_lost": {
      const message = `The database session ended twice while the function ran for this message alone: ${outcome.message}`;
      return refused({ code: errorTable.session_lost.sqlstate, message });
    }
    case "transient": {
      const { code: errorCode, message: errorMessage } = outcome.error;
      if (errorCode === lockNotAvailable) return { kind: "deferred", errorCode, errorMessage, delayMs: waitsMs };
      return { kind: "failed", errorCode, errorMessage, failedAt: Date.now() };
    }
    case "gone":
      return { kind: "done", isMarked: true };
    default:
      return { kind: "deferred", errorCode: "busy", errorMessage: "", delayMs: waitsMs };
  }
}

function refused({
  code: errorCode,
  message: errorMessage,
}: FunctionError): Extract<HandlerResult, { kind: "refused" }> {
  return { kind: "refused", errorCode, errorMessage, failedAt: Date.now() };
}
