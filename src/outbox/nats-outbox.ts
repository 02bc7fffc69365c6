/** Relay of messages for NATS. It runs in the process that leads the subscriptions. The rules are in `relay.ts`. */
import type { ServeSettings } from "../../generated/ts/settings/nats.js";
import type { NatsConnector } from "../nats/index.js";
import { DatabaseAddress } from "../postgres/index.js";
import {
  Deadline,
  delay,
  type Logger,
  type OperationSpan,
  RareLog,
  startSpan,
  traceContextIn,
  tracer,
} from "../runtime/index.js";
import type { EnqueuedMessage } from "./outbox-table.js";
import { OutboxRelay, type PublishOutcome, type PublishStep, relayDefaults, type TurnStep } from "./relay.js";
import { OutboxRunner, type Relay } from "./runner.js";

const stopPollMs = 5;

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

export class NatsOutbox {
  readonly #runner: OutboxRunner;
  readonly #publisher: OutboxPublisher;
  readonly #rareLog: RareLog;
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
    const { databaseUrl, connector, logger, settings } = options;
    const rareLog = new RareLog(logger, "outbox");
    this.#rareLog = rareLog;
    this.#publisher = options.publisher(connector, (problem) => {
      rareLog.warn("could not publish messages of the outbox; retrying", problem);
    });
    this.#runner = new OutboxRunner({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      rareLog,
      retentionMs: settings.outboxRetentionMs,
      maxPayload: () => connector.connection?.info?.max_payload,
      start: ({ position, turn, canNotify, wasGivenBack }) => {
        const relay: Relay = new OutboxRelay(position, turn, performance.now(), {
          ...relayDefaults,
          lateMs: wasGivenBack ? 0 : relayDefaults.publishWithinMs + publishTimeoutMs,
          canBeNotified: canNotify,
          missingStreamMs: settings.missingStreamMs,
        });
        if (connector.connection === undefined) relay.disconnected("");
        return relay;
      },
      publish: (relay, step) => this.#publish(relay, step),
      turned: (relay, step, outcome) => {
        const isSaved = outcome.kind === "done" && outcome.isSaved;
        this.#notePosition(relay, step, isSaved);
        if (isSaved) this.#reportDeadLetters(step);
      },
      canFinish: () => connector.connection !== undefined,
    });
    connector.on("connected", () => {
      this.#runner.machine?.connected(performance.now());
      this.#runner.pump();
    });
    connector.on("lost", (error) => this.#runner.machine?.disconnected(error.message));
    connector.on("failed", () => this.#runner.machine?.unreachable());
  }

  get stats(): NatsOutboxStats {
    const relay = this.#runner.machine;
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

  /** Called when this process becomes the leader: takes the outbox over. */
  lead(): void {
    this.#runner.lead();
  }

  /** Called when another process becomes the leader. */
  follow(): void {
    this.#runner.follow();
  }

  /**
   * Publishes the messages that were read, saves the position, and stops.
   *
   * @param limitMs maximum duration
   */
  async stop(limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    await this.#runner.stop(limitMs);
    while (this.#publishing > 0 && !deadline.isOver) await delay(stopPollMs);
    this.#rareLog.end();
  }

  #notePosition(relay: Relay, { position }: TurnStep<EnqueuedMessage>, isSaved: boolean): void {
    const text = `${position.from} ${position.to} ${position.after}`;
    if (relay.waiting > 0 && (!isSaved || text === this.#lastPosition)) return;
    this.#lastPosition = text;
    this.#movedAt = performance.now();
  }

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
      if (relay === this.#runner.machine && this.#publishing < resumeBelow) this.#runner.pumpSoon();
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
