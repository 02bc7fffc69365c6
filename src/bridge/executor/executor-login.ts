/**
 * The login by which wrappers are called: made by `hawser init`, and kept in a table that only the bridge reads; or one that
 * the operator names.
 */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { HawserError } from "../../errors/index.js";
import { DatabaseAddress, OpenAttempts, type PostgresSession } from "../../postgres/index.js";

/** Where the login is from. */
export interface ExecutorLoginOptions {
  /** The database, as the bridge's own login reaches it. */
  readonly databaseUrl: string | undefined;
  /** A login of the operator's, with its database. Default: the one of the table. */
  readonly executorUrl: string | undefined;
  /** The bridge's own: reads the table, and has reached the right database. */
  readonly session: PostgresSession;
}

const loginSql = `SELECT l.user_name AS "user", l.password FROM ${tables.executorLogin} AS l`;

/** What a login may do that calls functions of others: what they can reach beyond their own rights. */
const rightsSql = `
  SELECT pg_backend_pid() AS pid,
         (SELECT a.backend_start::text FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()) AS "startedAt",
         r.rolname AS name, r.rolsuper AS superuser, r.rolcreaterole AS "createsRoles", r.rolbypassrls AS "bypassesRls",
         r.rolreplication AS replicates,
         ARRAY(SELECT g.rolname::text FROM pg_roles AS g WHERE g.oid <> r.oid AND g.rolname <> 'hawser_executor' AND NOT r.rolsuper
                AND pg_has_role(r.oid, g.oid, 'MEMBER') ORDER BY 1) AS roles,
         ARRAY(SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'hawser'
                WHERE c.relkind = 'r' AND has_table_privilege(r.oid, c.oid, 'SELECT') ORDER BY 1) AS tables,
         ARRAY(SELECT c.setting FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c (setting) WHERE s.setrole = r.oid ORDER BY 1) AS settings
    FROM pg_roles AS r WHERE r.rolname = session_user`;

/** The process of Postgres behind a session. */
export interface Backend {
  readonly pid: number;
  /** As Postgres writes it: another process may have the same number later. */
  readonly startedAt: string;
  /** When the server was started. */
  readonly serverStartedAt: string;
}

/**
 * Why a statement is not answered in time: it still runs; or nothing runs, and the statement or its answer was lost on the way;
 * or it cannot be found out.
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
 * Whether a statement runs for longer than $3 ms. A superuser's function may have switched off what the view shows; then it
 * counts as running.
 */
const runsSql = `SELECT coalesce(a.state, '') NOT LIKE 'idle%' AND coalesce(a.query_start < clock_timestamp() - make_interval(secs => $3::float8 / 1000), true) AS runs
    FROM pg_stat_activity AS a WHERE a.pid = $1 AND a.backend_start::text = $2`;

const endSql = `SELECT pg_terminate_backend(a.pid) AS ended FROM pg_stat_activity AS a WHERE a.pid = $1 AND a.backend_start::text = $2`;

export class ExecutorLogin {
  /** Of its sessions. */
  readonly attempts = new OpenAttempts();
  readonly #options: ExecutorLoginOptions;

  constructor(options: ExecutorLoginOptions) {
    this.#options = options;
  }

  /** Address and login of a session. @throws what the bridge's session throws; HawserError `invalid_argument` */
  async address(): Promise<DatabaseAddress> {
    const { databaseUrl, executorUrl, session } = this.#options;
    if (executorUrl !== undefined) return DatabaseAddress.of(executorUrl);
    const [login] = await session.query<{ user: string; password: string }>(loginSql);
    return DatabaseAddress.of(databaseUrl).withLogin(login!);
  }

  /**
   * Checks a session that was opened, before anything of others runs in it.
   *
   * @returns the process that it has
   * @throws HawserError `executor_login` if it has reached another database, or a function could get more by it than its
   * owner's rights; what the sessions throw
   */
  async admit(client: pg.Client): Promise<Backend> {
    const [reached] = (await client.query<DatabaseIdentity>(identitySql)).rows;
    // Asked only now: if the executor's session has reached a server that is gone by now, the two differ.
    const [own] = await this.#options.session.query<DatabaseIdentity>(identitySql);
    if (!isSameDatabase(reached!, own!)) {
      throw new HawserError(
        "executor_login",
        `the login "${client.user}", by which subscribed functions are called, has reached ${differenceOf(reached!, own!)}`,
        { remedy: sameDatabaseRemedy(this.#options.executorUrl) },
      );
    }
    return { ...(await refusePowerfulLogin(client)), serverStartedAt: reached!.startedAt };
  }

  /** Asks, by the bridge's own session, why a statement has no answer that should have ended after `timeoutMs`. Does not reject. */
  async whySilent({ pid, startedAt }: Backend, timeoutMs: number): Promise<Silence> {
    try {
      const [row] = await this.#options.session.query<{ runs: boolean }>(runsSql, [pid, startedAt, timeoutMs]);
      if (row === undefined) return "unknown";
      return row.runs ? "running" : "lost";
    } catch {
      return "unknown";
    }
  }

  /** Ends a session from the bridge's own. Does not reject. */
  async endBackend({ pid, startedAt }: Backend): Promise<void> {
    // Postgres may be away, or the bridge may not end this login's sessions: then Postgres notices that the connection is gone.
    await this.#options.session.query(endSql, [pid, startedAt]).catch(() => undefined);
  }
}

/** @throws HawserError `executor_login` if a function could get more by the login than its owner's rights */
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
      `the login "${name}", by which subscribed functions are called, has settings of its own (${settings[0]}), which a ` +
        "function may have made",
      { remedy: `ALTER ROLE ${pg.escapeIdentifier(name)} RESET ALL, or run \`hawser init\`.` },
    );
  }
  const powers = [
    ...(superuser ? ["is a superuser"] : []),
    ...(createsRoles ? ["may make roles"] : []),
    ...(bypassesRls ? ["is exempt from row security"] : []),
    ...(replicates ? ["may replicate"] : []),
    ...(roles.length > 0
      ? [
          `is in ${roles
            .slice(0, 5)
            .map((role) => `"${role}"`)
            .join(", ")}`,
        ]
      : []),
    ...(readable.length > 0 && !superuser ? [`may read hawser.${readable[0]}`] : []),
  ];
  if (powers.length === 0) return { pid, startedAt };
  throw new HawserError(
    "executor_login",
    `the login "${name}", by which subscribed functions are called, ${powers.join(", and ")}: a function could use that`,
    { remedy: "Use a login that is in hawser_executor and in no other role; `hawser init` makes one." },
  );
}

/**
 * Which database of which server a session has reached. The database whose functions are called and the one whose messages
 * are handled must be the same: names and addresses do not tell, as several can lead to one server, and one to several.
 */
export interface DatabaseIdentity {
  readonly name: string;
  readonly oid: string;
  /** Where the server is, as it says itself; null: the session comes by a local socket. */
  readonly address: string | null;
  /** When the server was started, in seconds since 1970: no two have been in the same microsecond. */
  readonly startedAt: string;
}

/** One row, a {@link DatabaseIdentity}. Any login may ask. The types of operands are exact, so that none of others is called. */
export const identitySql = `
  SELECT d.datname::text AS name, d.oid::text AS oid, host(inet_server_addr()) || ':' || inet_server_port()::text AS address,
         extract(epoch FROM pg_postmaster_start_time())::text AS "startedAt"
    FROM pg_database AS d WHERE d.datname = current_database()`;

/** Whether both are the same database of the same server, since the same start. */
export function isSameDatabase(one: DatabaseIdentity, other: DatabaseIdentity): boolean {
  return one.oid === other.oid && one.startedAt === other.startedAt;
}

/** For people: what was reached, and what should have been. */
export function differenceOf(reached: DatabaseIdentity, own: DatabaseIdentity): string {
  return `${shown(reached)}, and not ${shown(own)}, which \`hawser serve\` works for`;
}

/** What to do about it. */
export function sameDatabaseRemedy(executorUrl: string | undefined): string {
  return executorUrl === undefined
    ? "Let --database-url lead to one server only, as each connection may lead to another one now."
    : "Let --executor-url name the server and the database that --database-url names, with the other login.";
}

function shown({ name, address, startedAt }: DatabaseIdentity): string {
  const started = new Date(Number(startedAt) * 1_000).toISOString();
  return `the database "${name}" of the server ${address === null ? "behind a local socket" : `at ${address}`}, started at ${started}`;
}
