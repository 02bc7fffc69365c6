/**
 * Runs a relay in a process: takes over a sink of the outbox while the process leads, and carries out the steps of a
 * state machine in Postgres and in the sink. There is one runner per {@link Sink}.
 */

import { randomUUID } from "node:crypto";
import { errorMessageOf } from "../errors/index.js";
import { type ClientSource, isServerError, PostgresSession } from "../postgres/index.js";
import { Backoff, Deadline, delay, type Logger, type RareLog, within } from "../runtime/index.js";
import { type OutboxKind, OutboxTable, type TakenOutbox } from "./outbox-table.js";
import { relayDefaults } from "./relay.js";

const stopPollMs = 5;

/** Maximum time for Postgres to answer a turn. */
const queryTimeoutMs = 30_000;
/**
 * Maximum time for the next turn while turns are quick: a backend may stand still, as one that the system has stopped,
 * and the next session has another one. Doubles with each turn without an answer.
 */
const quickQueryTimeoutMs = 5_000;
/** Number of durations of the last turn that the next one may take. */
const slackOfTurns = 4;
/** Maximum interval between attempts of a relay to remove old messages. */
const rotateMs = 60_000;

/** State machine of a relay. */
export interface RelayMachine<Step> {
  /** Next step; undefined if there is none until {@link readyAt} or until a running step completes. */
  next(now: number): Step | undefined;
  /** Time from which {@link next} has a step even if no running step completes; Infinity if there is none. */
  readonly readyAt: number;
  /** True if another relay has taken over, or if this relay must start again. */
  readonly isDeposed: boolean;
  /** True if all messages read are done and the position is saved. */
  readonly isIdle: boolean;
  /** Called when a message was enqueued. */
  wake(): void;
  /** Set to true to stop reading. Messages already read are finished, and the position is saved. */
  isEnding: boolean;
}

/** Behaviour of a relay for one sink. */
export interface Sink<Step, Machine extends RelayMachine<Step>> {
  readonly kind: OutboxKind;
  readonly applicationName: string;
  /** Log message for a failed turn. */
  readonly problem: string;
  /** NOTIFY channels that wake the relay. */
  readonly channels: readonly string[];
  /** Minimum time in ms for which messages stay in the outbox. */
  readonly retentionMs: number;
  /** Maximum message size of the sink in bytes; undefined if unknown. */
  readonly maxPayload?: () => number | undefined;
  /** Creates a state machine that starts at the position of the previous relay. */
  start(taken: TakenOutbox): Machine;
  /** Passes a notification to a machine. */
  notified(machine: Machine, channel: string): void;
  /** Carries out a step and completes it. A returned promise never rejects; {@link OutboxRunner.stop} waits for it. */
  run(machine: Machine, step: Step, relaying: Relaying): Promise<void> | undefined;
  /**
   * Returns true if the messages already read can be finished now, so that {@link OutboxRunner.stop} waits for them.
   */
  canFinish(): boolean;
}

/** Resources of a sink while this process relays. */
export interface Relaying {
  readonly table: OutboxTable;
  readonly session: PostgresSession;
  readonly owner: string;
}

/** Collaborators of {@link OutboxRunner}. */
export interface RunnerOptions {
  readonly address: ClientSource;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** True to take over again from another relay for as long as the process leads. */
  readonly retakes: boolean;
}

export class OutboxRunner<Step, Machine extends RelayMachine<Step>> {
  readonly #options: RunnerOptions;
  readonly #sink: Sink<Step, Machine>;
  /** Identity of the current leadership; undefined if this process does not relay. */
  #leading: symbol | undefined;
  #relaying: Relaying | undefined;
  #machine: Machine | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #rotatesAt = 0;
  #isPumping = false;
  #queryTimeoutMs = quickQueryTimeoutMs;
  /** Running call that takes the outbox over. */
  #taking: Promise<TakenOutbox | undefined> | undefined;

  constructor(sink: Sink<Step, Machine>, options: RunnerOptions) {
    this.#sink = sink;
    this.#options = options;
  }

  /** Current state machine; undefined if this process does not relay, or has not taken over yet. */
  get machine(): Machine | undefined {
    return this.#machine;
  }

  /** True if this process relays or tries to. */
  get isLeading(): boolean {
    return this.#leading !== undefined;
  }

  /** Makes this process relay: takes the outbox over. */
  lead(): void {
    if (this.#leading !== undefined) return;
    this.#leading = Symbol();
    const { address, logger } = this.#options;
    const { kind, applicationName, channels, maxPayload } = this.#sink;
    const session = new PostgresSession({
      address,
      logger,
      applicationName,
      channels,
      queryTimeoutMs,
      onNotification: (channel) => {
        if (this.#machine !== undefined) this.#sink.notified(this.#machine, channel);
        this.pump();
      },
      onDown: () => this.#sessionLost(session),
    });
    const query: PostgresSession["query"] = (statement, values) => this.#query(session, statement, values);
    this.#relaying = { session, table: new OutboxTable(kind, { query }, maxPayload), owner: randomUUID() };
    this.#track(this.#take(this.#leading, this.#relaying, null));
  }

  /** Makes this process stop relaying at once. */
  follow(): void {
    this.#leading = undefined;
    this.#machine = undefined;
    clearTimeout(this.#timer);
    const relaying = this.#relaying;
    this.#relaying = undefined;
    if (relaying !== undefined) this.#track(relaying.session.close());
  }

  /**
   * Finishes the messages that were read, saves the position, and stops.
   *
   * @param limitMs maximum duration
   */
  async stop(limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    const machine = this.#machine;
    if (machine !== undefined) machine.isEnding = true;
    this.pump();
    const isBusy = (): boolean => machine !== undefined && machine === this.#machine && !machine.isIdle;
    while (isBusy() && this.#sink.canFinish() && !deadline.isOver) await delay(stopPollMs);
    const relaying = this.#relaying;
    const taking = this.#machine === undefined ? this.#taking : undefined;
    let canRelease = machine !== undefined && machine === this.#machine && machine.isIdle;
    this.#leading = undefined;
    this.#machine = undefined;
    clearTimeout(this.#timer);
    // Without a release, the next relay for peers would wait until this one is overdue.
    if (taking !== undefined)
      canRelease =
        (await within(
          deadline.remainingMs,
          taking.catch(() => undefined),
        )) !== undefined;
    // The wait for Postgres ends at the deadline, and its timer does not keep the process alive.
    if (canRelease && relaying !== undefined)
      await within(
        deadline.remainingMs,
        relaying.table.release(relaying.owner).catch(() => undefined),
      );
    this.follow();
    await within(deadline.remainingMs, Promise.all(this.#running));
  }

  /** Carries out the current steps of the machine. */
  pump(): void {
    const machine = this.#machine;
    const relaying = this.#relaying;
    if (machine === undefined || relaying === undefined) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    for (let step = machine.next(now); step !== undefined; step = machine.next(now)) {
      const work = this.#sink.run(machine, step, relaying);
      if (work !== undefined) this.#track(work);
    }
    if (machine.isDeposed) {
      this.#takeAgain();
      return;
    }
    const { readyAt } = machine;
    if (Number.isFinite(readyAt)) this.#timer = setTimeout(() => this.pump(), Math.max(0, readyAt - performance.now()));
  }

  /** Defers {@link pump}, so that completions of one event-loop turn are handled together. */
  pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      this.pump();
    });
  }

  /**
   * Runs a turn and continues. Removes old messages periodically.
   *
   * @param complete receives the outcome; undefined if Postgres did not answer
   */
  async turn<Outcome>(
    machine: Machine,
    call: () => Promise<Outcome>,
    complete: (outcome: Outcome | undefined) => void,
  ): Promise<void> {
    let outcome: Outcome | undefined;
    try {
      outcome = await call();
    } catch (error) {
      this.warn(this.#sink.problem, error);
    }
    complete(outcome);
    if (machine !== this.#machine || this.#relaying === undefined) return;
    const { retentionMs } = this.#sink;
    if (performance.now() >= this.#rotatesAt) {
      this.#rotatesAt = performance.now() + Math.min(rotateMs, retentionMs / 2);
      try {
        await this.#relaying.table.rotate(this.#relaying.owner, retentionMs);
      } catch (error) {
        this.warn("could not remove the oldest messages of the outbox", error);
      }
    }
    this.pump();
  }

  /** Takes the outbox over. @param after owner that must be the active relay; null for any */
  async #take(leading: symbol, { table, owner }: Relaying, after: string | null, pauseMs = 0): Promise<void> {
    // The pause keeps two processes that both lead from taking over from each other without interruption.
    await delay(pauseMs);
    const backoff = new Backoff({ minMs: relayDefaults.retryMinMs, maxMs: relayDefaults.retryMaxMs });
    while (this.#leading === leading) {
      try {
        this.#taking = table.take(owner, after);
        const taken = await this.#taking.finally(() => {
          this.#taking = undefined;
        });
        if (this.#leading !== leading) return;
        if (taken !== undefined) {
          this.#machine = this.#sink.start(taken);
          this.#options.logger.debug({ turn: taken.turn, kind: this.#sink.kind }, "relaying the outbox");
          this.pump();
          return;
        }
        if (!this.#options.retakes) {
          this.follow();
          return;
        }
      } catch (error) {
        this.warn("could not take the outbox over", error);
      }
      await delay(backoff.failed());
    }
  }

  /**
   * Takes over again from the saved position. After a crash or a failover, the server may reuse transaction ids that
   * the relay has seen end, and the relay would skip the new transactions.
   */
  #sessionLost(session: PostgresSession): void {
    if (this.#relaying?.session === session && this.#machine !== undefined) this.#takeAgain();
  }

  /** Takes over again while this process leads, or while no other relay is active. The server may be another one. */
  #takeAgain(): void {
    clearTimeout(this.#timer);
    this.#machine = undefined;
    const leading = this.#leading;
    if (leading === undefined || this.#relaying === undefined) return;
    const after = this.#options.retakes ? null : this.#relaying.owner;
    // A new owner id invalidates a previous turn that may still be running.
    const relaying = after === null ? { ...this.#relaying, owner: randomUUID() } : this.#relaying;
    this.#relaying = relaying;
    this.#track(this.#take(leading, relaying, after, relayDefaults.retryMinMs));
  }

  /** Runs a statement with a time limit that follows from the last ones. */
  async #query<Row extends object>(
    session: PostgresSession,
    ...[statement, values]: Parameters<PostgresSession["query"]>
  ): Promise<Row[]> {
    const startedAt = performance.now();
    const limited = (ms: number): number => Math.min(queryTimeoutMs, Math.max(quickQueryTimeoutMs, ms));
    try {
      const rows = await session.query<Row>(statement, values, this.#queryTimeoutMs);
      this.#queryTimeoutMs = limited(slackOfTurns * (performance.now() - startedAt));
      return rows;
    } catch (error) {
      if (!isServerError(error)) this.#queryTimeoutMs = limited(2 * this.#queryTimeoutMs);
      throw error;
    }
  }

  /** Logs a warning, unless the same one was logged recently. */
  warn(what: string, error: unknown): void {
    this.#options.rareLog.warn(what, errorMessageOf(error));
  }

  #track(work: Promise<unknown>): void {
    const tracked = work
      .catch((error) => this.warn("a step of the relay of the outbox has failed", error))
      .finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
  }
}
