/**
 * Pool of executor sessions. Each session serves the functions of a single role.
 */
import { HawserError } from "../../../foundation/errors/index.js";
import { type Logger, ProblemLog } from "../../../foundation/runtime/index.js";
import { ExecutorSession, type ExecutorSessionOptions } from "./executor-session.js";

/** An unused database session for functions is ended after this. */
const executorIdleMs = 30_000;

/** Login and limits of an {@link ExecutorPool}. */
export interface ExecutorPoolOptions {
  /** Login of new sessions. It is read again for each, because it may change. */
  readonly login: ExecutorSessionOptions["login"];
  /** Maximum number of open sessions, used and idle. The caller must not acquire more at a time. */
  readonly limit: number;
  readonly logger: Logger;
}

const noSession = "subscribed functions cannot be called: no session with Postgres could be opened";

export class ExecutorPool {
  readonly #options: ExecutorPoolOptions;
  /** Idle sessions, oldest first, each with the timer that closes it. */
  readonly #idle = new Map<ExecutorSession, NodeJS.Timeout>();
  readonly #used = new Set<ExecutorSession>();
  #opening = 0;
  /** Running {@link probe}. */
  #probing: Promise<void> | undefined;
  /** True after the first probe since functions were bound. */
  #isProbed = false;
  readonly #problems: ProblemLog;
  #isStopped = false;

  constructor(options: ExecutorPoolOptions) {
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
  }

  /**
   * Takes an idle session of the role, or opens one, and closes the oldest idle session if the limit is reached.
   *
   * @param mayHavePlans false for a session without plans from earlier transactions
   * @throws errors of node-postgres; HawserError `executor_login`
   */
  async acquire(runAs: string, mayHavePlans = true): Promise<ExecutorSession> {
    for (const session of [...this.#idle.keys()].reverse()) {
      if (session.runAs !== runAs || (session.hasOldPlans && !mayHavePlans)) continue;
      this.#removeIdle(session);
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

  /**
   * Opens and closes a session to find out whether functions can be called: once, and again while the login fails.
   * Every session that is opened records the result in the `attempts` of the login. Does not reject.
   *
   * @param isNeeded false while no function is bound, so that the login does not matter
   */
  async probe(isNeeded: boolean): Promise<void> {
    const { attempts } = this.#options.login;
    if (!isNeeded) {
      attempts.succeeded();
      this.#isProbed = false;
      return;
    }
    if (this.#isStopped || (this.#isProbed && attempts.failure(0) === undefined)) return;
    this.#probing ??= this.#open("").then(
      (session) => session.end(),
      () => undefined,
    );
    await this.#probing;
    this.#probing = undefined;
    this.#isProbed = true;
  }

  /**
   * Returns a session to the pool, after clearing it.
   *
   * @param failed true if a transaction is still open
   */
  async release(session: ExecutorSession, failed: boolean): Promise<void> {
    const isUsable = await session.clear(failed);
    this.#used.delete(session);
    if (!isUsable) return;
    if (this.#isStopped) {
      await session.end();
      return;
    }
    const timer = setTimeout(() => this.#end(session), executorIdleMs).unref();
    this.#idle.set(session, timer);
  }

  /** Closes idle sessions now and used sessions when they are returned. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    const sessions = [...this.#idle.keys()];
    for (const session of sessions) this.#removeIdle(session);
    await Promise.all(sessions.map((session) => session.end()));
  }

  /** Closes all sessions at once. */
  destroy(): void {
    this.#isStopped = true;
    for (const session of [...this.#idle.keys(), ...this.#used]) {
      this.#removeIdle(session);
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
        throw new HawserError("aborted", "Hawser is shutting down");
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
    this.#removeIdle(session);
    void session.end();
  }

  #removeIdle(session: ExecutorSession): void {
    clearTimeout(this.#idle.get(session));
    this.#idle.delete(session);
  }
}
