/**
 * Watches whether Postgres is a primary or a standby.
 *
 * A promotion happens during open sessions: the same session reports "standby" first and "primary" next. A demotion
 * requires a restart, so it shows after the session was lost and another one was opened. Postgres announces neither, so
 * the role is polled over a session that reconnects. Any other answer on a session with a primary says the same as a poll.
 *
 *   unknown → primary, standby     Postgres answers
 *   standby → primary              it was promoted
 *   primary, standby → unknown     it does not answer, even over a new session
 *   primary → standby              another server answers at the same address
 */

import type { PostgresSession } from "../../../foundation/postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../../../foundation/runtime/index.js";
import { explainServeRefusal } from "../../../jobs-and-peers/migrations/index.js";

/** Role of Postgres; `unknown` while it does not answer. */
export type PostgresRole = "primary" | "standby" | "unknown";

/** Listen addresses of Postgres, from its settings. */
export interface ServerAddress {
  /** `listen_addresses`; `*` is not expanded. */
  readonly addresses: readonly string[];
  readonly port: number;
}

/** Session and callback of a {@link RoleWatch}. */
export interface RoleWatchOptions {
  /** Leadership's session, for short queries only. Its owner closes it, and calls {@link RoleWatch.sessionLost}. */
  readonly session: PostgresSession;
  readonly logger: Logger;
  /**
   * The role or the address has changed. The initial role is `unknown`.
   *
   * @param address undefined while the role is unknown
   */
  onRole(role: PostgresRole, address: ServerAddress | undefined): void;
}

/** Interval at which the role of Postgres is checked. */
const roleWatchMs = 1_000;
/** Time for which an answer of a primary says that it is one. The leader's heartbeats, on the same session, come more often. */
const knownMs = 3_000;
/** Time limit for reading the role of Postgres in an open session. */
export const roleReadTimeoutMs = 2_000;
/** The pause before the next reading if the session was lost. */
const roleReadPauseMs = 100;

const sql = `SELECT pg_is_in_recovery() AS standby, current_setting('listen_addresses') AS addresses,
  current_setting('port')::integer AS port`;

interface RoleRow {
  readonly standby: boolean;
  readonly addresses: string;
  readonly port: number;
}

/** Polls the role, one query at a time. Does not call `onRole` after `stop`. */
export class RoleWatch extends Repeated {
  readonly #options: RoleWatchOptions;
  #role: PostgresRole = "unknown";
  #address: ServerAddress | undefined;
  readonly #problems: ProblemLog;
  /** Start of the last poll (`performance.now()`, ms). */
  #startedAt = 0;
  /** Generation of the session at the last answer to a poll. */
  #generation = 0;

  constructor(options: RoleWatchOptions) {
    super(roleWatchMs, () => this.#read());
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
  }

  /** Role at the last poll. */
  get role(): PostgresRole {
    return this.#role;
  }

  /** Polls soon, to find out whether only the session was lost, or the server, too. */
  sessionLost(): void {
    if (this.isRunning || this.isStopped) return;
    // Limits the rate if a server ends every session at once.
    this.runIn(Math.max(0, this.#startedAt + roleReadPauseMs - performance.now()));
  }

  /** True if the session with a primary, where the role was read, has just answered another query. */
  get #isKnown(): boolean {
    const { isUp, generation, lastAnswerAt } = this.#options.session;
    const isSame = this.#role === "primary" && isUp && generation === this.#generation;
    return isSame && performance.now() - lastAnswerAt < knownMs;
  }

  async #read(): Promise<void> {
    if (this.#isKnown) return;
    this.#startedAt = performance.now();
    try {
      const { standby, addresses, port } = await this.#queryTwice();
      this.#setRole(standby ? "standby" : "primary", { addresses: splitAddresses(addresses), port });
    } catch (cause) {
      await this.#onFailure(cause);
    }
  }

  async #queryTwice(): Promise<RoleRow> {
    const wasOpen = this.#options.session.isUp;
    try {
      return await this.#query();
    } catch (error) {
      // Only the session may have ended, which shows at once. After a slow failure, the query is not repeated.
      const failedAtOnce = performance.now() - this.#startedAt < roleReadTimeoutMs / 2;
      if (!wasOpen || !failedAtOnce || this.isStopped) throw error;
      return await this.#query();
    }
  }

  async #query(): Promise<RoleRow> {
    const { session } = this.#options;
    const [row] = await session.query<RoleRow>(sql, [], roleReadTimeoutMs);
    this.#generation = session.generation;
    return row!;
  }

  async #onFailure(cause: unknown): Promise<void> {
    if (this.isStopped) return;
    this.#setRole("unknown", undefined);
    const action = "find out whether Postgres is a primary or a standby";
    const { code, message } = await explainServeRefusal(this.#options.session, action, cause);
    this.#problems.tell(message, "cannot find out whether Postgres is a primary or a standby", { code });
  }

  #setRole(role: PostgresRole, address: ServerAddress | undefined): void {
    if (this.isStopped) return;
    if (role !== "unknown") this.#problems.clear();
    if (role === this.#role && isSame(address, this.#address)) return;
    const { logger, onRole } = this.#options;
    if (role !== this.#role && role !== "unknown") logger.info({ before: this.#role }, `Postgres is a ${role}`);
    this.#role = role;
    this.#address = address;
    try {
      onRole(role, address);
    } catch (err) {
      logger.error({ err }, "the handler of a role change failed");
    }
  }
}

function isSame(one: ServerAddress | undefined, other: ServerAddress | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.port === other.port && one.addresses.join() === other.addresses.join();
}

/**
 * Addresses in a value of `listen_addresses`, such as `127.0.0.1, ::1`. Empty if Postgres listens on Unix sockets only.
 */
export function splitAddresses(listenAddresses: string): string[] {
  return listenAddresses
    .split(",")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}
