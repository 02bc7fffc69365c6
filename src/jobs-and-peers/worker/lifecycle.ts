/** Starts and stops of a peer or worker that the user holds, each of which has at most one run at a time. */
import { asHawserError, HawserError } from "../../foundation/errors/index.js";
import { type Logger, onStopSignal, tracer, within } from "../../foundation/runtime/index.js";
import type { MessageStream } from "../handlers/message-stream.js";
import type { StatusReporter } from "../handlers/status.js";
import { loadingFor } from "../queue/protobuf.js";
import { checkKnownOptions, type StopOptions } from "./worker-options.js";

/** State of a peer or worker, which changes with its starts and stops. */
export interface Run<Running> {
  state: "stopped" | "starting" | "running" | "stopping";
  /** Start or stop in progress. */
  transition: Promise<void>;
  /** Undefined while it is stopped or starting. */
  running: Running | undefined;
}

/** Run of a peer or worker, from a start to a stop. */
export interface StoppableRun {
  /** Reasons why it cannot handle messages at the moment. */
  readonly problems: string[];
  /** True if another process owns its name. */
  readonly isLost: boolean;
  startHandling(): void;
  /** Never takes much longer than `deadlineMs`. */
  stop(deadlineMs: number): Promise<void>;
}

interface LifecycleOptions<Running> {
  /** As in `the peer "orders"`. */
  readonly kind: "peer" | "worker";
  readonly name: string;
  readonly stopOnSignals: boolean;
  readonly stopTimeoutMs: number;
  readonly logger: Logger;
  readonly status: StatusReporter;
  /** Begins a run. A failed start undoes its completed steps. @param onLost called when the run ends by itself */
  begin(signal: AbortSignal, onLost: (ending: Promise<void>) => void): Promise<Running>;
  /** Called for each run, before it starts to handle. */
  onRunning(running: Running): void;
}

export class Lifecycle<Running extends StoppableRun> {
  readonly run: Run<Running> = { state: "stopped", transition: Promise.resolve(), running: undefined };
  /** Open message iterators, each with the function that removes its handler after a stop. */
  readonly streams = new Map<MessageStream, () => void>();
  readonly #options: LifecycleOptions<Running>;
  readonly startReminder: StartReminder;
  /** Cancels the start in progress. */
  #starting: AbortController | undefined;
  #closing = new Closing();

  constructor(options: LifecycleOptions<Running>) {
    this.#options = options;
    this.startReminder = new StartReminder(`the ${options.kind} "${options.name}"`);
  }

  /** Promise of the current run. The next {@link start} creates a new one. */
  get closed(): Promise<void> {
    return this.#closing.promise;
  }

  /** True if the last run ended because another process took the name. */
  get isNameLost(): boolean {
    return this.#closing.isNameLost;
  }

  health(): { ready: boolean; problems: string[] } {
    const { kind, name } = this.#options;
    const { state, running } = this.run;
    const shown = this.isNameLost ? "stopped, because it has lost its name" : state;
    const problems =
      state === "running" && running !== undefined ? running.problems : [`the ${kind} "${name}" is ${shown}`];
    return { ready: problems.length === 0, problems };
  }

  /** Starts, unless it runs. @throws HawserError (as a rejection) `aborted`, `startup_failed`, and those of `begin` */
  async start(): Promise<void> {
    this.startReminder.end();
    while (this.run.state === "stopping") await this.run.transition.catch(() => undefined);
    if (this.run.state === "stopped") {
      if (this.#closing.isOver) this.#closing = new Closing();
      this.run.state = "starting";
      this.run.transition = tracer === undefined ? this.#start() : tracer.detached(() => this.#start());
    }
    const transition = this.run.transition;
    try {
      await transition;
    } catch (error) {
      if (this.run.transition === transition) this.run.transition = Promise.resolve();
      throw error;
    }
  }

  /** Stops within the time limit, also while it starts. */
  async stop(options: StopOptions): Promise<void> {
    checkKnownOptions(options, "stop");
    this.startReminder.end();
    const { name, stopTimeoutMs, logger } = this.#options;
    const { timeoutMs = stopTimeoutMs } = options;
    if (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs) || timeoutMs < 0) {
      throw new HawserError("invalid_argument", `timeoutMs ${timeoutMs}: must be a number of milliseconds, 0 or more`);
    }
    this.#starting?.abort(new HawserError("aborted", `"${name}" was stopped while it was starting`));
    const until = performance.now() + timeoutMs;
    while (this.run.state === "starting") {
      const ended = this.run.transition.catch(() => undefined).then(() => true);
      if (await within(until - performance.now(), ended)) continue;
      logger.warn({ timeoutMs }, "the interrupted start is still waiting for Postgres; it ends when Postgres answers");
      return;
    }
    if (this.run.state === "stopping") return await this.run.transition;
    const { running } = this.run;
    if (running === undefined) return;
    this.#end(running, running.stop(Math.max(until - performance.now(), 0)));
    await this.run.transition;
  }

  async #start(): Promise<void> {
    const { name, stopOnSignals, begin, onRunning } = this.#options;
    const starting = new AbortController();
    this.#starting = starting;
    const endSignals = stopOnSignals ? this.#stopOnSignals() : () => undefined;
    try {
      // Handlers that were given before, and wait for the part of Protobuf, are set first.
      const loading = loadingFor(undefined);
      if (loading !== undefined) await loading;
      const running = await begin(starting.signal, (ending) => {
        // Another process owns the name: the run ends by itself.
        if (this.run.state === "running" && this.run.running !== undefined) this.#end(this.run.running, ending);
      });
      if (running.isLost) {
        await running.stop(0);
        throw new HawserError("name_lost", `"${name}" lost its name while it was starting`);
      }
      this.closed.then(endSignals, endSignals);
      this.run.running = running;
      onRunning(running);
      this.run.state = "running";
      running.startHandling();
    } catch (error) {
      endSignals();
      this.run.state = "stopped";
      const cause = asHawserError(error);
      if (starting.signal.aborted)
        throw new HawserError("aborted", `"${name}" was stopped while it started`, { cause });
      if (cause.code !== "internal" && cause.code !== "store_failed" && cause.code !== "not_permitted") throw cause;
      const { retryable, message } = cause;
      const remedy = retryable ? undefined : cause.remedy;
      throw new HawserError("startup_failed", `"${name}" could not start: ${message}`, { cause, remedy, retryable });
    } finally {
      this.#starting = undefined;
    }
  }

  /** @returns a function that removes the signal handlers */
  #stopOnSignals(): () => void {
    const { name, logger } = this.#options;
    return onStopSignal((signal) => {
      logger.info({ signal }, `"${name}" is stopping after a signal`);
      this.stop({}).catch((err) => logger.error({ err }, "could not stop"));
    });
  }

  #end(running: Running, ending: Promise<void>): void {
    this.run.state = "stopping";
    this.run.transition = ending.finally(() => this.#onEnded(running));
    for (const stream of this.streams.keys()) stream.close();
  }

  #onEnded(running: Running): void {
    if (this.run.running !== running) return;
    const { name, status } = this.#options;
    this.run.running = undefined;
    status.flush();
    for (const end of this.streams.values()) end();
    this.streams.clear();
    this.run.state = "stopped";
    this.run.transition = Promise.resolve();
    if (running.isLost) this.#closing.reject(new HawserError("name_lost", `"${name}" has lost its name`));
    else this.#closing.resolve();
  }
}

/** End of one run, as a promise. */
class Closing {
  readonly promise: Promise<void>;
  isOver = false;
  isNameLost = false;
  #resolve!: () => void;
  #reject!: (error: HawserError) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The status `name_lost` reports the same error, so an unobserved rejection hides nothing.
    this.promise.catch(() => undefined);
  }

  resolve(): void {
    this.isOver = true;
    this.#resolve();
  }

  reject(error: HawserError): void {
    this.isOver = true;
    this.isNameLost = true;
    this.#reject(error);
  }
}

/** Reminders of peers that have a handler and were not started. They hold names only, so that a dropped peer is freed. */
const due = new Set<StartReminder>();
let isListening = false;

/** Warns when the process ends because it has nothing left to do. Does not keep the process alive. */
export class StartReminder {
  readonly #name: string;
  #isOver = false;

  /** @param name as in `the peer "orders"` */
  constructor(name: string) {
    this.#name = name;
  }

  /** The peer has a handler. Without effect after {@link end}. */
  expectStart(): void {
    if (this.#isOver) return;
    due.add(this);
    if (!isListening) process.once("beforeExit", StartReminder.#warn);
    isListening = true;
  }

  /** The peer was started or stopped. */
  end(): void {
    this.#isOver = true;
    due.delete(this);
  }

  static #warn(this: void): void {
    isListening = false;
    for (const reminder of due) {
      due.delete(reminder);
      const text = `${reminder.#name} has handlers and was never started: await its start(), or stop() it`;
      process.emitWarning(text, { code: "HAWSER_NOT_STARTED", type: "HawserWarning" });
    }
  }
}
