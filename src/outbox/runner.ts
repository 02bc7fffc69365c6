/**
 * The relay of a process: takes a sink of the outbox over while it is to lead, and carries out what a state machine says, in
 * Postgres and in the sink. There is one for each sink; what differs between them is their {@link Sink}.
 */
import { randomUUID } from "node:crypto";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { type DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { Backoff, Deadline, delay, type Logger, type RareLog, within } from "../runtime/index.js";
import { type OutboxKind, OutboxTable, type TakenOutbox } from "./outbox-table.js";

const stopPollMs = 5;

const { queryTimeoutMs, rotateMs, retryMinMs, retryMaxMs } = outboxConstants;

/** What a state machine of a relay says of itself. */
export interface RelayMachine<Step> {
  /** The next step; undefined: none before {@link readyAt}, or something settles. */
  next(now: number): Step | undefined;
  /** From when on {@link next} may have a step though nothing settles until then; Infinity: never. */
  readonly readyAt: number;
  /** Another relay has taken over, or this one has to begin again. */
  readonly isDeposed: boolean;
  /** Everything that was read is done, and the position saved. */
  readonly isIdle: boolean;
  /** A message was enqueued. */
  wake(): void;
  /** True: reads nothing more; what is read is finished, and the position saved. */
  isEnding: boolean;
}

/** What a relay does for one sink. */
export interface Sink<Step, Machine extends RelayMachine<Step>> {
  readonly kind: OutboxKind;
  readonly applicationName: string;
  /** What is said when a turn fails. */
  readonly problem: string;
  /** The NOTIFY channels that wake the relay. */
  readonly channels: readonly string[];
  /** How long messages stay in the outbox at least, in milliseconds. */
  readonly retentionMs: number;
  /** The greatest message that the sink takes, in bytes; undefined: not known. */
  readonly maxPayload?: () => number | undefined;
  /** Begins at the position that the relay before has left. */
  begin(taken: TakenOutbox): Machine;
  /** Tells a machine that there was a notification. */
  notified(machine: Machine, channel: string): void;
  /** Carries a step out, and settles it. A promise does not reject, and is waited for at the end. */
  run(machine: Machine, step: Step, relaying: Relaying): Promise<void> | undefined;
  /** Whether it makes sense to wait until everything that was read is done. */
  canFinish(): boolean;
}

/** What a sink works with while this process relays. */
export interface Relaying {
  readonly table: OutboxTable;
  readonly session: PostgresSession;
  readonly owner: string;
}

/** What a runner works with. */
export interface RunnerOptions {
  readonly address: DatabaseAddress;
  readonly logger: Logger;
  readonly rareLog: RareLog;
  /** Takes over again, for as long as it is to lead, when another relay has. */
  readonly retakes: boolean;
}

export class OutboxRunner<Step, Machine extends RelayMachine<Step>> {
  readonly #options: RunnerOptions;
  readonly #sink: Sink<Step, Machine>;
  /** Identifies the leadership that is carried out; undefined: this process does not relay. */
  #leading: symbol | undefined;
  #relaying: Relaying | undefined;
  #machine: Machine | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #rotatesAt = 0;
  #isPumping = false;

  constructor(sink: Sink<Step, Machine>, options: RunnerOptions) {
    this.#sink = sink;
    this.#options = options;
  }

  /** undefined: this process does not relay, or has not taken over yet. */
  get machine(): Machine | undefined {
    return this.#machine;
  }

  /** This process relays, or tries to. */
  get isLeading(): boolean {
    return this.#leading !== undefined;
  }

  /** This process is to relay: it takes the outbox over. */
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
    this.#relaying = { session, table: new OutboxTable(kind, session, maxPayload), owner: randomUUID() };
    this.#track(this.#take(this.#leading, this.#relaying, null));
  }

  /** Another process is to relay. */
  follow(): void {
    this.#leading = undefined;
    this.#machine = undefined;
    clearTimeout(this.#timer);
    const relaying = this.#relaying;
    this.#relaying = undefined;
    if (relaying !== undefined) this.#track(relaying.session.close());
  }

  /**
   * Finishes what was read, saves that, and ends.
   *
   * @param limitMs how long that may take
   */
  async stop(limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    const machine = this.#machine;
    const relaying = this.#relaying;
    if (machine !== undefined) machine.isEnding = true;
    this.pump();
    const isBusy = (): boolean => machine !== undefined && machine === this.#machine && !machine.isIdle;
    while (isBusy() && this.#sink.canFinish() && !deadline.isOver) await delay(stopPollMs);
    const isGivenBack = machine !== undefined && machine === this.#machine && machine.isIdle;
    this.#leading = undefined;
    this.#machine = undefined;
    clearTimeout(this.#timer);
    // Not longer, and without a timer that would keep the process.
    if (isGivenBack && relaying !== undefined)
      await within(
        deadline.remainingMs,
        relaying.table.giveBack(relaying.owner).catch(() => undefined),
      );
    this.follow();
    await within(deadline.remainingMs, Promise.all(this.#running));
  }

  /** Carries out what the machine says now. */
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

  /** What settles together goes on together. */
  pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      this.pump();
    });
  }

  /**
   * Runs a turn, and goes on; removes old messages now and then.
   *
   * @param settle of the outcome; undefined: Postgres did not answer
   */
  async turn<Outcome>(
    machine: Machine,
    call: () => Promise<Outcome>,
    settle: (outcome: Outcome | undefined) => void,
  ): Promise<void> {
    let outcome: Outcome | undefined;
    try {
      outcome = await call();
    } catch (error) {
      this.tell(this.#sink.problem, error);
    }
    settle(outcome);
    if (machine !== this.#machine || this.#relaying === undefined) return;
    const { retentionMs } = this.#sink;
    if (performance.now() >= this.#rotatesAt) {
      this.#rotatesAt = performance.now() + Math.min(rotateMs, retentionMs / 2);
      try {
        await this.#relaying.table.rotate(this.#relaying.owner, retentionMs);
      } catch (error) {
        this.tell("the oldest messages of the outbox cannot be removed", error);
      }
    }
    this.pump();
  }

  /** @param after only if this relay still works; null: whichever does */
  async #take(leading: symbol, { table, owner }: Relaying, after: string | null, pauseMs = 0): Promise<void> {
    // So that two processes that both take themselves for the leader do not do so all the time.
    await delay(pauseMs);
    const backoff = new Backoff({ minMs: retryMinMs, maxMs: retryMaxMs });
    while (this.#leading === leading) {
      try {
        const taken = await table.take(owner, after);
        if (this.#leading !== leading) return;
        if (taken !== undefined) {
          this.#machine = this.#sink.begin(taken);
          this.#options.logger.debug({ turn: taken.turn, kind: this.#sink.kind }, "relays the outbox");
          this.pump();
          return;
        }
        if (!this.#options.retakes) {
          this.follow();
          return;
        }
      } catch (error) {
        this.tell("the outbox cannot be taken over", error);
      }
      await delay(backoff.failed());
    }
  }

  /**
   * Takes over again, from the position that is saved. After a crash or a failover, the server may give ids of transactions
   * again that the relay has seen end, and it would take the new ones for done.
   */
  #sessionLost(session: PostgresSession): void {
    if (this.#relaying?.session === session && this.#machine !== undefined) this.#takeAgain();
  }

  /** For as long as this process is to lead, or no other relay works: the server may be another one. */
  #takeAgain(): void {
    clearTimeout(this.#timer);
    this.#machine = undefined;
    const leading = this.#leading;
    if (leading === undefined || this.#relaying === undefined) return;
    const after = this.#options.retakes ? null : this.#relaying.owner;
    // Another name, by which a turn of before that is still under way does not count.
    const relaying = after === null ? { ...this.#relaying, owner: randomUUID() } : this.#relaying;
    this.#relaying = relaying;
    this.#track(this.#take(leading, relaying, after, retryMinMs));
  }

  /** Warns of an error, if it did not lately. */
  tell(what: string, error: unknown): void {
    this.#options.rareLog.warn(what, error instanceof Error ? error.message : String(error));
  }

  #track(work: Promise<unknown>): void {
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }
}
