/**
 * The relay of a process: takes the outbox over while the process leads, and carries out what the state machine says.
 */
import { randomUUID } from "node:crypto";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import type { NatsConnector } from "../nats/index.js";
import { DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { Backoff, Deadline, delay, type Logger, RareLog, within } from "../runtime/index.js";
import { NatsPublisher } from "./nats-publisher.js";
import { type EnqueuedMessage, OutboxTable, type TakenOutbox } from "./outbox-table.js";
import { OutboxRelay, type PublishStep, type RelaySettings, type TurnStep } from "./relay.js";

const stopPollMs = 5;

const { queryTimeoutMs, rotateMs, retryMinMs, retryMaxMs, slowLookMs, unnotifiedLookMs, maxUnderWay } = outboxConstants;

/** With so many publishes under way it waits for more of them to settle: many that leave with one write cost far less. */
const goesOnBelow = maxUnderWay / 2;

/** Unless it is stronger than that already. */
const durableSql = `SELECT set_config('synchronous_commit', 'on', false)
  WHERE current_setting('synchronous_commit') IN ('off', 'local')`;

/** What it works with. */
export interface NatsOutboxOptions {
  readonly databaseUrl: string | undefined;
  readonly connector: NatsConnector;
  readonly logger: Logger;
  /** How long messages stay in the outbox at least, in milliseconds. */
  readonly retentionMs: number;
}

/** What is counted. */
export interface NatsOutboxStats {
  /** Published since the process began. */
  readonly relayed: number;
  /** Given up. */
  readonly refused: number;
  /** Read and not published yet. */
  readonly waiting: number;
  /** When the oldest of them was enqueued; undefined: there is none. */
  readonly oldestAt: Date | undefined;
  /** Of those published: written into the outbox again, or found to be in their stream. */
  readonly replayed: number;
  /** When the position moved last, by `performance.now()`; undefined: nothing waits, or another process leads. */
  readonly positionAt: number | undefined;
}

export class NatsOutbox {
  readonly #options: NatsOutboxOptions;
  readonly #session: PostgresSession;
  readonly #table: OutboxTable;
  readonly #publisher: NatsPublisher;
  readonly #rareLog: RareLog;
  /** Identifies the leadership that is carried out; undefined: another process leads. */
  #leading: symbol | undefined;
  #relay: OutboxRelay<EnqueuedMessage> | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<void>>();
  /** How many publishes are under way. */
  #publishing = 0;
  #rotatesAt = 0;
  #relayed = 0;
  #refused = 0;
  #replayed = 0;
  /** When the position moved last, or was known to be at the end. */
  #movedAt = 0;
  #lastPosition = "";

  constructor(options: NatsOutboxOptions) {
    const { databaseUrl, connector, logger } = options;
    this.#options = options;
    this.#session = new PostgresSession({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      applicationName: "hawser serve: outbox",
      channels: ["hawser_outbox"],
      queryTimeoutMs,
      // A turn's commit puts on disk what it has read.
      onConnected: async (query) => {
        await query(durableSql);
      },
      onNotification: () => this.#wake(),
      onDown: () => this.#sessionLost(),
    });
    this.#table = new OutboxTable(this.#session);
    this.#rareLog = new RareLog(logger, "outbox");
    this.#publisher = new NatsPublisher(connector, (problem) => {
      this.#rareLog.warn("messages of the outbox cannot be published now, and are tried again", problem);
    });
    connector.on("connected", () => this.#connectionChanged(true));
    connector.on("lost", () => this.#connectionChanged(false));
  }

  get stats(): NatsOutboxStats {
    const waiting = this.#relay?.waiting ?? 0;
    return {
      relayed: this.#relayed,
      refused: this.#refused,
      replayed: this.#replayed,
      waiting,
      oldestAt: this.#relay?.oldest?.enqueuedAt,
      positionAt: waiting === 0 ? undefined : this.#movedAt,
    };
  }

  /** This process leads: it takes the outbox over. */
  lead(): void {
    if (this.#leading !== undefined) return;
    const leading = Symbol();
    this.#leading = leading;
    this.#track(this.#lead(leading));
  }

  /** Another process leads. */
  follow(): void {
    this.#leading = undefined;
    this.#relay = undefined;
    clearTimeout(this.#timer);
  }

  /**
   * Publishes what it has read, saves that, and ends.
   *
   * @param limitMs how long that may take
   */
  async stop(limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    const relay = this.#relay;
    relay?.end();
    this.#pump();
    const isBusy = (): boolean => relay !== undefined && relay === this.#relay && !relay.isIdle;
    while (isBusy() && this.#options.connector.connection !== undefined && !deadline.isOver) await delay(stopPollMs);
    const isGivenBack = relay !== undefined && relay === this.#relay && relay.isIdle;
    this.follow();
    // Not longer, and without a timer that would keep the process.
    if (isGivenBack)
      await within(
        deadline.remainingMs,
        this.#table.giveBack(this.#owner).catch(() => undefined),
      );
    await this.#session.close();
    await within(deadline.remainingMs, Promise.all(this.#running));
    while (this.#publishing > 0 && !deadline.isOver) await delay(stopPollMs);
    this.#rareLog.end();
  }

  /** @param pauseMs so that two processes that both take themselves for the leader do not do so all the time */
  async #lead(leading: symbol, pauseMs = 0): Promise<void> {
    await delay(pauseMs);
    const backoff = new Backoff({ minMs: retryMinMs, maxMs: retryMaxMs });
    const owner = randomUUID();
    while (this.#leading === leading) {
      try {
        const { turn, position, ...how } = await this.#table.take(owner);
        if (this.#leading !== leading) return;
        this.#relay = new OutboxRelay(position, turn, performance.now(), settingsOf(how));
        this.#relay.isConnected = this.#options.connector.connection !== undefined;
        this.#options.logger.debug({ turn }, "relays the outbox");
        this.#pump(owner);
        return;
      } catch (error) {
        this.#tell("the outbox cannot be taken over", error);
        await delay(backoff.failed());
      }
    }
  }

  #wake(): void {
    this.#relay?.wake();
    this.#pump();
  }

  /**
   * Takes over again, from the position that is saved. After a crash or a failover, the server may give ids of transactions
   * again that the relay has seen end, and it would take the new ones for done.
   */
  #sessionLost(): void {
    if (this.#relay !== undefined) this.#takeAgain();
  }

  #takeAgain(): void {
    const leading = this.#leading;
    clearTimeout(this.#timer);
    this.#relay = undefined;
    if (leading !== undefined) this.#track(this.#lead(leading, retryMinMs));
  }

  #connectionChanged(isConnected: boolean): void {
    if (this.#relay === undefined) return;
    this.#relay.isConnected = isConnected;
    this.#pump();
  }

  #owner = "";

  #pump(owner = this.#owner): void {
    this.#owner = owner;
    const relay = this.#relay;
    if (relay === undefined) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    for (let step = relay.next(now); step !== undefined; step = relay.next(now)) {
      if (step.kind === "turn") this.#track(this.#turn(relay, step));
      else this.#publish(relay, step);
    }
    if (relay.isDeposed) {
      // As long as this process leads: the server may be another one.
      this.#takeAgain();
      return;
    }
    const { readyAt } = relay;
    if (Number.isFinite(readyAt))
      this.#timer = setTimeout(() => this.#pump(), Math.max(0, readyAt - performance.now()));
  }

  async #turn(relay: OutboxRelay<EnqueuedMessage>, step: TurnStep<EnqueuedMessage>): Promise<void> {
    const begunAt = performance.now();
    try {
      const outcome = await this.#table.turn(this.#owner, step);
      this.#notePosition(relay, step, outcome.kind === "done" && outcome.isSaved);
      relay.settleTurn(step, outcome, begunAt, performance.now());
      if (outcome.kind === "done" && outcome.isSaved) this.#tellDead(step);
    } catch (error) {
      this.#tell("Postgres does not answer the outbox", error);
      relay.settleTurn(step, { kind: "unavailable" }, begunAt, performance.now());
    }
    if (relay !== this.#relay) return;
    await this.#rotate();
    this.#pump();
  }

  #notePosition(relay: OutboxRelay<EnqueuedMessage>, { position }: TurnStep<EnqueuedMessage>, isSaved: boolean): void {
    const text = `${position.from} ${position.to} ${position.after}`;
    if (relay.waiting > 0 && (!isSaved || text === this.#lastPosition)) return;
    this.#lastPosition = text;
    this.#movedAt = performance.now();
  }

  #publish(relay: OutboxRelay<EnqueuedMessage>, step: PublishStep<EnqueuedMessage>): void {
    this.#publishing += 1;
    void this.#publisher.publish(step).then((outcome) => {
      this.#publishing -= 1;
      if (outcome.kind === "published") this.#relayed += 1;
      if (outcome.kind === "published" && step.message.copyOf !== undefined) this.#replayed += 1;
      relay.settlePublish(step, outcome, performance.now());
      if (relay === this.#relay && this.#publishing < goesOnBelow) this.#pumpSoon();
    });
  }

  #isPumping = false;

  /** What settles together goes on together. */
  #pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  async #rotate(): Promise<void> {
    const { retentionMs } = this.#options;
    if (performance.now() < this.#rotatesAt) return;
    this.#rotatesAt = performance.now() + Math.min(rotateMs, retentionMs / 2);
    try {
      await this.#table.rotate(this.#owner, retentionMs);
    } catch (error) {
      this.#tell("the oldest messages of the outbox cannot be removed", error);
    }
  }

  #tellDead({ dead }: TurnStep<EnqueuedMessage>): void {
    this.#refused += dead.length;
    for (const { message, refusal } of dead) {
      this.#rareLog.warn("a message of the outbox became a dead letter", `${message.destination}: ${refusal.message}`);
    }
  }

  #tell(what: string, error: unknown): void {
    this.#rareLog.warn(what, error instanceof Error ? error.message : String(error));
  }

  #track(work: Promise<void>): void {
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }
}

function settingsOf({ canNotify, wasGivenBack }: Pick<TakenOutbox, "canNotify" | "wasGivenBack">): RelaySettings {
  const { publishWithinMs, publishTimeoutMs } = outboxConstants;
  const lateMs = wasGivenBack ? 0 : publishWithinMs + publishTimeoutMs;
  return {
    ...outboxConstants,
    lateMs,
    canBeNotified: canNotify,
    slowLookMs: canNotify ? slowLookMs : unnotifiedLookMs,
  };
}
