/**
 * Leadership over a session with Postgres of its own.
 */
import { randomUUID } from "node:crypto";
import { notifyChannels } from "../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { DatabaseAddress, PostgresSession } from "../../postgres/index.js";
import { type Logger, ProblemLog, systemClock } from "../../runtime/index.js";
import { explainServeRefusal } from "../../store/index.js";
import { PostgresLeadershipTable } from "./postgres-table.js";
import { type LeadershipEvents, type LeadershipMessages, LeadershipProtocol } from "./protocol.js";

const { leaderHeartbeatMs, leaderExpiryMs } = bridgeConstants;

/** Collaborators and limits of {@link Leadership}. */
export interface LeadershipOptions extends Omit<LeadershipEvents, "onProblem">, LeadershipMessages {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** The session has ended. */
  readonly onSessionLost?: () => void;
}

/** The protocol of leadership and its session with Postgres. Times are of `performance.now()`. Errors of the events are logged. */
export class Leadership extends LeadershipProtocol implements AsyncDisposable {
  /** Session in which nothing takes long: another query would make the heartbeat late. */
  readonly session: PostgresSession;
  readonly #problems: ProblemLog;
  #isStopped = false;

  constructor(options: LeadershipOptions) {
    const { databaseUrl, logger } = options;
    const owner = randomUUID();
    const session = new PostgresSession({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      applicationName: "hawser serve: lead",
      // The last leader says there that it has ended.
      channels: [notifyChannels.natsHandler],
      connectTimeoutMs: 2 * leaderHeartbeatMs,
      queryTimeoutMs: 2 * leaderHeartbeatMs,
      onNotification: () => {
        if (this.epoch === undefined) this.poke();
      },
      onDown: () => {
        this.sessionLost();
        options.onSessionLost?.();
      },
    });
    super({
      table: new PostgresLeadershipTable(session, owner),
      clock: systemClock,
      logger,
      owner,
      messages: options,
      events: {
        onLeading: (epoch, how) => {
          this.#problems.clear();
          this.#guarded(() => options.onLeading(epoch, how));
        },
        onDeposed: (reason) => this.#guarded(() => options.onDeposed(reason)),
        onWaiting: (epoch) => this.#guarded(() => options.onWaiting(epoch)),
        onProgress: (progress) => this.#guarded(() => options.onProgress(progress)),
        onProblem: (cause) => {
          this.#tellProblem(cause).catch((err) => logger.debug({ err }, "why Postgres refused could not be found out"));
        },
      },
    });
    this.session = session;
    this.#problems = new ProblemLog(logger);
  }

  /**
   * Releases it and closes the session: to be called when no batch runs any more. Tells nothing any more; does not reject.
   *
   * @param limitMs how long Postgres may take
   */
  async stop(limitMs: number = leaderExpiryMs): Promise<void> {
    this.#isStopped = true;
    // Postgres may hang: then what waits for its answers is rejected.
    const timer = setTimeout(() => void this.session.close(), limitMs);
    await this.release();
    clearTimeout(timer);
    await this.session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #guarded(tell: () => void): void {
    if (this.#isStopped) return;
    try {
      tell();
    } catch (err) {
      this.options.logger.error({ err }, "handling a change of leadership failed");
    }
  }

  async #tellProblem(cause: unknown): Promise<void> {
    const action = "find out which process leads the subscriptions";
    const { code, message } = await explainServeRefusal(this.session, action, cause);
    this.#problems.tell(message, "which process leads the subscriptions is not known", { code });
  }
}
