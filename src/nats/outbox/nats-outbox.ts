/**
 * Relay of messages for NATS, in the process that leads the subscriptions: takes the outbox over while the process leads,
 * and carries out the steps of the state machine. The rules are in `relay.ts`.
 */
import { randomUUID } from "node:crypto";
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import { errorMessageOf } from "../../foundation/errors/index.js";
import { DatabaseAddress, isServerError, PostgresSession, type SessionQuery } from "../../foundation/postgres/index.js";
import {
  Backoff,
  Deadline,
  delay,
  type Logger,
  type OperationSpan,
  oncePerTurn,
  RareLog,
  startSpan,
  traceContextIn,
  tracer,
  within,
} from "../../foundation/runtime/index.js";
import type { NatsConnector } from "../connections/index.js";
import { type EnqueuedMessage, OutboxTable, type TakenOutbox } from "./outbox-table.js";
import {
  OutboxRelay,
  type PublishOutcome,
  type PublishStep,
  relayDefaults,
  type TurnOutcome,
  type TurnStep,
} from "./relay.js";

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

/** Maximum time for NATS to answer a publish. */
export const publishTimeoutMs = 5_000;

/**
 * Number of publishes in flight below which the relay publishes more. It does not refill the window after each
 * completion, because publishes that share a write cost far less.
 */
const resumeBelow = relayDefaults.maxUnderWay / 2;

/** Publishes messages to NATS. */
export interface OutboxPublisher {
  /** Publishes a message. Does not reject. */
  publish(step: PublishStep<EnqueuedMessage>): Promise<PublishOutcome>;
}

/** Collaborators and settings of {@link NatsOutbox}. */
export interface NatsOutboxOptions {
  readonly databaseUrl: string | undefined;
  readonly connector: NatsConnector;
  readonly logger: Logger;
  /** Creates the publisher. @param onRetry receives a description of messages that will be retried */
  readonly publisher: (connector: NatsConnector, onRetry: (problem: string) => void) => OutboxPublisher;
  readonly settings: Pick<ServeSettings, "outboxRetentionMs" | "missingStreamMs">;
}

/** Counters of {@link NatsOutbox}. */
export interface NatsOutboxStats {
  /** Messages published since the process started. */
  readonly relayed: number;
  /** Messages that became dead letters. */
  readonly refused: number;
  /** Messages read and not published yet. */
  readonly waiting: number;
  /** Enqueue time of the oldest waiting message; undefined if none waits. */
  readonly oldestAt: Date | undefined;
  /** Published replays that were stored. */
  readonly replayed: number;
  /** Published messages that their stream dropped because it knew their id. */
  readonly dropped: number;
  /**
   * Time of the last progress of the position (`performance.now()`); undefined if nothing waits, or another process
   * leads.
   */
  readonly positionAt: number | undefined;
}

type Relay = OutboxRelay<EnqueuedMessage>;

/** Resources of the relay while this process relays. */
interface Relaying {
  readonly table: OutboxTable;
  readonly session: PostgresSession;
  readonly owner: string;
}

export class NatsOutbox {
  readonly #options: NatsOutboxOptions;
  readonly #address: DatabaseAddress;
  readonly #publisher: OutboxPublisher;
  readonly #rareLog: RareLog;
  /** Identity of the current leadership; undefined if this process does not relay. */
  #leading: symbol | undefined;
  #relaying: Relaying | undefined;
  /** Current state machine; undefined if this process does not relay, or has not taken over yet. */
  #relay: Relay | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #rotatesAt = 0;
  readonly #pumpSoon = oncePerTurn(() => this.#pump());
  #queryTimeoutMs = quickQueryTimeoutMs;
  /** Running call that takes the outbox over. */
  #taking: Promise<TakenOutbox | undefined> | undefined;
  /** Number of publishes in flight. */
  #publishing = 0;
  #relayed = 0;
  #refused = 0;
  #replayed = 0;
  #dropped = 0;
  /** Time at which the position last moved or was at the end. */
  #movedAt = 0;
  #lastPosition = "";

  constructor(options: NatsOutboxOptions) {
    const { connector, logger } = options;
    this.#options = options;
    this.#address = DatabaseAddress.of(options.databaseUrl);
    this.#rareLog = new RareLog(logger, "outbox");
    this.#publisher = options.publisher(connector, (problem) => {
      this.#rareLog.warn("could not publish messages of the outbox; retrying", problem);
    });
    connector.on("connected", () => {
      this.#relay?.connected(performance.now());
      this.#pump();
    });
    connector.on("lost", (error) => this.#relay?.disconnected(error.message));
    connector.on("failed", () => this.#relay?.unreachable());
  }

  get stats(): NatsOutboxStats {
    const relay = this.#relay;
    const waiting = relay?.waiting ?? 0;
    return {
      relayed: this.#relayed,
      refused: this.#refused,
      replayed: this.#replayed,
      dropped: this.#dropped,
      waiting,
      oldestAt: relay?.oldest?.enqueuedAt,
      positionAt: waiting === 0 ? undefined : this.#movedAt,
    };
  }

  /** Makes this process relay: takes the outbox over. */
  lead(): void {
    if (this.#leading !== undefined) return;
    this.#leading = Symbol();
    const { connector, logger } = this.#options;
    const session = new PostgresSession({
      address: this.#address,
      logger,
      applicationName: "hawser serve: outbox",
      channels: ["hawser_outbox"],
      queryTimeoutMs,
      onNotification: () => {
        this.#relay?.wake();
        this.#pump();
      },
      onDown: () => this.#sessionLost(session),
    });
    const query: SessionQuery = (text, values) => this.#query(session, text, values);
    const maxPayload = () => connector.connection?.info?.max_payload;
    this.#relaying = { session, table: new OutboxTable(query, maxPayload), owner: randomUUID() };
    this.#track(this.#take(this.#leading, this.#relaying));
  }

  /** Makes this process stop relaying at once. */
  follow(): void {
    this.#leading = undefined;
    this.#relay = undefined;
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
    const relay = this.#relay;
    if (relay !== undefined) relay.isEnding = true;
    this.#pump();
    const isBusy = (): boolean => relay !== undefined && relay === this.#relay && !relay.isIdle;
    while (isBusy() && this.#options.connector.connection !== undefined && !deadline.isOver) await delay(stopPollMs);
    const relaying = this.#relaying;
    const taking = this.#relay === undefined ? this.#taking : undefined;
    let canRelease = relay !== undefined && relay === this.#relay && relay.isIdle;
    this.#leading = undefined;
    this.#relay = undefined;
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
    while (this.#publishing > 0 && !deadline.isOver) await delay(stopPollMs);
    this.#rareLog.end();
  }

  /** Carries out the current steps of the relay. */
  #pump(): void {
    const relay = this.#relay;
    const relaying = this.#relaying;
    if (relay === undefined || relaying === undefined) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    for (let step = relay.next(now); step !== undefined; step = relay.next(now)) {
      if (step.kind === "publish") this.#publish(relay, step);
      else this.#track(this.#turn(relay, step, relaying));
    }
    if (relay.isDeposed) {
      this.#takeAgain();
      return;
    }
    const { readyAt } = relay;
    if (Number.isFinite(readyAt))
      this.#timer = setTimeout(() => this.#pump(), Math.max(0, readyAt - performance.now()));
  }

  /** Runs a turn and continues. Removes old messages periodically. */
  async #turn(relay: Relay, step: TurnStep<EnqueuedMessage>, { table, owner }: Relaying): Promise<void> {
    const startedAt = performance.now();
    let outcome: TurnOutcome<EnqueuedMessage> = { kind: "unavailable" };
    try {
      outcome = await table.turn(owner, step);
      const isSaved = outcome.kind === "done" && outcome.isSaved;
      this.#notePosition(relay, step, isSaved);
      if (isSaved) this.#reportDeadLetters(step);
    } catch (error) {
      this.#warn("could not read or update the outbox in Postgres; retrying", error);
    }
    relay.completeTurn(step, outcome, startedAt, performance.now());
    if (relay !== this.#relay || this.#relaying === undefined) return;
    const { outboxRetentionMs: retentionMs } = this.#options.settings;
    if (performance.now() >= this.#rotatesAt) {
      this.#rotatesAt = performance.now() + Math.min(rotateMs, retentionMs / 2);
      try {
        await this.#relaying.table.rotate(this.#relaying.owner, retentionMs);
      } catch (error) {
        this.#warn("could not remove the oldest messages of the outbox", error);
      }
    }
    this.#pump();
  }

  #relayFrom({ position, turn, canNotify, wasGivenBack }: TakenOutbox): Relay {
    const { connector, settings } = this.#options;
    const relay: Relay = new OutboxRelay(position, turn, performance.now(), {
      ...relayDefaults,
      lateMs: wasGivenBack ? 0 : relayDefaults.publishWithinMs + publishTimeoutMs,
      canBeNotified: canNotify,
      missingStreamMs: settings.missingStreamMs,
    });
    if (connector.connection === undefined) relay.disconnected("");
    return relay;
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
          this.#relay = this.#relayFrom(taken);
          this.#options.logger.debug({ turn: taken.turn }, "relaying the outbox");
          this.#pump();
          return;
        }
      } catch (error) {
        this.#warn("could not take the outbox over", error);
      }
      await delay(backoff.failed());
    }
  }

  /**
   * Takes over again from the saved position. After a crash or a failover, the server may reuse transaction ids that
   * the relay has seen end, and the relay would skip the new transactions.
   */
  #sessionLost(session: PostgresSession): void {
    if (this.#relaying?.session === session && this.#relay !== undefined) this.#takeAgain();
  }

  /** Takes over again while this process leads. The server may be another one. */
  #takeAgain(): void {
    clearTimeout(this.#timer);
    this.#relay = undefined;
    const leading = this.#leading;
    if (leading === undefined || this.#relaying === undefined) return;
    // A new owner id invalidates a previous turn that may still be running.
    this.#relaying = { ...this.#relaying, owner: randomUUID() };
    this.#track(this.#take(leading, this.#relaying, relayDefaults.retryMinMs));
  }

  /** Runs a statement with a time limit that follows from the last ones. */
  async #query<Row extends object>(
    session: PostgresSession,
    ...[text, values]: Parameters<SessionQuery>
  ): Promise<Row[]> {
    const startedAt = performance.now();
    const limited = (ms: number): number => Math.min(queryTimeoutMs, Math.max(quickQueryTimeoutMs, ms));
    try {
      const rows = await session.query<Row>(text, values, this.#queryTimeoutMs);
      this.#queryTimeoutMs = limited(slackOfTurns * (performance.now() - startedAt));
      return rows;
    } catch (error) {
      if (!isServerError(error)) this.#queryTimeoutMs = limited(2 * this.#queryTimeoutMs);
      throw error;
    }
  }

  /** Logs a warning, unless the same one was logged recently. */
  #warn(what: string, error: unknown): void {
    this.#rareLog.warn(what, errorMessageOf(error));
  }

  #track(work: Promise<unknown>): void {
    const tracked = work
      .catch((error) => this.#warn("a step of the relay of the outbox has failed", error))
      .finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
  }

  #notePosition(relay: Relay, { position }: TurnStep<EnqueuedMessage>, isSaved: boolean): void {
    const text = `${position.from} ${position.to} ${position.after}`;
    if (relay.waiting > 0 && (!isSaved || text === this.#lastPosition)) return;
    this.#lastPosition = text;
    this.#movedAt = performance.now();
  }

  // ---- publishes ----

  #publish(relay: Relay, step: PublishStep<EnqueuedMessage>): void {
    this.#publishing += 1;
    const span = tracer && startPublish(step);
    const published =
      span === undefined ? this.#publisher.publish(step) : span.run(() => this.#publisher.publish(step));
    void published.then((outcome) => {
      span?.end(outcome.kind === "published" ? undefined : { code: outcome.kind, message: "", ...outcome });
      this.#publishing -= 1;
      if (outcome.kind === "published") this.#count(step.message, outcome.as);
      relay.completePublish(step, outcome, performance.now());
      if (relay === this.#relay && this.#publishing < resumeBelow) this.#pumpSoon();
    });
  }

  #count({ copyOf, destination, messageId }: EnqueuedMessage, as: "stored" | "known" | "dropped"): void {
    this.#relayed += 1;
    if (as === "stored" && copyOf !== undefined) this.#replayed += 1;
    if (as !== "dropped") return;
    this.#dropped += 1;
    this.#rareLog.warn(
      "a stream dropped a message of the outbox, because it knows the id from another message",
      `${destination}: ${messageId}`,
    );
  }

  #reportDeadLetters({ dead }: TurnStep<EnqueuedMessage>): void {
    this.#refused += dead.length;
    for (const { message, refusal } of dead) {
      this.#rareLog.warn("a message of the outbox became a dead letter", `${message.destination}: ${refusal.message}`);
    }
  }
}

/** Starts the span of publishing a message that belongs to a trace. */
function startPublish({ message }: PublishStep<EnqueuedMessage>): OperationSpan | undefined {
  const { destination, payload, headers, messageId } = message;
  const from = [traceContextIn(headers)];
  return startSpan({ kind: "send", system: "nats", destination, from, bytes: payload.length, messageId }, "never");
}
