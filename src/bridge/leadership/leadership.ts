/**
 * Leadership over a session with Postgres of its own.
 */
import { randomUUID } from "node:crypto";
import { notifyChannels } from "../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { DatabaseAddress, type OwnershipState, PostgresSession } from "../../postgres/index.js";
import { type Logger, systemClock } from "../../runtime/index.js";
import { explainServeRefusal } from "../../store/index.js";
import { PostgresLeadershipTable } from "./postgres-table.js";
import { type LeadershipEvents, type LeadershipMessages, LeadershipProtocol, type OthersHave } from "./protocol.js";

const { leaderHeartbeatMs, leaderExpiryMs } = bridgeConstants;

/** What it works with. */
export interface LeadershipOptions extends Omit<LeadershipEvents, "onProblem">, LeadershipMessages {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
}

/** The rules are in {@link LeadershipProtocol}; all times are of `performance.now()`. */
export class Leadership implements AsyncDisposable {
  readonly #logger: Logger;
  readonly #session: PostgresSession;
  readonly #protocol: LeadershipProtocol;
  /** As it was logged: the same again is no news. */
  #problem: string | undefined;
  #isStopped = false;

  constructor(options: LeadershipOptions) {
    const { databaseUrl, logger, unfinished, completeSince, receivedSince, receivedUntil, isReceiving, ...events } =
      options;
    this.#logger = logger;
    this.#session = new PostgresSession({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      applicationName: "hawser serve: lead",
      // The last leader says there that it has ended.
      channels: [notifyChannels.natsHandler],
      connectTimeoutMs: 2 * leaderHeartbeatMs,
      queryTimeoutMs: 2 * leaderHeartbeatMs,
      onNotification: () => {
        if (this.#protocol.epoch === undefined) this.#protocol.poke();
      },
      onDown: () => this.#protocol.sessionLost(),
    });
    this.#protocol = new LeadershipProtocol({
      table: new PostgresLeadershipTable(this.#session),
      clock: systemClock,
      logger,
      owner: randomUUID(),
      messages: { unfinished, completeSince, receivedSince, receivedUntil, isReceiving },
      events: {
        onLeading: (epoch, options) => {
          this.#problem = undefined;
          this.#guarded(() => events.onLeading(epoch, options));
        },
        onDeposed: (reason) => this.#guarded(() => events.onDeposed(reason)),
        onWaiting: (epoch) => this.#guarded(() => events.onWaiting(epoch)),
        onProgress: (progress) => this.#guarded(() => events.onProgress(progress)),
        onProblem: (cause) => {
          this.#tellProblem(cause).catch((err) => logger.debug({ err }, "why Postgres refused could not be found out"));
        },
      },
    });
  }

  /** The epoch in which this process leads; undefined: it does not. */
  get epoch(): bigint | undefined {
    return this.#protocol.epoch;
  }

  /** `held`: it leads, and Postgres has said so since the last connection was made. */
  get state(): OwnershipState {
    return this.#protocol.state;
  }

  /** Resolves when it leads, or knows that it does not, or Postgres does not answer; does not reject. */
  start(): Promise<void> {
    return this.#protocol.start();
  }

  /** A batch was refused by the fence: reads at once whether this process still leads. */
  refused(): void {
    this.#protocol.poke();
  }

  /** It receives again: reads at once whether it is to lead. */
  receives(): void {
    this.#protocol.poke();
  }

  /** Gives leadership back, if it has it, and goes on reading. Does not reject. */
  stepDown(reason: string): Promise<void> {
    return this.#protocol.stepDown(reason);
  }

  /** Postgres is a standby: nobody leads there. */
  pause(): void {
    this.#protocol.pause("Postgres is a standby");
  }

  /** Postgres is a primary. */
  resume(): void {
    this.#protocol.resume();
  }

  /** Whether another process runs what this one has kept. See {@link LeadershipProtocol.othersHave}. */
  othersHave(signal: AbortSignal): Promise<OthersHave> {
    return this.#protocol.othersHave(signal);
  }

  /**
   * Ends it, and gives leadership back if it has it: to be called when no batch runs any more. Tells nothing any more; does not
   * reject.
   *
   * @param limitMs how long Postgres may take
   */
  async stop(limitMs: number = leaderExpiryMs): Promise<void> {
    this.#isStopped = true;
    // Postgres may hang: then what waits for its answers is rejected.
    const timer = setTimeout(() => void this.#session.close(), limitMs);
    await this.#protocol.release();
    clearTimeout(timer);
    await this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #guarded(tell: () => void): void {
    if (this.#isStopped) return;
    try {
      tell();
    } catch (err) {
      this.#logger.error({ err }, "what follows a change of leadership failed");
    }
  }

  async #tellProblem(cause: unknown): Promise<void> {
    const { code, message } = await explainServeRefusal(
      this.#session,
      "find out which process leads the subscriptions",
      cause,
    );
    const level = message === this.#problem ? "debug" : "warn";
    this.#problem = message;
    this.#logger[level]({ code, problem: message }, "which process leads the subscriptions is not known");
  }
}
