/**
 * Run of a worker without a peer. A {@link Worker} has at most one run at a time.
 *
 *     start: session of the queue, migrations ▶ pauses ▶ handling
 *     stop:  handlers end, and all else is given back ▶ worker ▶ session
 */
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { countShared } from "../../operating/operate/index.js";
import type { Membership } from "../handlers/handling-settings.js";
import type { StatusReporter } from "../handlers/status.js";
import type { TopicHandlers } from "../handlers/topic-handlers.js";
import { openQueueStore } from "../peer-store/index.js";
import { QueueWorker } from "../queue/worker/queue-worker.js";
import type { PeerCounters } from "./counters.js";
import { DeadLetterExpiry } from "./dead-letter-expiry.js";
import { endHandlers, endOf, endsWithin } from "./ending.js";
import type { StoppableRun } from "./lifecycle.js";
import type { CountedOfPeer } from "./monitored-peer.js";
import type { CheckedWorkerOptions } from "./worker-options.js";

interface WorkerRunOptions {
  readonly options: CheckedWorkerOptions;
  readonly logger: Logger;
  readonly status: StatusReporter;
  readonly counters: PeerCounters;
  /** Handlers of the user, which stay set across runs. */
  readonly handlers: TopicHandlers;
}

type QueueStore = Awaited<ReturnType<typeof openQueueStore>>;

export class RunningWorker implements StoppableRun {
  readonly isLost = false;
  readonly membership: Membership;
  readonly store: QueueStore;
  readonly #run: WorkerRunOptions;
  readonly #worker: QueueWorker;
  readonly #expiry: DeadLetterExpiry;
  #stopDue: (() => Promise<void>) | undefined;
  #stopping: Promise<void> | undefined;

  private constructor(run: WorkerRunOptions, store: QueueStore) {
    const { options, status, logger, counters, handlers } = run;
    this.#run = run;
    this.store = store;
    this.membership = handlers.membership;
    this.#worker = new QueueWorker(
      {
        sender: { name: options.name },
        settings: options.settings,
        membership: this.membership,
        store,
        // No peer has a colon in its name: nothing is enqueued for it, and nothing of a peer is taken for its own.
        workerName: `${options.name}:${process.pid}`,
        idleBeatMs: queueConstants.idleBeatMs,
        lease: undefined,
        ...{ status, logger },
        nameLost: () => undefined,
      },
      handlers,
    );
    this.#expiry = new DeadLetterExpiry({ store, logger });
    store.onSession((state) => {
      if (state === "up") counters.postgresReconnects += 1;
    });
  }

  /** Starts a run. A failed start undoes its completed steps. @throws HawserError `store_failed`, `schema_too_new`, `transaction_pooler` */
  static async start(run: WorkerRunOptions, signal: AbortSignal): Promise<RunningWorker> {
    const { databaseUrl, pool, sessionUrl } = run.options;
    const store = await openQueueStore({ databaseUrl, pool, sessionUrl, logger: run.logger });
    try {
      await store.migrate();
      const started = new RunningWorker(run, store);
      started.#fitPool();
      await started.#worker.readPauses();
      signal.throwIfAborted();
      return started;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  startHandling(): void {
    this.#worker.start();
    this.#expiry.start();
    this.#stopDue = this.store.startDue();
  }

  get problems(): string[] {
    const isEnded = this.#run.options.pool?.ending === true;
    const problem = isEnded ? "the given pool was ended; stop the worker before the pool is ended" : this.store.problem;
    return problem === undefined ? [] : [problem];
  }

  get numbers(): QueueWorker["numbers"] {
    return this.#worker.numbers;
  }

  /** Counts the backlog of the database, if this process is the first of all peers and workers. */
  async countStored(): Promise<CountedOfPeer> {
    const count = () =>
      countShared(async (text, values) => (await this.store.client.query(text, values)).rows as never);
    return { backlog: [], pending: [], deadTopics: [], shared: this.#worker.isFirst() ? await count() : undefined };
  }

  handlersChanged(): void {
    this.#fitPool();
    this.#worker.handlersChanged();
  }

  async subscribe(topic: string): Promise<void> {
    await this.#worker.readPause(topic);
  }

  async unsubscribe(): Promise<void> {
    this.#worker.handlersChanged();
  }

  /** Handlers of transactions have connections of their own, beside one for all else. */
  #fitPool(): void {
    const { options, handlers } = this.#run;
    const calls = handlers.transactionsAtOnce(options.settings.concurrency);
    if (calls.all > 0) this.store.hasAtLeast(options.settings.poolSize);
    this.store.fitPool(options, calls);
  }

  /** Graceful shutdown: drains handlers, and gives back what has not begun. */
  stop(deadlineMs: number): Promise<void> {
    this.#stopping ??= this.#end(deadlineMs);
    return this.#stopping;
  }

  async #end(deadlineMs: number): Promise<void> {
    const until = endOf(deadlineMs);
    const { options, logger } = this.#run;
    this.#expiry.stop();
    const dueEnded = this.#stopDue?.() ?? Promise.resolve();
    const why = (verb: string): HawserError => new HawserError("aborted", `the worker "${options.name}" ${verb}`);
    await endHandlers(this.#worker.stop(why("stops")), deadlineMs, until, {
      warn: () =>
        logger.warn({ deadlineMs }, "the stop has reached its time limit; unfinished messages are handled again"),
      abort: () => this.#worker.calls.attempts.abort(why("has stopped")),
      cutOff: () => this.#worker.cutOff(),
    });
    this.#worker.close();
    await endsWithin(until - performance.now(), dueEnded);
    // Statements that Postgres does not answer end on their own, even after the deadline.
    await endsWithin(until - performance.now(), this.store.close());
  }
}
