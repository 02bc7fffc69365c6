/**
 * Opens all sessions of Hawser with Postgres: pools, leases, `hawser serve`, commands, doctor.
 *
 * Common settings of all sessions, made by a statement before the first query, whatever the server, the database and the
 * role have.
 *
 * - `search_path = pg_catalog, pg_temp`. Other roles may create operators, functions and types in schemas of a login's
 * path, and Postgres would call them with the privileges of this login wherever pg_catalog has no exact match. A user's
 * code (a handler's `message.client`, a subscribed function) gets the login's own path: {@link ownSettings}.
 * - The server ends sessions of dead or suspended clients: keepalives while the session is idle, `tcp_user_timeout`
 * while an answer is pending, `idle_in_transaction_session_timeout` while the process lives but is suspended. Nothing else
 * ends them: `transaction_timeout`, `idle_session_timeout`, and unless a limit is given, `statement_timeout` and
 * `lock_timeout` are off.
 * - READ COMMITTED, which the fence requires.
 * - `row_security = off`: a statement of Hawser that row security would filter fails instead, because rows that are
 * hidden must not count as rows that are missing. A user's code keeps the login's own setting. In Hawser's functions,
 * which a user's session may call, the setting is part of the function.
 * - `jit = off`, as in Hawser's functions; a user's code keeps the login's own setting.
 * - Output and literal formats, for which a database or a role may have other settings ({@link formats}).
 */
import type { Socket } from "node:net";
import pg from "pg";
import { storeConstants } from "../../../generated/ts/settings/peer.js";
import { traceConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError } from "../errors/index.js";
import type { BackoffOptions } from "../runtime/index.js";
import { type SessionAttributes, UserPool } from "../sql-clients/index.js";
import {
  type ClientSource,
  connectLimit,
  type DatabaseAddress,
  databaseConnectTimeoutMs,
  hostOf,
  sessionKeepaliveMs,
} from "./database-address.js";
import { isReadOnly, isServerError, isTransient, readOnlyRemedy } from "./failure.js";
import { queryOwn, useOwnTypes, withoutProgramDefaults } from "./own-types.js";
import type { PreparedStatement } from "./prepared-run.js";

const { sessionIdleInTransactionMs } = storeConstants;
/** Number of unanswered keepalive probes after which the lease session is dead. */
const sessionKeepaliveProbes = 3;
/** Delays before reconnecting to Postgres, and before repeating a statement that failed. */
export const postgresBackoff: BackoffOptions = {
  minMs: 50,
  maxMs: 2_000,
};

/** Limits that the server enforces for a session, in ms; 0, the default, for none. */
export interface SessionLimits {
  readonly lockTimeoutMs?: number | undefined;
  readonly statementTimeoutMs?: number | undefined;
}

/** Options of {@link openSession}. */
export interface SessionOptions extends SessionLimits {
  /** Application name in Postgres. Default `hawser`. */
  readonly applicationName?: string | undefined;
  /** True to make the transactions of the session read-only by default. */
  readonly readOnly?: boolean | undefined;
  /** Maximum time to connect to one host. Default `databaseConnectTimeoutMs`. */
  readonly connectTimeoutMs?: number | undefined;
  /** Maximum time for an answer, after which the statement fails. Default: no limit. */
  readonly queryTimeoutMs?: number | undefined;
  /**
   * True if functions of other roles run in the session, followed by RESET ALL: see {@link functionSessionFacts}. They
   * keep the login's own formats, and notices are suppressed.
   */
  readonly runsFunctions?: boolean | undefined;
  /** True if the server must accept writes, even if the address allows others. */
  readonly needsWrites?: boolean | undefined;
  /** True to send queries before those before them were answered. A client of a user's pool does as the user has set. Default false. */
  readonly pipeline?: boolean | undefined;
  /** Receives each client before it connects, one per host that is tried. Destroy its stream to abort. */
  readonly onClient?: ((client: pg.Client) => void) | undefined;
}

/** Open session, and the server process that serves it. */
export interface OpenSession {
  readonly client: pg.Client;
  readonly backendPid: number;
  readonly isStandby: boolean;
}

type Setting = readonly [name: string, value: string | number];

/** Formats in which the driver reads and writes values, in transactions of a user, too. */
const driverFormats: readonly Setting[] = [
  // "ISO" alone affects only the output of Postgres. The order of day and month in its input is unchanged.
  ["datestyle", "ISO"],
  // Full precision.
  ["extra_float_digits", 1],
  ["array_nulls", "on"],
];

/** Settings of Hawser's statements, and not of a user's: they change which objects, rows and answers a statement sees. */
const ownSettings: readonly Setting[] = [
  ["search_path", "pg_catalog, pg_temp"],
  ["standard_conforming_strings", "on"],
  // Statements of Hawser fail where row security would filter their rows.
  ["row_security", "off"],
  // No statement is worth its compilation, which a server with LLVM does for a high estimate of its cost.
  ["jit", "off"],
  // A COMMIT that no standby has confirmed is only a warning.
  ["client_min_messages", "notice"],
  // Otherwise each error ends the session.
  ["exit_on_error", "off"],
];

/** Formats of what Hawser's statements convert to text and compare, and how strictly functions are read. */
const ownFormats: readonly Setting[] = [
  ["quote_all_identifiers", "off"],
  ["timezone", "UTC"],
  ["intervalstyle", "postgres"],
  ["bytea_output", "hex"],
  // Functions are made of which this would refuse some.
  ["plpgsql.extra_errors", "none"],
];

const connectionSettings: readonly Setting[] = [
  ["idle_session_timeout", 0],
  ["tcp_keepalives_idle", sessionKeepaliveMs / 1000],
  ["tcp_keepalives_interval", sessionKeepaliveMs / 1000],
  ["tcp_keepalives_count", sessionKeepaliveProbes],
  ["tcp_user_timeout", sessionKeepaliveMs * (sessionKeepaliveProbes + 1)],
];

/** Setting by which a backend notices during a long statement that its client is gone. */
const clientCheck: Setting = ["client_connection_check_interval", sessionKeepaliveMs];

/** Limit of Postgres 17 and newer for a whole transaction. */
const transactionTimeout: Setting = ["transaction_timeout", 0];

const isolation: Setting = ["default_transaction_isolation", "read committed"];

function limitSettings({ lockTimeoutMs = 0, statementTimeoutMs = 0 }: SessionLimits): readonly Setting[] {
  return [
    ["idle_in_transaction_session_timeout", sessionIdleInTransactionMs],
    ["lock_timeout", lockTimeoutMs],
    ["statement_timeout", statementTimeoutMs],
  ];
}

/** Statement that makes settings of the session: one, because a SET for each takes several times as long. */
function setSql(settings: readonly Setting[]): string {
  const set = settings.map(([name, value]) => `pg_catalog.set_config('${name}', '${value}', false)`);
  return `SELECT ${set.join(", ")}`;
}

/** Settings as start-up parameters, which RESET ALL restores. */
function startUpOptions(settings: readonly Setting[]): string {
  return settings.map(([name, value]) => `-c ${name}=${String(value).replaceAll(" ", "\\ ")}`).join(" ");
}

const [timeoutName] = transactionTimeout;

/** Statements that end the limits of the login. They are the first ones, because a limit may be very short. */
export const endLimitsSql =
  `SET statement_timeout = 0; SELECT CASE WHEN pg_catalog.current_setting('${timeoutName}', true) IS NOT NULL ` +
  `THEN pg_catalog.set_config('${timeoutName}', '${transactionTimeout[1]}', false) END`;

/**
 * Sets, for the rest of the transaction, the limits, the formats of the driver, the fixed search_path and the view of all
 * rows. SET and not SELECT: a user may still choose the isolation level of the transaction.
 */
export function localSettingsSql(limits: SessionLimits): string {
  const settings = [...limitSettings(limits), ...driverFormats, ...ownSettings];
  return settings
    .map(([name, value]) => `SET LOCAL ${name} = ${name === "search_path" ? value : `'${value}'`}`)
    .join("; ");
}

/**
 * Restores, for the rest of the transaction, the login's own settings after {@link localSettingsSql}, in a session that others
 * use. A trace that they have set is not that of the transaction; without a parent, a state counts for nothing.
 */
export const loginSettingsSql = `${toDefault([...ownSettings, ...limitSettings({})])}; SET LOCAL ${traceConstants.parentSetting} = ''`;

function toDefault(settings: readonly Setting[]): string {
  return settings.map(([name]) => `SET LOCAL ${name} TO DEFAULT`).join("; ");
}

/** Settings of a kept session, as one text of several statements. */
export function sessionSettingsSql(limits: SessionLimits, readOnly = false): string {
  const settings = [
    ...[...driverFormats, ...ownSettings, ...ownFormats, isolation, ...connectionSettings, ...limitSettings(limits)],
    ["client_encoding", "UTF8"] as const,
    ...(readOnly ? ([["default_transaction_read_only", "on"]] as const) : []),
  ];
  // The DO block ignores the error of platforms that lack the setting.
  const checkSql = `DO $$ BEGIN SET ${clientCheck[0]} = ${clientCheck[1]}; EXCEPTION WHEN OTHERS THEN NULL; END $$`;
  return [endLimitsSql, setSql(settings), checkSql].join("; ");
}

/** Settings of a session in which functions of other roles run. The formats are the login's own. Notices are suppressed. */
const functionSettings: readonly Setting[] = [
  ["search_path", "pg_catalog, pg_temp"],
  ["client_min_messages", "error"],
  ["exit_on_error", "off"],
  isolation,
  ...connectionSettings,
  ["idle_in_transaction_session_timeout", sessionIdleInTransactionMs],
  ["statement_timeout", 0],
];

/** Settings of a session in which functions of other roles run, as statements. */
export const functionSettingsSql = `${endLimitsSql}; ${setSql(functionSettings)}`;

/**
 * The same as start-up parameters: RESET ALL and DISCARD ALL restore these, which takes half the time of the statements
 * afterwards.
 */
const functionOptions = startUpOptions(functionSettings);

/** Facts about a session in which functions of other roles run. */
interface FunctionSessionFacts {
  /** False if a pooler has dropped start-up parameters: RESET ALL must be followed by {@link functionSettingsSql}. */
  readonly keepsSettings: boolean;
  /** True if Postgres knows `transaction_timeout`, which no start-up parameter sets, because older versions refuse it. */
  readonly limitsTransactions: boolean;
}

/** Reads the settings of a session that was opened with `runsFunctions` back, as RESET ALL leaves them. */
export async function functionSessionFacts(client: pg.ClientBase): Promise<FunctionSessionFacts> {
  const columns = functionSettings.map(([name]) => `pg_catalog.current_setting('${name}') AS ${name}`);
  const read = `SELECT ${columns.join(", ")}`;
  const limits = `SELECT pg_catalog.current_setting('${timeoutName}', true) IS NOT NULL AS limits`;
  const text = `${functionSettingsSql}; ${read}; RESET ALL; ${read}; ${functionSettingsSql}; ${limits}`;
  // The driver returns one result per statement.
  const results = (await client.query(text)) as unknown as pg.QueryResult[];
  const [made, reset] = results.flatMap(({ rows }) => rows).filter((row) => "search_path" in row);
  return {
    keepsSettings: JSON.stringify(made) === JSON.stringify(reset),
    limitsTransactions: results.at(-1)!.rows[0].limits,
  };
}

/** Statements that remove session state, except prepared statements, which belong to the driver. */
export const cleaning: readonly PreparedStatement[] = [
  ...["RESET SESSION AUTHORIZATION", "RESET ALL", "CLOSE ALL", "UNLISTEN *", "DISCARD TEMP"],
  "SELECT pg_catalog.pg_advisory_unlock_all()",
].map((text) => ({ text }));

/** Settings that a kept session has also in transactions of a user. */
const keptSettings: readonly Setting[] = [...driverFormats, ...connectionSettings, clientCheck];
export const readKeptSql = `SELECT ${keptSettings.map(([name]) => `pg_catalog.current_setting('${name}') AS kept_${name}`).join(", ")}`;

/**
 * Settings to make again after RESET ALL, which restores those of the start of the session.
 *
 * @param atStart row of {@link readKeptSql}
 * @param made the same, after the settings were made
 */
export function settingsToRestore(atStart: object, made: object): readonly Setting[] {
  const [before, after] = [atStart, made] as Record<string, string>[];
  return keptSettings.filter(([name]) => before![`kept_${name}`] !== after![`kept_${name}`]);
}

export function cleaningWith(restored: readonly Setting[]): readonly PreparedStatement[] {
  return restored.length === 0 ? cleaning : [...cleaning, { text: setSql(restored) }];
}

/**
 * Start-up parameters of sessions in which statements of a user run. Formats are not among them: a parameter would hide a
 * setting of the database, such as the order of day and month.
 */
export const poolParameters = startUpOptions([...connectionSettings, clientCheck]);

/** SQLSTATEs of a server or pooler that refuses a start-up parameter. */
const refusedParameter: ReadonlySet<string | undefined> = new Set(["08P01", "22023", "42704"]);

export function isRefusedParameter(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isRefusedParameter);
  return isServerError(error) && refusedParameter.has(error.code);
}

/**
 * Opens a session: with the first suitable host of an address, or with a client of a user's pool. The client of a pool
 * is destroyed when it ends, and then the pool may make another one.
 *
 * @throws the error of the last host; for several hosts, an AggregateError with the error of each. A refusal that all
 * hosts share (a wrong password, a missing database) ends the search. For a pool, as {@link UserPool.take}
 */
export async function openSession(source: ClientSource, options: SessionOptions = {}): Promise<OpenSession> {
  if (source instanceof UserPool) return openFromPool(source, options);
  return firstSuitableHost(source, (host, wanted) => openAt(host, wanted, options));
}

async function openAt(
  config: pg.ClientConfig,
  wanted: SessionAttributes,
  options: SessionOptions,
): Promise<OpenSession> {
  const { applicationName, connectTimeoutMs, queryTimeoutMs, runsFunctions, needsWrites, pipeline, onClient } = options;
  const client = withoutProgramDefaults(
    new pg.Client({
      ...config,
      ...(pipeline === true ? { pipeline } : {}),
      ...(applicationName === undefined ? {} : { application_name: applicationName }),
      ...(connectTimeoutMs === undefined ? {} : connectLimit(connectTimeoutMs)),
      ...(runsFunctions === true ? { options: functionOptions } : {}),
    }),
    queryTimeoutMs,
  );
  // Ignored here: a running query is rejected, and the owner of the session has its own listener.
  client.on("error", () => undefined);
  onClient?.(client);
  try {
    await client.connect();
    const settingsSql = runsFunctions === true ? functionSettingsSql : sessionSettingsSql(options, options.readOnly);
    // The driver prefers the name that the URL gives.
    const named = applicationName === undefined ? settingsSql : `${settingsSql}; ${nameSql(applicationName)}`;
    const facts = await prepareSession(client, named, connectTimeoutMs);
    refuseUnwanted(facts, needsWrites === true ? "read-write" : wanted, client);
    return { client, backendPid: facts.pid, isStandby: facts.standby };
  } catch (error) {
    client.connection.stream.destroy();
    throw error;
  }
}

async function openFromPool(source: UserPool, options: SessionOptions): Promise<OpenSession> {
  const { applicationName = "hawser", needsWrites, onClient } = options;
  const { connectTimeoutMs = databaseConnectTimeoutMs } = options;
  const taken = await source.take(connectTimeoutMs);
  const client = taken as unknown as pg.Client;
  if (typeof (client as Partial<pg.Client>).connection?.stream?.destroy !== "function") {
    taken.release();
    throw new HawserError(
      "invalid_argument",
      "pool gives clients without a socket, as pg.native does; give a pool of the JavaScript client, new pg.Pool()",
    );
  }
  let isReleased = false;
  const release = (): void => {
    if (isReleased) return;
    isReleased = true;
    taken.release(true);
  };
  // Added before all other listeners: when those are called, the pool already has room for another client.
  client.once("end", release);
  client.on("error", () => undefined);
  onClient?.(client);
  try {
    // Some streams of connectors are not sockets.
    (client.connection.stream as Partial<Socket>).setKeepAlive?.(true, sessionKeepaliveMs);
    withoutProgramDefaults(client, options.queryTimeoutMs);
    useOwnTypes(client);
    const settingsSql = `${sessionSettingsSql(options, options.readOnly)}; ${nameSql(applicationName)}`;
    const facts = await prepareSession(client, settingsSql, connectTimeoutMs, discardState);
    refuseUnwanted(facts, needsWrites === true ? "read-write" : "any", client);
    return { client, backendPid: facts.pid, isStandby: facts.standby };
  } catch (error) {
    client.connection.stream.destroy();
    release();
    throw error;
  }
}

const nameSql = (applicationName: string): string => `SET application_name = ${pg.escapeLiteral(applicationName)}`;

/** Removes all state that other code has left in a session. */
async function discardState(client: pg.ClientBase): Promise<void> {
  // DISCARD ALL fails only in a transaction that was left open.
  await client.query("DISCARD ALL").catch(async () => {
    await client.query("ROLLBACK");
    await client.query("DISCARD ALL");
  });
}

interface ServerFacts {
  readonly pid: number;
  readonly standby: boolean;
  readonly reads_only: boolean;
  /** Rows of {@link readKeptSql} among the settings. */
  readonly kept: readonly object[];
}

const factsSql = `SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.pg_is_in_recovery() AS standby,
  pg_catalog.current_setting('transaction_read_only')::bool AS reads_only`;

/**
 * Applies the settings and reads facts about the server.
 *
 * @param before called before the settings are applied
 * @throws Error if the server does not answer within `limitMs`; errors of Postgres
 */
export async function prepareSession(
  client: pg.ClientBase,
  settingsSql: string,
  limitMs: number = databaseConnectTimeoutMs,
  before?: (client: pg.ClientBase) => Promise<void>,
): Promise<ServerFacts> {
  const late = new Error(`the server did not answer within ${limitMs} ms after it had accepted the login`);
  const timer = setTimeout(() => (client as pg.Client).connection.stream.destroy(late), limitMs);
  try {
    await before?.(client);
    // The driver returns one result per statement.
    const text = `${settingsSql}; ${factsSql}`;
    const results = (await queryOwn(client, { text })) as unknown as pg.QueryResult[];
    const kept = results.flatMap(({ rows }) => rows).filter((row) => `kept_${clientCheck[0]}` in row);
    return { ...(results.at(-1)!.rows[0] as Omit<ServerFacts, "kept">), kept };
  } finally {
    clearTimeout(timer);
  }
}

/** Error for a server that is not of the required kind. */
class UnwantedServer extends Error {}

export function refuseUnwanted(
  { standby, reads_only: readsOnly }: ServerFacts,
  wanted: SessionAttributes,
  client: pg.Client,
) {
  const isWanted: Readonly<Record<SessionAttributes, boolean>> = {
    any: true,
    "read-write": !standby && !readsOnly,
    "read-only": standby || readsOnly,
    primary: !standby,
    standby,
    "prefer-standby": standby,
  };
  if (isWanted[wanted]) return;
  const is = standby ? "a standby, which takes no writes" : readsOnly ? "read-only" : "a primary";
  const setting = readsOnly && !standby ? `; default_transaction_read_only is on: ${readOnlyRemedy}` : "";
  throw new UnwantedServer(`the server ${hostOf(client)} is ${is}; the address requires ${wanted}${setting}`);
}

/** Message of the AggregateError with the error of each host. */
export const noSuitableHost = "no host of the database is suitable";

/** Calls `open` for one host after the other, starting with the last one that worked. */
export async function firstSuitableHost<T>(
  address: DatabaseAddress,
  open: (host: pg.ClientConfig, wanted: SessionAttributes) => Promise<T>,
): Promise<T> {
  const { hosts, sessionAttributes } = address;
  const rounds: readonly SessionAttributes[] =
    sessionAttributes === "prefer-standby" ? ["standby", "any"] : [sessionAttributes];
  const errors: unknown[] = [];
  for (const wanted of rounds) {
    for (let tries = 0; tries < hosts.length; tries += 1) {
      const host = address.next;
      try {
        return await open(hosts[host]!, wanted);
      } catch (error) {
        if (isSameEverywhere(error)) throw error;
        errors.push(error);
        address.failed(host);
      }
    }
  }
  throw errors.length === 1 ? errors[0] : new AggregateError(errors, noSuitableHost);
}

/** SQLSTATEs of a server that is read-only, busy, starting or stopping: another host may be suitable. */
const hostSpecific = /^(08|25006|53|55P03|57)/;

function isSameEverywhere(error: unknown): boolean {
  return isServerError(error) && !hostSpecific.test(error.code ?? "");
}

/** Socket errors of a server that is down, or whose name cannot be resolved yet. */
const unreachable = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EPIPE", "ENOENT", "EHOSTUNREACH", "ENETUNREACH"],
  ...["ENOTFOUND", "EAI_AGAIN"],
]);

/**
 * Returns true if the same login and statement may succeed later: the server is down, starting, full, or not yet one that
 * takes writes. Returns false for a wrong password, database, certificate or schema.
 */
export function mayServeLater(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(mayServeLater);
  if (error instanceof UnwantedServer) return true;
  if (isServerError(error)) return isTransient(error) || isReadOnly(error);
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  // Error texts of the driver and of sessions for a connection that timed out, ended, or was closed while it was opened.
  return unreachable.has(code ?? "") || /timeout|terminated|did not answer|connection error|ended/i.test(error.message);
}
