/**
 * A process that handles jobs: the state machine of its worker, with handlers that are timers. What the machine does is checked
 * with each start of a handler, and whenever no statement is under way.
 */
import { silentLogger } from "../../../src/foundation/runtime/index.js";
import type { HandledMessage, HandlerResult } from "../../../src/jobs-and-peers/channel/index.js";
import { Dispatcher, type SlicedWork } from "../../../src/jobs-and-peers/handlers/dispatcher.js";
import { marked, retryLater } from "../../../src/jobs-and-peers/handlers/handler-result.js";
import { ConcurrencyLimit } from "../../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { Quarantine } from "../../../src/jobs-and-peers/handlers/limits/quarantine.js";
import { plainHandler, TopicHandlers } from "../../../src/jobs-and-peers/handlers/topic-handlers.js";
import type { WorkerEffects } from "../../../src/jobs-and-peers/queue/worker/effects.js";
import type { LeasedTurn } from "../../../src/jobs-and-peers/queue/worker/leased-messages.js";
import type { WorkerMachine } from "../../../src/jobs-and-peers/queue/worker/worker-machine.js";
import type { QueuedMessage } from "../../../src/jobs-and-peers/store/index.js";
import { SimulatedProcess } from "../process.js";
import { Violation } from "../records.js";
import { SimulatedSession } from "./session.js";
import { leaseMs, maxAttempts, type Row, topics } from "./store.js";
import type { WorkerWorld } from "./world.js";

const failed: HandlerResult = { kind: "failed", errorCode: "handler_failed", errorMessage: "no", failedAt: 1 };
const wantedLater: HandlerResult = { kind: "deferred", errorCode: "busy", errorMessage: "later", delayMs: 20 };
const crashed: HandlerResult = { kind: "refused", errorCode: "handler_crashed", errorMessage: "it ends processes" };
const done: HandlerResult = { kind: "done" };

export class WorkerProcess extends SimulatedProcess {
  readonly #world: WorkerWorld;
  readonly #session: SimulatedSession;
  readonly #handlers: TopicHandlers;
  readonly #machine: WorkerMachine;
  /** Ranks of the messages whose handlers run. */
  readonly #running = new Set<bigint>();
  /** Ranks of the messages that it has handled. */
  readonly #done = new Set<bigint>();
  readonly #cancelled = new WeakSet<HandledMessage>();
  /** Number of callbacks that follow at once. */
  #callbacks = 0;
  #isHalted = false;

  constructor(world: WorkerWorld, wasClean: boolean) {
    super(world);
    this.#world = world;
    this.#session = new SimulatedSession(world, this);
    this.#handlers = this.#makeHandlers();
    this.#machine = world.makeMachine(this.#effects());
    this.#machine.start(!wasClean);
    this.after(world.random.delay(2), () => this.#connect());
  }

  #makeHandlers(): TopicHandlers {
    const retry = { attempts: maxAttempts, delayMs: () => this.#world.random.delay(10) };
    const settings = {
      ...{ group: undefined, takeoverMs: leaseMs, transactional: false, durable: false, timeoutMs: undefined, retry },
      ...{ limit: undefined, batch: undefined },
    };
    const handlers = new TopicHandlers({ name: "p", topic: "" }, settings, (() => undefined) as never);
    const batch = { settings: { maxMessages: 3, concurrency: 1 } as never, handle: () => undefined };
    for (const topic of topics) {
      const own =
        topic === "batched" ? { batch } : topic === "limited here" ? { limit: new ConcurrencyLimit(1) } : undefined;
      const handler = plainHandler(
        () => undefined,
        { ...settings, ...own },
        () => undefined,
      );
      handlers.set(topic, "messages", handler);
    }
    return handlers;
  }

  #effects(): WorkerEffects {
    const { schedule, random, store } = this.#world;
    const session = this.#session;
    const soon = (callback: () => void): void => {
      this.#callbacks += 1;
      this.after(0, () => {
        this.#callbacks -= 1;
        callback();
      });
    };
    const dispatcher = new Dispatcher(random.between(1, 4), (task) => this.#oncePerTurn(task));
    const quarantine = new Quarantine<SlicedWork>(100, {
      after: (delayMs, callback) => this.#timeout(callback, delayMs),
      changed: () => this.#machine.run(),
      othersIdle: () => this.#machine.turns.size <= 1,
    });
    const isHalted = (): boolean => this.#isHalted;
    return {
      ...{ handlers: this.#handlers, dispatcher, quarantine, logger: silentLogger, leaseMs, idleBeatMs: 300 },
      host: {
        get isPaused() {
          return isHalted();
        },
        handlersChanged: () => this.#handlersChanged(),
      },
      get isUp() {
        return session.isUp;
      },
      server: "server",
      clock: { now: () => schedule.now, setTimeout: (callback, delayMs) => this.#timeout(callback, delayMs) },
      openSession: () => undefined,
      openWorker: (request, reply) => session.send(() => store.openWorker(request), reply),
      closeWorker: (worker) => this.#closeWorker(worker),
      newWorkerId: () => store.newId(),
      send: (name, given, reply) => {
        this.#world.counts.add(`statement: ${name}`);
        session.send(() => store.run(name, given), reply);
      },
      received: () => this.#world.counts.add("transition: taken"),
      call: (turn) => this.#call(turn),
      attempts: {
        cancel: (message) => void this.#cancelled.add(message),
        isCancelled: (message) => this.#cancelled.has(message),
      },
      afterThis: soon,
      soon,
      idle: () => undefined,
      storeFailed: () => this.#world.counts.add("transition: a statement failed"),
      gaveUp: () => this.#world.counts.add("transition: given up"),
    };
  }

  #oncePerTurn(task: () => void): () => void {
    let isDue = false;
    return () => {
      if (isDue) return;
      isDue = true;
      this.after(0, () => {
        isDue = false;
        task();
      });
    };
  }

  #timeout(callback: () => void, delayMs: number): () => void {
    let isCancelled = false;
    this.after(delayMs, () => isCancelled || callback());
    return () => {
      isCancelled = true;
    };
  }

  // ---- events ----

  #connect(): void {
    this.#session.isUp = true;
    this.#machine.sessionUp();
  }

  /** The connection ends, and is there again a while later. */
  cut(): void {
    const { random } = this.#world;
    this.deliver(() => {
      if (!this.#session.isUp) return;
      this.#session.cut();
      this.#machine.sessionDown();
      this.after(random.pick([1, 30, 3 * leaseMs, 3 * leaseMs]) * random.next(), () => this.#connect());
    });
  }

  reset(): void {
    this.deliver(() => this.#machine.reset());
  }

  notify(topic: string): void {
    this.deliver(() => this.#machine.enqueued(topic));
  }

  settingsChanged(topic: string): void {
    this.deliver(() => this.#machine.settingsChanged(topic));
  }

  mayBeCancelled(rank: bigint): void {
    this.deliver(() => this.#machine.mayBeCancelled(String(rank)));
  }

  /** Pauses a topic in this process, or ends that. */
  pause(topic: string, isPaused: boolean): void {
    this.deliver(() => this.#handlers.pauseHere(topic, isPaused) && this.#handlersChanged());
  }

  #handlersChanged(): void {
    this.#machine.handlersChanged();
    this.#machine.run();
  }

  // ---- stop ----

  /** Ends gracefully: when its handlers have ended, or at a deadline, at which it cuts them off. */
  stop(deadlineMs: number): void {
    this.deliver(() => {
      if (this.#isHalted) return;
      this.#isHalted = true;
      this.#machine.stop();
      this.#endWhenIdle(this.#world.schedule.now + deadlineMs);
    });
  }

  #endWhenIdle(deadline: number): void {
    if (this.#machine.turns.size === 0) this.#end();
    else if (this.#world.schedule.now < deadline) this.after(5, () => this.#endWhenIdle(deadline));
    else {
      this.#world.counts.add("transition: cut off");
      this.#machine.cutOff();
      this.after(this.#world.random.delay(1), () => {
        this.#machine.giveBackCutOff(() => undefined);
        this.#end();
      });
    }
  }

  #end(): void {
    this.#world.counts.add("transition: stopped");
    this.#machine.endHandled();
    const worker = this.#machine.close();
    if (worker !== undefined) this.#closeWorker(worker);
    this.after(100, () => this.kill());
  }

  #closeWorker(worker: bigint): void {
    const { store } = this.#world;
    this.#session.send(() => store.closeWorker(worker), { answered: () => undefined, failed: () => undefined });
  }

  // ---- handlers ----

  #call(turn: LeasedTurn): void {
    const { random } = this.#world;
    const { turns } = this.#machine;
    const { running: message, attempts } = turn;
    if (this.#cancelled.has(message) || this.#handlers.isPaused(message.topic)) turns.ended(turn, retryLater);
    else if (attempts > maxAttempts) turns.ended(turn, crashed);
    else if (message.topic === "batched" && random.chance(0.8)) {
      this.#machine.onJoined(turn);
      this.after(random.delay(5), () => this.#begin(turn, message));
    } else if (turns.mustTell(turn)) this.#begin(turn, message);
    else {
      this.#start(message);
      if (random.chance(0.2)) turns.ended(turn, this.#resultOf(message));
      else this.#endLater(turn, message);
    }
  }

  /** Tells the store that the handler begins, if it must. */
  #begin(turn: LeasedTurn, message: QueuedMessage): void {
    const start = (withheld: HandlerResult | undefined): void => {
      if (withheld !== undefined) this.#machine.turns.ended(turn, withheld);
      else if (this.#cancelled.has(message) || this.#machine.isClosed) this.#machine.turns.ended(turn, retryLater);
      else {
        this.#start(message);
        this.#endLater(turn, message);
      }
    };
    if (this.#machine.turns.mustTell(turn)) this.#machine.turns.tell(turn, start);
    else start(undefined);
  }

  #start(message: QueuedMessage): void {
    const { rank } = message;
    if (this.#running.has(rank)) throw new Violation(`row ${rank} has two handlers in one process`);
    if (this.#done.has(rank)) throw new Violation(`row ${rank} is started again in the process that has handled it`);
    this.#expectOrder(rank);
    this.#running.add(rank);
  }

  /** As long as the row is this worker's, none of its key is before it that has not ended. */
  #expectOrder(rank: bigint): void {
    const { store } = this.#world;
    const row = store.rows.get(rank);
    const worker = this.#machine.term?.statements.worker;
    if (row?.key === undefined || row.worker === undefined || row.worker !== worker) return;
    for (const other of store.rows.values()) {
      const isBefore = other.topic === row.topic && other.key === row.key && other.rank < rank;
      if (isBefore && !this.#done.has(other.rank) && !other.isCancelled)
        throw new Violation(`row ${rank} is started before row ${other.rank} of its key`);
    }
  }

  #endLater(turn: LeasedTurn, message: QueuedMessage): void {
    const { random } = this.#world;
    this.after(random.delay(random.pick([2, 30, 200])), () => {
      const result = this.#resultOf(message);
      this.#machine.turns.ended(turn, result);
    });
  }

  #resultOf(message: QueuedMessage): HandlerResult {
    const { random, store, schedule, counts } = this.#world;
    this.#running.delete(message.rank);
    const roll = random.next();
    if (this.#machine.isClosed) return retryLater;
    if (roll < 0.1) return failed;
    if (roll < 0.15) return wantedLater;
    if (roll < 0.2) return retryLater;
    const isTransactional = roll < 0.6;
    if (isTransactional && !store.end(message.rank)) {
      counts.add("transition: a row is another's");
      schedule.after(0, () => this.deliver(() => this.#machine.onNotOwned()));
      return retryLater;
    }
    if (!this.#cancelled.has(message)) this.#done.add(message.rank);
    return isTransactional ? marked : done;
  }

  // ---- what must hold ----

  /** Checks what the machine has against what its worker has, if no statement is under way. */
  check(): void {
    const { store, counts } = this.#world;
    const { term } = this.#machine;
    if (this.isDead || this.isStalled || term === undefined || !this.#session.isQuiet || this.#callbacks > 0) return;
    const { worker } = term.statements;
    if (!store.hasWorker(worker)) return;
    counts.add("checked");
    const waiting = new Set(term.leased.messages.map(({ rank }) => rank));
    const running = new Set([...this.#machine.turns.messages()].map(({ rank }) => rank));
    for (const { rank } of store.rowsOf(worker))
      if (!waiting.has(rank) && !running.has(rank)) throw new Violation(`row ${rank} is forgotten`);
    for (const { topic, rank } of term.leased.messages) {
      const row: Row | undefined = store.rows.get(rank);
      if (row !== undefined && row.worker !== worker) throw new Violation(`row ${rank} waits, and is not the worker's`);
      if (this.#isHalted) throw new Violation(`row ${rank} waits in a process that stops`);
      if (this.#handlers.isPaused(topic)) throw new Violation(`row ${rank} waits, although "${topic}" is paused`);
    }
  }
}
