/**
 * Whether Postgres is a primary or a standby, followed while it changes.
 *
 * A promotion happens under open sessions: the same session that was told "standby" is told "primary" next. There is no
 * demotion without a restart, so that it shows when the session is lost and another one is opened. Asking again and
 * again, over a session that is opened anew when it is lost, finds both; Postgres announces neither.
 *
 *   unknown → primary, standby     Postgres answers
 *   standby → primary              it was promoted
 *   primary, standby → unknown     it does not answer, over a new session neither
 *   primary → standby              another server answers at the same address
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../../postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../../runtime/index.js";
import { explainServeRefusal } from "../../store/index.js";

/** What Postgres is; `unknown` while it does not answer. */
export type PostgresRole = "primary" | "standby" | "unknown";

/** Where Postgres listens, by its own settings. */
export interface ServerAddress {
  /** `listen_addresses`, of which `*` stays `*`. */
  readonly addresses: readonly string[];
  readonly port: number;
}

/** How it is watched. */
export interface RoleWatchOptions {
  /** The session of leadership: nothing in it takes long. Its owner calls {@link RoleWatch.sessionLost}, and closes it. */
  readonly session: PostgresSession;
  readonly logger: Logger;
  /**
   * The role has changed; it counts as `unknown` at first. Also told where only the address has.
   *
   * @param address undefined while the role is unknown
   */
  onRole(role: PostgresRole, address: ServerAddress | undefined): void;
}

const { roleWatchMs, roleReadTimeoutMs, roleReadPauseMs } = bridgeConstants;

const sql = `SELECT pg_is_in_recovery() AS standby, current_setting('listen_addresses') AS addresses,
  current_setting('port')::integer AS port`;

interface RoleRow {
  readonly standby: boolean;
  readonly addresses: string;
  readonly port: number;
}

/** Reads the role again and again, from the first run on; one reading never overlaps the next. After `stop` it tells nothing any more. */
export class RoleWatch extends Repeated {
  readonly #options: RoleWatchOptions;
  #role: PostgresRole = "unknown";
  #address: ServerAddress | undefined;
  readonly #problems: ProblemLog;
  /** When the last reading began, by `performance.now()`. */
  #beganAt = 0;

  constructor(options: RoleWatchOptions) {
    super(roleWatchMs, () => this.#read());
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
  }

  /** What Postgres was at the last reading. */
  get role(): PostgresRole {
    return this.#role;
  }

  /** The session was lost. Between two readings the next one tells whether the server has gone, too. */
  sessionLost(): void {
    if (this.isRunning || this.isStopped) return;
    // A server that ends each session at once is not to be asked without a pause.
    this.runIn(Math.max(0, this.#beganAt + roleReadPauseMs - performance.now()));
  }

  async #read(): Promise<void> {
    this.#beganAt = performance.now();
    try {
      const { standby, addresses, port } = await this.#ask();
      this.#tell(standby ? "standby" : "primary", { addresses: splitAddresses(addresses), port });
    } catch (cause) {
      await this.#miss(cause);
    }
  }

  async #ask(): Promise<RoleRow> {
    const wasOpen = this.#options.session.isUp;
    try {
      return await this.#query();
    } catch (error) {
      // It may be the session alone that has ended. A server that keeps us waiting is not asked again.
      const cameSoon = performance.now() - this.#beganAt < roleReadTimeoutMs / 2;
      if (!wasOpen || !cameSoon || this.isStopped) throw error;
      return await this.#query();
    }
  }

  async #query(): Promise<RoleRow> {
    const [row] = await this.#options.session.query<RoleRow>(sql, [], roleReadTimeoutMs);
    return row!;
  }

  async #miss(cause: unknown): Promise<void> {
    if (this.isStopped) return;
    this.#tell("unknown", undefined);
    const action = "ask whether Postgres is a primary or a standby";
    const { code, message } = await explainServeRefusal(this.#options.session, action, cause);
    this.#problems.tell(message, "whether Postgres is a primary or a standby is not known", { code });
  }

  #tell(role: PostgresRole, address: ServerAddress | undefined): void {
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
      logger.error({ err }, "handling the role of Postgres failed");
    }
  }
}

function isSame(one: ServerAddress | undefined, other: ServerAddress | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.port === other.port && one.addresses.join() === other.addresses.join();
}

/** The addresses in a value of `listen_addresses`, such as `127.0.0.1, ::1`. An empty one has none: sockets alone. */
export function splitAddresses(listenAddresses: string): string[] {
  return listenAddresses
    .split(",")
    .map((address) => address.trim())
    .filter((address) => address !== "");
}
