/**
 * Leadership with a Postgres session of its own.
 */
import { randomUUID } from "node:crypto";
import { notifyChannels } from "../../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../../generated/ts/settings/nats.js";
import { DatabaseAddress, PostgresSession } from "../../../foundation/postgres/index.js";
import { type Logger, ProblemLog, systemClock } from "../../../foundation/runtime/index.js";
import { explainServeRefusal } from "../../../jobs-and-peers/migrations/index.js";
import { PostgresLeadershipTable } from "./postgres-table.js";
import { type LeadershipEvents, type LeadershipMessages, LeadershipProtocol } from "./protocol.js";

const { leaderHeartbeatMs, leaderExpiryMs } = bridgeConstants;

/** Collaborators of {@link Leadership}. */
interface LeadershipOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  readonly candidate: Candidate;
}

/** Process that can become the leader. */
export interface Candidate extends Omit<LeadershipEvents, "onProblem">, LeadershipMessages {
  /** The session was lost. */
  onSessionLost?(): void;
}

/**
 * Leadership protocol over a session of its own. Its times are those of `performance.now()`. Errors of event handlers
 * are logged.
 */
export class Leadership extends LeadershipProtocol implements AsyncDisposable {
  /** Session for short queries only: a long one would delay the heartbeat. */
  readonly session: PostgresSession;
  readonly #problems: ProblemLog;
  #isStopped = false;

  constructor({ databaseUrl, logger, candidate }: LeadershipOptions) {
    const owner = randomUUID();
    const session = new PostgresSession({
      address: DatabaseAddress.of(databaseUrl),
      logger,
      applicationName: "hawser serve: lead",
      // The previous leader announces its end on this channel.
      channels: [notifyChannels.natsHandler],
      connectTimeoutMs: 2 * leaderHeartbeatMs,
      queryTimeoutMs: 2 * leaderHeartbeatMs,
      onNotification: () => {
        if (this.epoch === undefined) this.poke();
      },
      onDown: () => {
        this.sessionLost();
        candidate.onSessionLost?.();
      },
    });
    super({
      table: new PostgresLeadershipTable(session, owner),
      clock: systemClock,
      logger,
      owner,
      messages: candidate,
      events: {
        onLeading: (epoch, how) => {
          this.#problems.clear();
          this.#guarded(() => candidate.onLeading(epoch, how));
        },
        onDeposed: (reason) => this.#guarded(() => candidate.onDeposed(reason)),
        onWaiting: (epoch) => this.#guarded(() => candidate.onWaiting(epoch)),
        onProgress: (progress) => this.#guarded(() => candidate.onProgress(progress)),
        onProblem: (cause) => {
          this.#logProblem(cause).catch((err) =>
            logger.debug({ err }, "cannot find out why Postgres refused a statement of leadership"),
          );
        },
      },
    });
    this.session = session;
    this.#problems = new ProblemLog(logger);
  }

  /**
   * Releases leadership and closes the session. No batch may be running. Calls no event handlers; does not reject.
   *
   * @param limitMs time limit for Postgres
   */
  async stop(limitMs: number = leaderExpiryMs): Promise<void> {
    this.#isStopped = true;
    // If Postgres hangs, closing the session rejects the queries that wait.
    const timer = setTimeout(() => void this.session.close(), limitMs);
    await this.release();
    clearTimeout(timer);
    await this.session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #guarded(notify: () => void): void {
    if (this.#isStopped) return;
    try {
      notify();
    } catch (err) {
      this.options.logger.error({ err }, "the handler of a leadership change failed");
    }
  }

  async #logProblem(cause: unknown): Promise<void> {
    const action = "find out which process is the leader of the subscriptions";
    const { code, message } = await explainServeRefusal(this.session, action, cause);
    this.#problems.tell(message, "cannot find out which process is the leader of the subscriptions", { code });
  }
}
