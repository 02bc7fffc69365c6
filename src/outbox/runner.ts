/**
 * Runs the relay in a process: takes the outbox over while the process leads, and has the steps of the state machine
 * carried out. {@link RunnerOptions} says how.
 */

import { randomUUID } from "node:crypto";
import { errorMessageOf } from "../errors/index.js";
import { type ClientSource, isServerError, PostgresSession } from "../postgres/index.js";
import { Backoff, Deadline, delay, type Logger, type RareLog, within } from "../runtime/index.js";
import { type EnqueuedMessage, OutboxTable, type TakenOutbox } from "./outbox-table.js";
import { type OutboxRelay, type PublishStep, relayDefaults, type TurnOutcome, type TurnStep } from "./relay.js";

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

/** State machine of the relay. */
export type Relay = OutboxRelay<EnqueuedMessage>;

/** Resources of the relay while this process relays. */
interface Relaying {
  readonly table: OutboxTable;
  readonly session: PostgresSession;
  readonly owner: string;
}

/** Collaborators of {@link OutboxRunner}. */
export interface RunnerOptions {
  readonly address: ClientSource;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** Minimum time in ms for which messages stay in the outbox. */
  readonly retentionMs: number;
  /** Maximum message size of the NATS server in bytes; undefined if unknown. */
  readonly maxPayload: () => number | undefined;
  /** Creates a state machine that starts at the position of the previous relay. */
  start(taken: TakenOutbox): Relay;
  /** Starts to publish a message. */
  publish(relay: Relay, step: PublishStep<EnqueuedMessage>): void;
  /** Called before a turn that Postgres has answered is completed. */
  turned(relay: Relay, step: TurnStep<EnqueuedMessage>, outcome: TurnOutcome<EnqueuedMessage>): void;
  /**
   * Returns true if the messages already read can be finished now, so that {@link OutboxRunner.stop} waits for them.
   */
  canFinish(): boolean;
}

export class OutboxRunner {
  readonly #options: RunnerOptions;
  /** Identity of the current leadership; undefined if this process does not relay. */
  #leading: symbol | undefined;
  #relaying: Relaying | undefined;
  #machine: Relay | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #rotatesAt = 0;
  #isPumping = false;
  #queryTimeoutMs = quickQueryTimeoutMs;
  /** Running call that takes the outbox over. */
  #taking: Promise<TakenOutbox | undefined> | undefined;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** Current state machine; undefined if this process does not relay, or has not taken over yet. */
  get machine(): Relay | undefined {
    return this.#machine;
  }

  /** Makes this process relay: takes the outbox over. */
  lead(): void {
    if (this.#leading !== undefined) return;
    this.#leading = Symbol();
    const { address, logger, maxPayload } = this.#options;
    const session = new PostgresSession({
      address,
      logger,
      applicationName: "hawser serve: outbox",
      channels: ["hawser_outbox"],
      queryTimeoutMs,
      onNotification: () => {
        this.#machine?.wake();
        this.pump();
      },
      onDown: () => this.#sessionLost(session),
    });
    const query: PostgresSession["query"] = (statement, values) => this.#query(session, statement, values);
    this.#relaying = { session, table: new OutboxTable({ query }, maxPayload), owner: randomUUID() };
    this.#track(this.#take(this.#leading, this.#relaying));
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
    while (isBusy() && this.#options.canFinish() && !deadline.isOver) await delay(stopPollMs);
    const relaying = this.#relaying;
    const taking = this.#machine === undefined ? this.#taking : undefined;
    let canRelease = machine !== undefined && machine === this.#machine && machine.isIdle;
    this.#leading = undefined;
    this.#machine = undefined;
    clearTimeout(this.#timer);
    // Without a release, the next relay doubts that what this one may have published is in its stream.
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
      if (step.kind === "publish") this.#options.publish(machine, step);
      else this.#track(this.#turn(machine, step, relaying));
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

  /** Runs a turn and continues. Removes old messages periodically. */
  async #turn(machine: Relay, step: TurnStep<EnqueuedMessage>, { table, owner }: Relaying): Promise<void> {
    const startedAt = performance.now();
    let outcome: TurnOutcome<EnqueuedMessage> = { kind: "unavailable" };
    try {
      outcome = await table.turn(owner, step);
      this.#options.turned(machine, step, outcome);
    } catch (error) {
      this.warn("could not read or update the outbox in Postgres; retrying", error);
    }
    machine.completeTurn(step, outcome, startedAt, performance.now());
    if (machine !== this.#machine || this.#relaying === undefined) return;
    const { retentionMs } = this.#options;
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

  /** Takes the outbox over from whichever relay is active. */
  async #take(leading: symbol, { table, owner }: Relaying, pauseMs = 0): Promise<void> {
    // The pause keeps two processes that both lead from taking over from each other without interruption.
    await delay(pauseMs);
    const backoff = new Backoff({ minMs: relayDefaults.retryMinMs, maxMs: relayDefaults.retryMaxMs });
    while (this.#leading === leading) {
      try {
        this.#taking = table.take(owner);
        const taken = await this.#taking.finally(() => {
          this.#taking = undefined;
        });
        if (this.#leading !== leading) return;
        if (taken !== undefined) {
          this.#machine = this.#options.start(taken);
          this.#options.logger.debug({ turn: taken.turn }, "relaying the outbox");
          this.pump();
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

  /** Takes over again while this process leads. The server may be another one. */
  #takeAgain(): void {
    clearTimeout(this.#timer);
    this.#machine = undefined;
    const leading = this.#leading;
    if (leading === undefined || this.#relaying === undefined) return;
    // A new owner id invalidates a previous turn that may still be running.
    this.#relaying = { ...this.#relaying, owner: randomUUID() };
    this.#track(this.#take(leading, this.#relaying, relayDefaults.retryMinMs));
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
