/**
 * Watches the definition of the NATS server in Postgres.
 *
 * NOTIFY reports changes, and the definition is also polled: notifications can be missed, a standby has none, and if
 * the installing role may not create event triggers, nothing else detects ALTER SERVER.
 */

import pg from "pg";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { notifyChannels } from "../../../generated/ts/rows/nats.js";
import { type ErrorCode, errorTable, HawserError } from "../../foundation/errors/index.js";
import { DatabaseAddress, PostgresSession } from "../../foundation/postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../../foundation/runtime/index.js";
import { explainServeRefusal } from "../../jobs-and-peers/migrations/index.js";
import { dueChannel } from "../../jobs-and-peers/store/index.js";
import { optionsPollMs } from "../../operating/installation/index.js";
import { checkNatsServerOptions } from "../connections/index.js";
import type { Gateway, GatewayIdentity, ServerDefinition } from "../gateway/index.js";

/** Connection and callback of {@link ServerWatch}. */
export interface ServerWatchOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** Called after each query. @param problem reason of a failed query; undefined after an answer */
  onAsked(problem: HawserError | undefined): void;
}

/** Part of the process that connects to the defined NATS server. */
type Follower = Pick<Gateway, "configure" | "reload">;

// Postgres shows a user mapping to its own role only if that role may use the server. Mappings of other roles have no
// effect, which users easily overlook.
const optionsSql = `SELECT s.options, f.mapping, CASE WHEN EXISTS (
      SELECT FROM pg_user_mappings AS m
      WHERE m.srvname = f.server_name AND m.usename = current_user AND m.umoptions IS NULL
        AND NOT has_server_privilege(m.srvid, 'USAGE')
    ) THEN format('GRANT USAGE ON FOREIGN SERVER %I TO %I', f.server_name, current_user) END AS grant_needed, (
      SELECT string_agg(CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, ', ' ORDER BY m.umuser)
      FROM pg_user_mappings AS m
      WHERE m.srvname = f.server_name AND m.usename <> current_user
        AND CASE WHEN m.umuser = 0 THEN true ELSE pg_has_role(m.umuser, 'MEMBER') END
    ) AS mappings_of_others, quote_ident(current_user) AS login, EXISTS (
      SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE n.nspname = 'hawser' AND p.proname = 'gateway_call'
    ) AS has_functions,
    (SELECT array_agg((p.server_name, p.options)::text) FROM hawser.nats_foreign_servers() AS p) IS DISTINCT FROM
      CASE WHEN s.seen_server_name IS NOT NULL THEN ARRAY[(s.seen_server_name, s.seen_options)::text] END AS has_changed
    FROM hawser_bridge_data.nats_server AS s
    LEFT JOIN hawser.nats_foreign_servers() AS f ON f.server_name = s.server_name`;

const sql = {
  identity: `SELECT current_database() AS database, s.user_name AS "user", s.password FROM hawser_bridge_data.gateway_secret AS s`,
  follow: "SELECT hawser.follow_nats_server()",
  options: optionsSql,
  // Fails where no writes are taken.
  writesAndOptions: `WITH writes AS (UPDATE hawser_bridge_data.gateways SET seen_at = seen_at WHERE false) ${optionsSql}`,
} as const;

interface OptionsRow {
  readonly options: Record<string, unknown> | null;
  readonly mapping: Record<string, unknown> | null;
  /** GRANT that would make the login's user mapping readable; null if it is readable or missing. */
  readonly grant_needed: string | null;
  /** Roles of mappings that a user may mistake for mappings of the login. */
  readonly mappings_of_others: string | null;
  readonly login: string;
  readonly has_functions: boolean;
  /** True if the foreign server is not as it was when it was last followed. */
  readonly has_changed: boolean;
}

/** SQLSTATE of a definition that SQL functions refuse: two servers. */
const invalidParameterValue = errorTable.invalid_argument.sqlstate;

/** Follows the definition of the NATS server, and owns the session with Postgres, which others share. */
export class ServerWatch implements ServerDefinition {
  /** Session with Postgres, shared with others. */
  readonly session: PostgresSession;
  /** Called when a message or a schedule may be due earlier than was known. Set by the owner. */
  onDue: (payload: string) => void = () => undefined;
  /** Last valid options; undefined if no server is defined. */
  options: CompleteNatsServerOptions | undefined;
  readonly #options: ServerWatchOptions;
  readonly #log: DefinitionLog;
  /** Reads now, periodically, and after notifications. */
  readonly #readings = new Repeated(optionsPollMs, () => this.#readAndTell());
  readonly #followers: Follower[] = [];
  #identity: GatewayIdentity | undefined;
  /** Reason of the last failed reading. */
  #problem: HawserError | undefined;

  constructor(options: ServerWatchOptions) {
    this.#options = options;
    this.#log = new DefinitionLog(options.logger);
    this.session = new PostgresSession({
      address: DatabaseAddress.of(options.databaseUrl),
      logger: options.logger,
      applicationName: "hawser serve",
      channels: [notifyChannels.natsServer, dueChannel],
      queryTimeoutMs: optionsPollMs * 2,
      onNotification: (channel, payload) => {
        if (channel === dueChannel) this.onDue(payload);
        else this.#readings.soon();
      },
      onDown: () => this.#readings.soon(),
    });
  }

  /**
   * Connects and reads the definition. A database that is unreachable at first is an error; later, the watch waits for
   * its return.
   *
   * @throws HawserError `store_failed`, `schema_missing`; `aborted` if the watch is stopped meanwhile
   */
  async open(): Promise<void> {
    try {
      const [identity] = await this.session.query<GatewayIdentity>(sql.identity);
      this.#identity = identity!;
    } catch (cause) {
      throw await explainServeRefusal(this.session, "read the NATS server of the database", cause);
    }
    await this.#readings.run();
  }

  /** Login that may call the gateway. */
  get identity(): GatewayIdentity {
    return this.#identity!;
  }

  /** Configures a part with what is known, and again after each reading. */
  follow(follower: Follower): void {
    this.#followers.push(follower);
    this.#configure(follower);
  }

  async refresh(): Promise<void> {
    await this.#readings.fresh();
    if (this.#problem !== undefined) throw this.#problem;
  }

  async reload(always: boolean, signal: AbortSignal): Promise<void> {
    await Promise.all(this.#followers.map((follower) => follower.reload(always, signal)));
  }

  /** Stops the watch, and closes the session. */
  async stop(): Promise<void> {
    this.#readings.stop();
    await this.session.close();
  }

  /** A problem matters only without options: the last valid ones stay in effect. */
  #configure(follower: Follower): void {
    follower.configure(this.options, this.options === undefined ? this.#problem : undefined);
  }

  /** Reads and configures the followers. Does not reject; {@link refresh} throws the error. */
  async #readAndTell(): Promise<void> {
    try {
      const options = await this.#read();
      this.#problem = undefined;
      this.#options.onAsked(undefined);
      this.#log.found(options !== undefined);
      this.options = options;
    } catch (cause) {
      const problem = cause instanceof HawserError ? cause : await explainServeRefusal(this.session, reading, cause);
      this.#problem = problem;
      if (this.#readings.isStopped) return;
      this.#options.onAsked(ofDefinition.has(problem.code) ? undefined : problem);
      this.#log.failed(problem);
    }
    for (const follower of this.#followers) this.#configure(follower);
  }

  async #read(): Promise<CompleteNatsServerOptions | undefined> {
    const row = await this.#ask();
    this.#log.functionsAreThere(row?.has_functions ?? true);
    if (row === undefined || row.options === null) return undefined;
    const { options, mapping, grant_needed: grant, mappings_of_others: others, login } = row;
    if (grant !== null) {
      const message = "the login of `hawser serve` has a user mapping, and may not read it";
      throw new HawserError("nats_not_configured", message, { remedy: `${grant}, then reload.` });
    }
    const ignored =
      mapping !== null || others === null
        ? undefined
        : `The user mapping for ${others} has no effect: only one for ${login}, the login of \`hawser serve\`, has.`;
    this.#log.ignores(ignored);
    return complete({ ...options, ...mapping }, ignored);
  }

  async #ask(): Promise<OptionsRow | undefined> {
    try {
      const isStandby = await this.session.isStandby();
      const [row] = await this.session.query<OptionsRow>(isStandby ? sql.options : sql.writesAndOptions);
      if (isStandby || row?.has_changed === false) return row;
      await this.session.query(sql.follow);
      const [followed] = await this.session.query<OptionsRow>(sql.options);
      return followed;
    } catch (cause) {
      if (!(cause instanceof pg.DatabaseError) || cause.code !== invalidParameterValue) throw cause;
      const { message, detail, hint } = cause;
      throw new HawserError("invalid_argument", message, { detail, remedy: hint, cause });
    }
  }
}

const reading = "read which NATS server the database uses";

/** Codes of faults of the definition, which imply that Postgres answers. */
const ofDefinition: ReadonlySet<ErrorCode> = new Set(["nats_not_configured", "invalid_argument"]);

/**
 * Completes the combined options. @throws HawserError if they are invalid, as the combination of server and user
 * mapping may be
 */
function complete(options: Record<string, unknown>, ignored: string | undefined): CompleteNatsServerOptions {
  const result = checkNatsServerOptions(options);
  if (result.ok) return result.options;
  const { message, detail, hint } = result.violation;
  throw new HawserError("nats_not_configured", `the options of the NATS server are invalid: ${message}`, {
    detail,
    remedy: [hint, ignored].filter((part) => part !== undefined).join(" ") || undefined,
  });
}

/** Log of the definition's state: each state once, when it begins, and the end of a problem. */
class DefinitionLog {
  #isDefined: boolean | undefined;
  readonly #trouble: ProblemLog;
  #hasFunctions = true;
  #ignored: string | undefined;

  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
    this.#trouble = new ProblemLog(logger);
  }

  /** Reports a usable or missing definition. */
  found(isDefined: boolean): void {
    if (this.#trouble.clear()) {
      this.#isDefined = undefined;
      this.#logger.info({}, "the definition of the NATS server can be used again");
    }
    if (isDefined !== this.#isDefined && !isDefined) {
      this.#logger.info(
        {},
        "no NATS server is defined in this database; waiting for a definition (CREATE SERVER, or SELECT hawser.set_nats_server)",
      );
    }
    this.#isDefined = isDefined;
  }

  /** Reports a definition that cannot be read or used. */
  failed({ code, message, detail, remedy }: HawserError): void {
    this.#trouble.tell(message, "the definition of the NATS server cannot be used", { code, detail, remedy });
  }

  functionsAreThere(areThere: boolean): void {
    if (areThere === this.#hasFunctions) return;
    this.#hasFunctions = areThere;
    if (areThere) this.#logger.info({}, "the SQL functions are installed now");
    else this.#logger.warn({}, "the SQL functions are not installed in this database: run `hawser init`");
  }

  /** Reports a user mapping without effect. */
  ignores(what: string | undefined): void {
    if (what !== undefined && what !== this.#ignored) this.#logger.warn({}, what);
    this.#ignored = what;
  }
}
