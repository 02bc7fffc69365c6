/**
 * The relay of messages for NATS: the process that leads the subscriptions relays. The rules are in `relay.ts`.
 */
import type { ServeSettings } from "../../generated/ts/settings/nats.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import type { NatsConnector } from "../nats/index.js";
import { DatabaseAddress } from "../postgres/index.js";
import { Deadline, delay, type Logger, RareLog } from "../runtime/index.js";
import type { EnqueuedMessage } from "./outbox-table.js";
import { OutboxRelay, type PublishOutcome, type PublishStep, type TurnOutcome, type TurnStep } from "./relay.js";
import { OutboxRunner } from "./runner.js";

const stopPollMs = 5;

const { publishWithinMs, publishTimeoutMs, maxUnderWay } = outboxConstants;

/** With so many publishes under way it waits for more of them to settle: many that leave with one write cost far less. */
const goesOnBelow = maxUnderWay / 2;

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
  /** Makes the publisher. @param tell of messages that are tried again */
  readonly publisher: (connector: NatsConnector, tell: (problem: string) => void) => OutboxPublisher;
  readonly settings: Pick<ServeSettings, "outboxRetentionMs" | "missingStreamMs">;
}

/** Counters of {@link NatsOutbox}. */
export interface NatsOutboxStats {
  /** Published since the process began. */
  readonly relayed: number;
  /** Given up. */
  readonly refused: number;
  /** Read and not published yet. */
  readonly waiting: number;
  /** When the oldest of them was enqueued; undefined: there is none. */
  readonly oldestAt: Date | undefined;
  /** Of those published: written into the outbox again by a replay, and stored again. */
  readonly replayed: number;
  /** Of those published: their stream has dropped them, as it has, or had, another message with their id. */
  readonly dropped: number;
  /** When the position moved last, by `performance.now()`; undefined: nothing waits, or another process leads. */
  readonly positionAt: number | undefined;
}

type Step = TurnStep<EnqueuedMessage> | PublishStep<EnqueuedMessage>;
type Machine = OutboxRelay<EnqueuedMessage>;

export class NatsOutbox {
  readonly #runner: OutboxRunner<Step, Machine>;
  readonly #publisher: OutboxPublisher;
  readonly #rareLog: RareLog;
  /** How many publishes are under way. */
  #publishing = 0;
  #relayed = 0;
  #refused = 0;
  #replayed = 0;
  #dropped = 0;
  /** When the position moved last, or was known to be at the end. */
  #movedAt = 0;
  #lastPosition = "";

  constructor(options: NatsOutboxOptions) {
    const { databaseUrl, connector, logger, settings } = options;
    const rareLog = new RareLog(logger, "outbox");
    this.#rareLog = rareLog;
    this.#publisher = options.publisher(connector, (problem) => {
      rareLog.warn("messages of the outbox cannot be published now, and are tried again", problem);
    });
    this.#runner = new OutboxRunner<Step, Machine>(
      {
        kind: "nats",
        applicationName: "hawser serve: outbox",
        channels: ["hawser_outbox"],
        retentionMs: settings.outboxRetentionMs,
        maxPayload: () => connector.connection?.info?.max_payload,
        problem: "Postgres does not answer the outbox",
        begin: ({ position, turn, canNotify, wasGivenBack }) => {
          const relay: Machine = new OutboxRelay(position, turn, performance.now(), {
            ...outboxConstants,
            lateMs: wasGivenBack ? 0 : publishWithinMs + publishTimeoutMs,
            canBeNotified: canNotify,
            missingStreamMs: settings.missingStreamMs,
          });
          relay.isConnected = connector.connection !== undefined;
          return relay;
        },
        notified: (relay) => relay.wake(),
        run: (relay, step, { table, owner }) => {
          if (step.kind === "publish") return this.#publish(relay, step);
          const begunAt = performance.now();
          return this.#runner.turn<TurnOutcome<EnqueuedMessage>>(
            relay,
            () => table.turn(owner, step),
            (outcome = { kind: "unavailable" }) => {
              const isSaved = outcome.kind === "done" && outcome.isSaved;
              if (outcome.kind !== "unavailable") this.#notePosition(relay, step, isSaved);
              relay.settleTurn(step, outcome, begunAt, performance.now());
              if (isSaved) this.#tellDead(step);
            },
          );
        },
        canFinish: () => connector.connection !== undefined,
      },
      { address: DatabaseAddress.of(databaseUrl), logger, rareLog, retakes: true },
    );
    connector.on("connected", () => this.#connectionChanged(true));
    connector.on("lost", () => this.#connectionChanged(false));
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

  /** This process leads: it takes the outbox over. */
  lead(): void {
    this.#runner.lead();
  }

  /** Another process leads. */
  follow(): void {
    this.#runner.follow();
  }

  /**
   * Publishes what it has read, saves that, and ends.
   *
   * @param limitMs how long that may take
   */
  async stop(limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    await this.#runner.stop(limitMs);
    while (this.#publishing > 0 && !deadline.isOver) await delay(stopPollMs);
    this.#rareLog.end();
  }

  #connectionChanged(isConnected: boolean): void {
    const relay = this.#runner.machine;
    if (relay === undefined) return;
    relay.isConnected = isConnected;
    this.#runner.pump();
  }

  #notePosition(relay: Machine, { position }: TurnStep<EnqueuedMessage>, isSaved: boolean): void {
    const text = `${position.from} ${position.to} ${position.after}`;
    if (relay.waiting > 0 && (!isSaved || text === this.#lastPosition)) return;
    this.#lastPosition = text;
    this.#movedAt = performance.now();
  }

  #publish(relay: Machine, step: PublishStep<EnqueuedMessage>): undefined {
    this.#publishing += 1;
    void this.#publisher.publish(step).then((outcome) => {
      this.#publishing -= 1;
      if (outcome.kind === "published") this.#count(step.message, outcome.as);
      relay.settlePublish(step, outcome, performance.now());
      if (relay === this.#runner.machine && this.#publishing < goesOnBelow) this.#runner.pumpSoon();
    });
  }

  #count({ copyOf, destination, messageId }: EnqueuedMessage, as: "stored" | "known" | "dropped"): void {
    this.#relayed += 1;
    if (as === "stored" && copyOf !== undefined) this.#replayed += 1;
    if (as !== "dropped") return;
    this.#dropped += 1;
    this.#rareLog.warn(
      "a stream has dropped a message of the outbox, as it has, or had, another one with the same id",
      `${destination}: ${messageId}`,
    );
  }

  #tellDead({ dead }: TurnStep<EnqueuedMessage>): void {
    this.#refused += dead.length;
    for (const { message, refusal } of dead) {
      this.#rareLog.warn("a message of the outbox became a dead letter", `${message.destination}: ${refusal.message}`);
    }
  }
}
