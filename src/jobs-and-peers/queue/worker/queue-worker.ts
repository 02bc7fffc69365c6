/**
 * The part of a process that handles jobs: it takes rows of the queue, calls the handlers of the user, and ends the rows. A worker
 * is this alone; a peer has it beside its channels, whose messages and requests share its handlers, slots and quarantine.
 */

import type { HawserError } from "../../../foundation/errors/index.js";
import { systemClock } from "../../../foundation/runtime/index.js";
import type { HandlerResult } from "../../channel/index.js";
import { Dispatcher, type SlicedWork } from "../../handlers/dispatcher.js";
import { HandlerCalls } from "../../handlers/handler-call.js";
import type { HandlingContext } from "../../handlers/handling-context.js";
import type { HandlingHost } from "../../handlers/handling-host.js";
import type { Limited } from "../../handlers/limits/concurrency-limit.js";
import { Quarantine } from "../../handlers/limits/quarantine.js";
import type { TopicHandlers } from "../../handlers/topic-handlers.js";
import type { QueuedMessage } from "../../store/index.js";
import { type CallMessage, WorkerDriver } from "./worker-driver.js";
import type { WorkerMachine } from "./worker-machine.js";

/** Maximum time for which a message that may have killed its process runs in quarantine. */
const quarantineLimitMs = 30_000;

export type { CallMessage } from "./worker-driver.js";

/** Source of other messages that share handlers with the queue: the channels of a peer. */
export interface Beside {
  /** Called when handlers may start again, or must not start any more. */
  changed(): void;
  /** True if nothing runs but the messages of the queue, and those of the holder of the quarantine. */
  isIdleBeside(holder: SlicedWork): boolean;
}

const nothingBeside: Beside = { changed: () => undefined, isIdleBeside: () => true };

export class QueueWorker implements HandlingHost {
  readonly context: HandlingContext;
  readonly handlers: TopicHandlers;
  readonly calls: HandlerCalls;
  readonly dispatcher: Dispatcher;
  readonly quarantine: Quarantine<SlicedWork>;
  readonly #beside: Beside;
  readonly #driver: WorkerDriver;
  #isStarted = false;
  #isHalted = false;
  #isClosed = false;

  /** @param call starts a message in place of the handler of its topic. Default: calls the handler */
  constructor(context: HandlingContext, handlers: TopicHandlers, beside: Beside = nothingBeside, call?: CallMessage) {
    this.context = context;
    this.handlers = handlers;
    handlers.renewLimits();
    this.#beside = beside;
    this.calls = new HandlerCalls(context, handlers);
    this.dispatcher = new Dispatcher(context.settings.concurrency);
    this.quarantine = new Quarantine(quarantineLimitMs, {
      after: (delayMs, callback) => systemClock.setTimeout(callback, delayMs),
      changed: () => this.#changed(),
      othersIdle: (holder) =>
        this.#machine.turns.size <= (holder === this.#machine ? 1 : 0) && beside.isIdleBeside(holder),
    });
    this.#driver = new WorkerDriver(this, call);
  }

  get #machine(): WorkerMachine {
    return this.#driver.machine;
  }

  /** True while no handler may start. */
  get isPaused(): boolean {
    return this.#isClosed || this.#isHalted || !this.#isStarted || this.handlers.isEmpty;
  }

  get isHalted(): boolean {
    return this.#isHalted;
  }

  /** Numbers of its handlers that run, and of its messages that wait for one. */
  get numbers(): { readonly running: number; readonly queued: number } {
    const { turns, term } = this.#machine;
    return { running: turns.size, queued: term?.leased.waiting ?? 0 };
  }

  /** True for one process of the database, for what one is to do. */
  isFirst(): boolean {
    return this.#machine.isFirst();
  }

  /** Reads which of the topics are paused in all processes. @throws HawserError `store_failed` */
  async readPauses(): Promise<void> {
    const { topics } = this.handlers;
    this.handlers.pauseEverywhere(await this.context.store.pausedTopics(topics), topics);
  }

  /** Reads whether a topic is paused that got its first handler. @throws HawserError `store_failed` */
  async readPause(topic: string): Promise<void> {
    const paused = await this.context.store.pausedTopics([topic]);
    if (this.handlers.firstPause(topic, paused.includes(topic))) this.handlersChanged();
  }

  /** Starts to call handlers. */
  start(): void {
    this.#isStarted = true;
    this.#changed();
    this.#driver.start();
  }

  /** Follows a change of the handlers, or of what is paused. */
  handlersChanged(): void {
    this.#machine.handlersChanged();
    this.#changed();
  }

  /** Worker in the store that goes on with rows whose handlers run; undefined if there is none now. */
  get current(): bigint | undefined {
    return this.#machine.term?.statements.worker;
  }

  /** The queue has a message of a topic, which is due in so many ms. */
  wants(topic: string, delayMs: number): void {
    if (delayMs > 0) this.#machine.wantsIn(delayMs, [topic]);
    else this.#machine.enqueued(topic);
  }

  /**
   * Goes on with a message whose handler a channel has started, and that is a row of the queue now.
   *
   * @param worker worker that has the row
   * @returns function that ends the message with the result of its handler
   */
  adopt(message: QueuedMessage, worker: bigint, turn: Limited): (result: HandlerResult) => void {
    return this.#machine.turns.adopt(message, worker, turn);
  }

  /** Takes also what is enqueued for listeners that are away. */
  standInFor(names: readonly string[]): void {
    this.#machine.standInFor(names);
  }

  /** Stops starting handlers, or starts them again. Running ones continue. */
  halt(halted: boolean): void {
    this.#isHalted = halted;
    this.#changed();
  }

  /** Begins anew, on another database server. */
  reset(): void {
    this.#machine.reset();
  }

  /**
   * Stops starting handlers, tells the running ones, waits for those of the queue, and ends the worker.
   *
   * @param besideIdle resolves when no handler runs whose message may become one of the queue
   */
  async stop(reason: HawserError, besideIdle?: Promise<unknown>): Promise<void> {
    this.halt(true);
    this.calls.stop(reason);
    await this.#driver.stop(besideIdle);
  }

  /** Cuts off the handlers of the queue that still run, at the deadline of a stop. Their messages are handled again, as the same attempt. */
  async cutOff(): Promise<void> {
    await this.#driver.cutOff();
  }

  close(): void {
    this.#isClosed = true;
    this.#driver.close();
  }

  #changed(): void {
    this.#beside.changed();
    this.#machine.run();
  }
}
