/**
 * What Postgres says about NATS: which server it is, followed while it changes.
 *
 * It hears of changes by NOTIFY, and reads from time to time besides: notifications can be missed, a standby has none, and
 * where the installing role may not make event triggers nothing else notices ALTER SERVER.
 */
import pg from "pg";
import { type CompleteNatsServerOptions, checkNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { notifyChannels } from "../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type ErrorCode, errorTable, HawserError } from "../errors/index.js";
import type { GatewayIdentity } from "../gateway/index.js";
import { DatabaseAddress, PostgresSession } from "../postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../runtime/index.js";
import { explainServeRefusal, relayChannel } from "../store/index.js";

/** How it is watched. */
export interface ServerWatchOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** The options, whenever they were read; undefined if no server is defined. */
  onOptions(options: CompleteNatsServerOptions | undefined): void;
  /** A relay of the outbox for peers has ended. */
  onRelayEnded(): void;
  /** Postgres was asked. @param problem why the query failed; undefined: it was answered */
  onAsked(problem: HawserError | undefined): void;
  /** They could not be read, or are not right. */
  onProblem(problem: HawserError): void;
}

const sql = {
  identity: `SELECT current_database() AS database, s.user_name AS "user", s.password FROM hawser.gateway_secret AS s`,
  follow: "SELECT hawser.follow_nats_server()",
  // Postgres shows a user mapping to its own role only if that one may use the server. Those of other roles count for
  // nothing, which is easily missed.
  options: `SELECT s.options, f.mapping, CASE WHEN EXISTS (
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
    ) AS has_functions
    FROM hawser.nats_server AS s
    LEFT JOIN hawser.nats_foreign_servers() AS f ON f.server_name = s.server_name`,
} as const;

interface OptionsRow {
  readonly options: Record<string, unknown> | null;
  readonly mapping: Record<string, unknown> | null;
  /** What lets us read our user mapping, where there is one that we may not. */
  readonly grant_needed: string | null;
  /** The roles of mappings that one may take for those of the login. */
  readonly mappings_of_others: string | null;
  readonly login: string;
  readonly has_functions: boolean;
}

const { optionsPollMs } = gatewayConstants;

/** SQLSTATE of a definition that Postgres's side refuses: two servers. */
const invalidParameterValue = errorTable.invalid_argument.sqlstate;

/** Follows the definition of the NATS server, and keeps the session with Postgres that others use, too. */
export class ServerWatch {
  /** The session, for others, too. */
  readonly session: PostgresSession;
  readonly #options: ServerWatchOptions;
  readonly #log: DefinitionLog;
  /** Now, from time to time, and when something may have changed. */
  readonly #readings = new Repeated(optionsPollMs, () => this.#readAndTell());
  #identity: GatewayIdentity | undefined;
  /** Why the last reading failed. */
  #problem: HawserError | undefined;

  constructor(options: ServerWatchOptions) {
    this.#options = options;
    this.#log = new DefinitionLog(options.logger);
    this.session = new PostgresSession({
      address: DatabaseAddress.of(options.databaseUrl),
      logger: options.logger,
      applicationName: "hawser serve",
      channels: [notifyChannels.natsServer, relayChannel],
      queryTimeoutMs: optionsPollMs * 2,
      onNotification: (channel) => {
        if (channel === relayChannel) options.onRelayEnded();
        else this.#readings.soon();
      },
      onDown: () => this.#readings.soon(),
    });
  }

  /**
   * Connects and reads. A database that cannot be reached at first is an error; one that goes away later is waited for.
   *
   * @throws HawserError `store_failed`, `schema_missing`; `aborted` if it is stopped meanwhile
   */
  async open(): Promise<void> {
    try {
      const [identity] = await this.session.query<GatewayIdentity>(sql.identity);
      this.#identity = identity!;
    } catch (cause) {
      throw await explainServeRefusal(this.session, "read what the database says about NATS", cause);
    }
    await this.#readings.run();
  }

  /** Which login may call the gateway. */
  get identity(): GatewayIdentity {
    return this.#identity!;
  }

  /**
   * Reads the definition now, and has told it when this resolves.
   *
   * @throws HawserError if Postgres cannot be asked, or the options are not right
   */
  async refresh(): Promise<void> {
    await this.#readings.fresh();
    if (this.#problem !== undefined) throw this.#problem;
  }

  /** Ends it, and the session. */
  async stop(): Promise<void> {
    this.#readings.stop();
    await this.session.close();
  }

  /** Does not reject: what goes wrong is told, and {@link refresh} throws it. */
  async #readAndTell(): Promise<void> {
    try {
      const options = await this.#read();
      this.#problem = undefined;
      this.#options.onAsked(undefined);
      this.#log.found(options !== undefined);
      this.#options.onOptions(options);
    } catch (cause) {
      const problem = cause instanceof HawserError ? cause : await explainServeRefusal(this.session, reading, cause);
      this.#problem = problem;
      if (this.#readings.isStopped) return;
      this.#options.onAsked(ofDefinition.has(problem.code) ? undefined : problem);
      this.#log.failed(problem);
      this.#options.onProblem(problem);
    }
  }

  async #read(): Promise<CompleteNatsServerOptions | undefined> {
    const row = await this.#ask();
    this.#log.functionsAreThere(row?.has_functions ?? true);
    if (row === undefined || row.options === null) return undefined;
    const { options, mapping, grant_needed: grant, mappings_of_others: others, login } = row;
    if (grant !== null) {
      const message = "there is a user mapping for the login of `hawser serve`, which may not read it";
      throw new HawserError("nats_not_configured", message, { remedy: `${grant}, then reload.` });
    }
    const ignored =
      mapping !== null || others === null
        ? undefined
        : `The user mapping for ${others} does not count: only one for ${login}, the login of \`hawser serve\`, does.`;
    this.#log.ignores(ignored);
    return complete({ ...options, ...mapping }, ignored);
  }

  async #ask(): Promise<OptionsRow | undefined> {
    try {
      if (!(await this.session.isStandby())) await this.session.query(sql.follow);
      const [row] = await this.session.query<OptionsRow>(sql.options);
      return row;
    } catch (cause) {
      if (!(cause instanceof pg.DatabaseError) || cause.code !== invalidParameterValue) throw cause;
      const { message, detail, hint } = cause;
      throw new HawserError("invalid_argument", message, { detail, remedy: hint, cause });
    }
  }
}

const reading = "read which NATS server the database uses";

/** Codes of what is wrong with a definition: a query has read it, so Postgres answers. */
const ofDefinition: ReadonlySet<ErrorCode> = new Set(["nats_not_configured", "invalid_argument"]);

/** @throws HawserError if they are not right, as those of server and user mapping together may be */
function complete(options: Record<string, unknown>, ignored: string | undefined): CompleteNatsServerOptions {
  const result = checkNatsServerOptions(options);
  if (result.ok) return result.options;
  const { message, detail, hint } = result.violation;
  throw new HawserError("nats_not_configured", `the options of the NATS server are not right: ${message}`, {
    detail,
    remedy: [hint, ignored].filter((part) => part !== undefined).join(" ") || undefined,
  });
}

/** Logs what becomes of the definition of the NATS server: each state once, when it begins, and the end of trouble. */
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

  /** The definition can be used, or there is none. */
  found(isDefined: boolean): void {
    if (this.#trouble.clear()) {
      this.#isDefined = undefined;
      this.#logger.info({}, "what the database says about NATS can be used again");
    }
    if (isDefined !== this.#isDefined && !isDefined) {
      this.#logger.info(
        {},
        "no NATS server is defined in this database: it is waited for (CREATE SERVER, or SELECT hawser.set_nats_server)",
      );
    }
    this.#isDefined = isDefined;
  }

  /** The definition cannot be read or used. */
  failed({ code, message, detail, remedy }: HawserError): void {
    this.#trouble.tell(message, "what the database says about NATS cannot be used", { code, detail, remedy });
  }

  functionsAreThere(areThere: boolean): void {
    if (areThere === this.#hasFunctions) return;
    this.#hasFunctions = areThere;
    if (areThere) this.#logger.info({}, "the SQL functions are installed now");
    else this.#logger.warn({}, "the SQL functions are not installed in this database: run `hawser init`");
  }

  /** A user mapping is there that does not count. */
  ignores(what: string | undefined): void {
    if (what !== undefined && what !== this.#ignored) this.#logger.warn({}, what);
    this.#ignored = what;
  }
}
