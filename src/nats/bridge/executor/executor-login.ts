/**
 * The login that calls wrappers: either the one that `hawser init` created and stored in a table that only the bridge
 * can read, or one that the operator names.
 */
import pg from "pg";
import { tables } from "../../../../generated/ts/rows/nats.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { DatabaseAddress, OpenAttempts, type PostgresSession } from "../../../foundation/postgres/index.js";

/** Sources of an {@link ExecutorLogin}. */
export interface ExecutorLoginOptions {
  /** URL of the database with the bridge's login. */
  readonly databaseUrl: string | undefined;
  /** URL of the database with the operator's login. Default: the login from the table. */
  readonly executorUrl: string | undefined;
  /** The bridge's session, which reads the table and is connected to the right database. */
  readonly session: PostgresSession;
}

const loginSql = `SELECT l.user_name AS "user", l.password FROM ${tables.executorLogin} AS l`;

/** Query for {@link Rights}: privileges of the login that its functions' owners may lack. */
const rightsSql = `
  SELECT pg_backend_pid() AS pid,
         (SELECT extract(epoch FROM a.backend_start)::text FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()) AS "startedAt",
         r.rolname AS name, r.rolsuper AS superuser, r.rolcreaterole AS "createsRoles", r.rolbypassrls AS "bypassesRls",
         r.rolreplication AS replicates,
         ARRAY(SELECT g.rolname::text FROM pg_roles AS g WHERE g.oid <> r.oid AND g.rolname <> 'hawser_executor' AND NOT r.rolsuper
                AND pg_has_role(r.oid, g.oid, 'MEMBER') ORDER BY 1) AS roles,
         ARRAY(SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname ~ '^hawser(_[a-z]+)?_data$'
                WHERE c.relkind = 'r' AND has_table_privilege(r.oid, c.oid, 'SELECT') ORDER BY 1) AS tables,
         ARRAY(SELECT c.setting FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c (setting) WHERE s.setrole = r.oid ORDER BY 1) AS settings
    FROM pg_roles AS r WHERE r.rolname = session_user`;

/** Server process of a session. */
export interface Backend {
  readonly pid: number;
  /** Start time in seconds since 1970. It identifies the process, since pids are reused. */
  readonly startedAt: string;
  /** Start time of the server. */
  readonly serverStartedAt: string;
}

/**
 * Reason why a statement was not answered in time. `running`: it still runs. `lost`: the session is idle, because the
 * statement or its answer was lost.
 */
export type Silence = "running" | "lost" | "unknown";

interface Rights extends Omit<Backend, "serverStartedAt"> {
  readonly name: string;
  readonly superuser: boolean;
  readonly createsRoles: boolean;
  readonly bypassesRls: boolean;
  readonly replicates: boolean;
  readonly roles: readonly string[];
  readonly tables: readonly string[];
  readonly settings: readonly string[];
}

/**
 * Query that returns true if a statement has been running for more than $3 ms. If a superuser's function has turned off
 * `track_activities`, the view does not show the statement, which then counts as running.
 */
const runsSql = `SELECT coalesce(a.state, '') NOT LIKE 'idle%' AND coalesce(a.query_start < clock_timestamp() - make_interval(secs => $3::float8 / 1000), true) AS runs
    FROM pg_stat_activity AS a WHERE a.pid = $1 AND extract(epoch FROM a.backend_start)::text = $2`;

const endSql = `SELECT pg_terminate_backend(a.pid) AS ended FROM pg_stat_activity AS a WHERE a.pid = $1 AND extract(epoch FROM a.backend_start)::text = $2`;

export class ExecutorLogin {
  /** Recent attempts to open sessions with this login. */
  readonly attempts = new OpenAttempts();
  readonly #options: ExecutorLoginOptions;

  constructor(options: ExecutorLoginOptions) {
    this.#options = options;
  }

  /** Address and login for a new session. @throws errors of the bridge's session; HawserError `invalid_argument` */
  async address(): Promise<DatabaseAddress> {
    const { databaseUrl, executorUrl, session } = this.#options;
    if (executorUrl !== undefined) return DatabaseAddress.of(executorUrl);
    const [login] = await session.query<{ user: string; password: string }>(loginSql);
    return DatabaseAddress.of(databaseUrl).withLogin(login!);
  }

  /**
   * Checks a new session before any function runs in it.
   *
   * @returns server process of the session
   * @throws HawserError `executor_login` if the session has reached another database, or if a function could use more
   * privileges of the login than its owner has; errors of either session
   */
  async check(client: pg.Client): Promise<Backend> {
    const [reached] = (await client.query<DatabaseIdentity>(identitySql)).rows;
    // Queried after the executor's identity, so that a failover between the two queries is noticed as a difference.
    const [own] = await this.#options.session.query<DatabaseIdentity>(identitySql);
    if (!isSameDatabase(reached!, own!)) {
      throw new HawserError(
        "executor_login",
        `the login "${client.user}", which calls subscribed functions, has reached ${differenceOf(reached!, own!)}`,
        { remedy: sameDatabaseRemedy(this.#options.executorUrl) },
      );
    }
    return { ...(await refusePowerfulLogin(client)), serverStartedAt: reached!.startedAt };
  }

  /**
   * Finds out, through the bridge's session, why a statement has no answer `timeoutMs` after its start. Does not
   * reject.
   */
  async reasonOfSilence({ pid, startedAt }: Backend, timeoutMs: number): Promise<Silence> {
    try {
      const [row] = await this.#options.session.query<{ runs: boolean }>(runsSql, [pid, startedAt, timeoutMs]);
      if (row === undefined) return "unknown";
      return row.runs ? "running" : "lost";
    } catch {
      return "unknown";
    }
  }

  /** Terminates a backend through the bridge's session. Does not reject. */
  async endBackend({ pid, startedAt }: Backend): Promise<void> {
    // If Postgres is unreachable, or the bridge may not terminate this backend, Postgres notices the closed connection
    // itself.
    await this.#options.session.query(endSql, [pid, startedAt]).catch(() => undefined);
  }
}

/** @throws HawserError `executor_login` if a function could use more privileges of the login than its owner has */
async function refusePowerfulLogin(client: pg.Client): Promise<Omit<Backend, "serverStartedAt">> {
  const { rows } = await client.query<Rights>(rightsSql);
  const {
    pid,
    startedAt,
    name,
    superuser,
    createsRoles,
    bypassesRls,
    replicates,
    roles,
    tables: readable,
    settings,
  } = rows[0]!;
  if (settings.length > 0) {
    throw new HawserError(
      "executor_login",
      `the login "${name}", which calls subscribed functions, has settings of its own (${settings[0]}), which a ` +
        "function may have set",
      { remedy: `ALTER ROLE ${pg.escapeIdentifier(name)} RESET ALL, or run \`hawser init\`.` },
    );
  }
  const powers = [
    ...(superuser ? ["is a superuser"] : []),
    ...(createsRoles ? ["can create roles"] : []),
    ...(bypassesRls ? ["bypasses row security"] : []),
    ...(replicates ? ["can replicate"] : []),
    ...(roles.length > 0
      ? [
          `is a member of ${roles
            .slice(0, 5)
            .map((role) => `"${role}"`)
            .join(", ")}`,
        ]
      : []),
    ...(readable.length > 0 && !superuser ? [`can read ${readable[0]}`] : []),
  ];
  if (powers.length === 0) return { pid, startedAt };
  throw new HawserError(
    "executor_login",
    `the login "${name}", which calls subscribed functions, ${powers.join(", and ")}; functions could abuse that`,
    { remedy: "Use a login that is in hawser_executor and in no other role; `hawser init` creates one." },
  );
}

/**
 * Identity of the database that a session has reached. Functions must run in the database whose messages are handled.
 * Names and addresses do not prove that: several can lead to one server, and one to several.
 */
export interface DatabaseIdentity {
  readonly name: string;
  readonly oid: string;
  /** Server address as the server sees it; null for a Unix socket. */
  readonly address: string | null;
  /** Server start in seconds since 1970. Identifies the server, because no two start in the same microsecond. */
  readonly startedAt: string;
}

/**
 * Query for a {@link DatabaseIdentity}, as a single row. Any login may run it. Operand types are exact, so that
 * operators defined by users cannot match.
 */
export const identitySql = `
  SELECT d.datname::text AS name, d.oid::text AS oid, host(inet_server_addr()) || ':' || inet_server_port()::text AS address,
         extract(epoch FROM pg_postmaster_start_time())::text AS "startedAt"
    FROM pg_database AS d WHERE d.datname = current_database()`;

/** True if both are the same database of the same server process. */
export function isSameDatabase(one: DatabaseIdentity, other: DatabaseIdentity): boolean {
  return one.oid === other.oid && one.startedAt === other.startedAt;
}

/** Error text that names the database that was reached and the expected one. */
export function differenceOf(reached: DatabaseIdentity, own: DatabaseIdentity): string {
  return `${describe(reached)}, not ${describe(own)}, which \`hawser serve\` works for`;
}

/** Hint for an error of {@link differenceOf}. */
export function sameDatabaseRemedy(executorUrl: string | undefined): string {
  return executorUrl === undefined
    ? "Let --database-url lead to one server only; now, its connections reach different servers."
    : "Let --executor-url name the same server and database as --database-url, with the other login.";
}

function describe({ name, address, startedAt }: DatabaseIdentity): string {
  const started = new Date(Number(startedAt) * 1_000).toISOString();
  return `the database "${name}" of the server ${address === null ? "at a Unix socket" : `at ${address}`}, started at ${started}`;
}
