/**
 * Sessions for the functions of several roles: as many as are asked for at once, none shared by two roles.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../errors/index.js";
import { type Logger, ProblemLog } from "../../runtime/index.js";
import { ExecutorSession, type ExecutorSessionOptions } from "./executor-session.js";

/** How sessions are opened, and how many may be open. */
export interface ExecutorPoolOptions {
  /** Asked for each session that is opened: the login may change. */
  readonly login: ExecutorSessionOptions["login"];
  /** For those in use and those kept together. The caller takes no more than so many at a time. */
  readonly limit: number;
  readonly logger: Logger;
}

const noSession = "subscribed functions cannot be called: no session with Postgres";

export class ExecutorPool {
  readonly #options: ExecutorPoolOptions;
  /** Those that are kept, the oldest first, with the timer of the end of each. */
  readonly #idle = new Map<ExecutorSession, NodeJS.Timeout>();
  readonly #used = new Set<ExecutorSession>();
  #opening = 0;
  readonly #problems: ProblemLog;
  #isStopped = false;

  constructor(options: ExecutorPoolOptions) {
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
  }

  /**
   * A session for the role: a kept one, or a new one in the place of another.
   *
   * @param mayHavePlans of earlier transactions
   * @throws whatever node-postgres throws; HawserError `executor_login`
   */
  async take(runAs: string, mayHavePlans = true): Promise<ExecutorSession> {
    for (const session of [...this.#idle.keys()].reverse()) {
      if (session.runAs !== runAs || (session.hasOldPlans && !mayHavePlans)) continue;
      this.#forget(session);
      if (session.isLost) {
        session.destroy();
        continue;
      }
      this.#used.add(session);
      return session;
    }
    const session = await this.#open(runAs);
    this.#used.add(session);
    return session;
  }

  /** Opens a session and ends it: whether that succeeds is in the `attempts` of the login. Does not reject. */
  async probe(): Promise<void> {
    if (this.#isStopped) return;
    await this.#open("").then(
      (session) => session.end(),
      () => undefined,
    );
  }

  /**
   * Takes a session back, and clears it.
   *
   * @param failed a transaction is still open
   */
  async give(session: ExecutorSession, failed: boolean): Promise<void> {
    const isOfUse = await session.clear(failed);
    this.#used.delete(session);
    if (!isOfUse) return;
    if (this.#isStopped) {
      await session.end();
      return;
    }
    const timer = setTimeout(() => this.#end(session), bridgeConstants.executorIdleMs).unref();
    this.#idle.set(session, timer);
  }

  /** Ends all that are not in use; those in use end when they are given back. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    const sessions = [...this.#idle.keys()];
    for (const session of sessions) this.#forget(session);
    await Promise.all(sessions.map((session) => session.end()));
  }

  /** Ends all at once, those in use too. */
  destroy(): void {
    this.#isStopped = true;
    for (const session of [...this.#idle.keys(), ...this.#used]) {
      this.#forget(session);
      session.destroy();
    }
  }

  async #open(runAs: string): Promise<ExecutorSession> {
    const { login, logger } = this.#options;
    this.#makeRoom();
    this.#opening += 1;
    try {
      const session = await ExecutorSession.open({ login, runAs, logger });
      if (this.#isStopped) {
        session.destroy();
        throw new HawserError("aborted", "Hawser is being stopped");
      }
      login.attempts.succeeded();
      this.#problems.clear();
      return session;
    } catch (error) {
      if (this.#isStopped) throw error;
      const { message } = error as Error;
      const details = error instanceof HawserError ? { code: error.code, remedy: error.remedy } : {};
      login.attempts.failed(error);
      this.#problems.tell(message, noSession, details);
      throw error;
    } finally {
      this.#opening -= 1;
    }
  }

  #makeRoom(): void {
    const [oldest] = this.#idle.keys();
    if (oldest !== undefined && this.#idle.size + this.#used.size + this.#opening >= this.#options.limit)
      this.#end(oldest);
  }

  #end(session: ExecutorSession): void {
    this.#forget(session);
    void session.end();
  }

  #forget(session: ExecutorSession): void {
    clearTimeout(this.#idle.get(session));
    this.#idle.delete(session);
  }
}
