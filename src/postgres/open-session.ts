/**
 * Opens all sessions of Hawser with Postgres: pools, leases, `hawser serve`, commands, doctor.
 *
 * Common settings of all sessions, made before the first query:
 *
 * - `search_path = pg_catalog, pg_temp`. Other roles may create operators, functions and types in schemas of a login's
 * path, and Postgres would call them with the privileges of this login wherever pg_catalog has no exact match. A user's
 * code (a handler's `message.client`, a subscribed function) gets the login's own path: {@link userPathSql},
 * {@link pinSql}.
 * - The server ends sessions of dead or suspended clients: keepalives while the session is idle, `tcp_user_timeout`
 * while an answer is pending, `idle_in_transaction_session_timeout` while the process lives but is suspended.
 * - READ COMMITTED, which the fence requires.
 * - `row_security = off`: a statement of Hawser that row security would filter fails instead, because rows that are
 * hidden must not count as rows that are missing. A user's code keeps the login's own setting. In Hawser's functions,
 * which a user's session may call, the setting is part of the function.
 * - Output and literal formats, for which a database or a role may have other settings ({@link formats}).
 */
import type { Socket } from "node:net";
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import type { BackoffOptions } from "../runtime/index.js";
import {
  connectLimit,
  type DatabaseAddress,
  databaseConnectTimeoutMs,
  hostOf,
  type SessionAttributes,
  sessionKeepaliveMs,
  typeParsers,
} from "./database-address.js";
import { isReadOnly, isServerError, isTransient } from "./failure.js";
import { type ClientSource, UserPool } from "./user-pool.js";

const { sessionIdleInTransactionMs } = storeConstants;
/** Number of unanswered keepalive probes after which the lease session is dead. */
const sessionKeepaliveProbes = 3;
/** Delays before reconnecting to Postgres, and before repeating a statement that failed. */
export const postgresBackoff: BackoffOptions = {
  minMs: 50,
  maxMs: 2_000,
};

/** Limits that the server enforces for a session, in ms; 0 for none. */
export interface SessionLimits {
  /** Default: the setting of the login. */
  readonly lockTimeoutMs?: number | undefined;
  /** Default: the setting of the login. */
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
   * True if functions of other roles run in the session, followed by RESET ALL. The settings are then part of the
   * startup message, so that RESET ALL restores them, and notices are suppressed.
   */
  readonly runsFunctions?: boolean | undefined;
  /** True if the server must accept writes, even if the address allows others. */
  readonly needsWrites?: boolean | undefined;
  /** Receives each client before it connects, one per host that is tried. Destroy its stream to abort. */
  readonly onClient?: ((client: pg.Client) => void) | undefined;
}

/** Open session, and the server process that serves it. */
export interface OpenSession {
  readonly client: pg.Client;
  readonly backendPid: number;
  readonly isStandby: boolean;
}

/** Formats in which Hawser and the driver read and write values. */
const formats: readonly Setting[] = [
  // "ISO" alone affects only the output of Postgres. The order of day and month in its input is unchanged.
  ["datestyle", "ISO"],
  // Full precision.
  ["extra_float_digits", 1],
  ["standard_conforming_strings", "on"],
  ["array_nulls", "on"],
];

/** Statements of Hawser fail where row security would filter their rows. */
const seesAllRows: Setting = ["row_security", "off"];

/**
 * Fixes the search_path for the rest of the transaction, so that objects of other roles on the login's path are not
 * called.
 */
const pinSql = "SET LOCAL search_path = pg_catalog, pg_temp";

/** Restores the login's own settings for the rest of the transaction. */
export const userPathSql = [
  ...["search_path", seesAllRows[0], "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"],
  "standard_conforming_strings",
]
  .map((name) => `SET LOCAL ${name} TO DEFAULT`)
  .join("; ");

/** Sets the limits, the formats, the fixed search_path and the view of all rows for the rest of the transaction. */
export function localSettingsSql(limits: SessionLimits): string {
  const settings = [...formats, seesAllRows, ...limitSettings(limits)];
  return [pinSql, ...settings.map(([name, value]) => `SET LOCAL ${name} = ${value}`)].join("; ");
}

/**
 * Settings of a kept session, as one text of several statements.
 *
 * @param options.runsFunctions true if functions of other roles run in the session, which keep the login's row_security
 */
export function sessionSettingsSql(
  limits: SessionLimits,
  { readOnly, runsFunctions }: Pick<SessionOptions, "readOnly" | "runsFunctions"> = {},
): string {
  const settings: readonly Setting[] = [
    ...formats,
    ...sessionSettings(limits),
    ...(runsFunctions === true ? [] : [seesAllRows]),
    ...(readOnly === true ? ([["default_transaction_read_only", "on"]] as const) : []),
  ];
  // The DO block ignores the error of platforms that lack the setting.
  return [
    "SET search_path = pg_catalog, pg_temp",
    ...settings.map(([name, value]) => `SET ${name} = '${value}'`),
    `DO $$ BEGIN SET ${clientCheck[0]} = ${clientCheck[1]}; EXCEPTION WHEN OTHERS THEN NULL; END $$`,
  ].join("; ");
}

/** Setting by which a backend notices during a long statement that its client is gone. */
const clientCheck: Setting = ["client_connection_check_interval", sessionKeepaliveMs];

/**
 * Removes session state that statements of the user may have left, except prepared statements, which belong to the
 * driver. A kept session then has the login's own path and limits ({@link userPathSql}), and the settings that detect
 * its end.
 */
function cleaningSql(keepsSettings: boolean, checksClients: boolean): string {
  const kept: readonly Setting[] = keepsSettings
    ? [
        ...formats.filter(([name]) => name !== "standard_conforming_strings"),
        ...connectionSettings,
        ...(checksClients ? [clientCheck] : []),
      ]
    : [];
  // One statement, because a SET for each takes several times as long.
  const set = kept.map(([name, value]) => `, pg_catalog.set_config('${name}', '${value}', false)`);
  return `RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; SELECT pg_catalog.pg_advisory_unlock_all()${set.join("")}`;
}

type Setting = readonly [name: string, value: string | number];

const connectionSettings: readonly Setting[] = [
  ["idle_session_timeout", 0],
  ["tcp_keepalives_idle", sessionKeepaliveMs / 1000],
  ["tcp_keepalives_interval", sessionKeepaliveMs / 1000],
  ["tcp_keepalives_count", sessionKeepaliveProbes],
  ["tcp_user_timeout", sessionKeepaliveMs * (sessionKeepaliveProbes + 1)],
];

function sessionSettings(limits: SessionLimits): readonly Setting[] {
  return [["default_transaction_isolation", "read committed"], ...connectionSettings, ...limitSettings(limits)];
}

function limitSettings({ lockTimeoutMs, statementTimeoutMs }: SessionLimits): readonly Setting[] {
  return [
    ["idle_in_transaction_session_timeout", sessionIdleInTransactionMs],
    ...(lockTimeoutMs === undefined ? [] : ([["lock_timeout", lockTimeoutMs]] as const)),
    ...(statementTimeoutMs === undefined ? [] : ([["statement_timeout", statementTimeoutMs]] as const)),
  ];
}

/** Startup parameters, which RESET ALL and DISCARD ALL restore, whatever settings the login has. */
function startupOptions(limits: SessionLimits): string {
  const settings: readonly Setting[] = [
    ["search_path", "pg_catalog,pg_temp"],
    ["client_min_messages", "error"],
    ...sessionSettings(limits),
  ];
  return settings.map(([name, value]) => `-c ${name}=${String(value).replaceAll(" ", "\\ ")}`).join(" ");
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
  const { applicationName, connectTimeoutMs, queryTimeoutMs, runsFunctions, needsWrites, onClient } = options;
  const client = new pg.Client({
    ...config,
    ...(applicationName === undefined ? {} : { application_name: applicationName }),
    ...(connectTimeoutMs === undefined ? {} : connectLimit(connectTimeoutMs)),
    ...(queryTimeoutMs === undefined ? {} : { query_timeout: queryTimeoutMs }),
    ...(runsFunctions === true ? { options: startupOptions(options) } : {}),
  });
  // Ignored here: a running query is rejected, and the owner of the session has its own listener.
  client.on("error", () => undefined);
  onClient?.(client);
  try {
    await client.connect();
    const facts = await prepareSession(client, sessionSettingsSql(options), connectTimeoutMs);
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
    for (const oid of Object.values(pg.types.builtins))
      client.setTypeParser(oid, typeParsers.getTypeParser(oid, "text"));
    const settingsSql = `${sessionSettingsSql(options)}; SET application_name = ${pg.escapeLiteral(applicationName)}`;
    const facts = await prepareSession(client, settingsSql, connectTimeoutMs, discardState);
    refuseUnwanted(facts, needsWrites === true ? "read-write" : "any", client);
    return { client, backendPid: facts.pid, isStandby: facts.standby };
  } catch (error) {
    client.connection.stream.destroy();
    release();
    throw error;
  }
}

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
  readonly checks_clients: boolean;
}

const factsSql = `SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.pg_is_in_recovery() AS standby,
  pg_catalog.current_setting('transaction_read_only')::bool AS reads_only,
  pg_catalog.current_setting('client_connection_check_interval') <> '0' AS checks_clients`;

/**
 * Applies the settings and reads facts about the server.
 *
 * @param before called before the settings are applied
 * @throws Error if the server does not answer within `limitMs`; errors of Postgres
 */
async function prepareSession(
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
    const results = (await client.query(`${settingsSql}; ${factsSql}`)) as unknown as pg.QueryResult<ServerFacts>[];
    return results.at(-1)!.rows[0]!;
  } finally {
    clearTimeout(timer);
  }
}

/** Error for a server that is not of the required kind. */
class UnwantedServer extends Error {}

function refuseUnwanted({ standby, reads_only: readsOnly }: ServerFacts, wanted: SessionAttributes, client: pg.Client) {
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
  throw new UnwantedServer(`the server ${hostOf(client)} is ${is}; the address requires ${wanted}`);
}

/** Message of the AggregateError with the error of each host. */
export const noSuitableHost = "no host of the database is suitable";

/** Calls `open` for one host after the other, starting with the last one that worked. */
async function firstSuitableHost<T>(
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

/** Options of a {@link ClientPool}. */
export interface ClientPoolOptions extends SessionLimits {
  readonly max: number;
  /** Checks a client before its first use. A rejection destroys it. */
  readonly check: (client: pg.ClientBase) => Promise<void>;
  /** Called when an idle client was lost. The pool has removed it. */
  readonly onIdleError: (error: Error) => void;
}

/** Pool of clients for statements and transactions: Hawser's own, or clients borrowed from a user's pool. */
export interface ClientPool {
  /** Maximum number of clients in use. */
  max: number;
  /** True if callers wait for a client and none is free. */
  readonly isShort: boolean;
  /**
   * Statements that set Hawser's settings for a transaction. Each transaction must begin with them; undefined if the
   * clients keep their settings.
   */
  readonly localSettingsSql: string | undefined;
  /** Statements that clean a client after statements of a user. */
  readonly cleaningSql: string;
  /** @param fits preference between the last two used free clients */
  connect(fits?: (client: pg.ClientBase) => boolean): Promise<pg.PoolClient>;
  /** Prepares a client that {@link connect} has returned. A rejection means that it must be destroyed. */
  prepare(client: pg.ClientBase): Promise<void>;
  /** Ends the use of the pool after the running statements. */
  end(): Promise<void>;
}

/** Connection pool whose sessions are opened as by {@link openSession}. */
export class SessionPool implements ClientPool {
  readonly localSettingsSql: string | undefined;
  readonly #pool: pg.Pool;
  readonly #address: DatabaseAddress;
  readonly #keepsSettings: boolean;
  #checksClients = false;

  /**
   * @param options.keepsSettings false behind a transaction pooler, where session settings are lost and each
   * transaction sets its own
   */
  constructor(address: DatabaseAddress, options: ClientPoolOptions & { readonly keepsSettings: boolean }) {
    this.#address = address;
    this.#keepsSettings = options.keepsSettings;
    class HostClient extends pg.Client {
      constructor() {
        super(address.hosts[address.next]);
        // The pool listens only while a client is idle; without a listener a lost session would end the process. Its statements fail.
        this.on("error", () => undefined);
      }
    }
    this.localSettingsSql = options.keepsSettings ? undefined : localSettingsSql(options);
    const settingsSql = this.localSettingsSql ?? sessionSettingsSql(options);
    this.#pool = new pg.Pool({
      ...address.hosts[0],
      max: options.max,
      Client: HostClient,
      // The pool waits for the promise, and reports its rejection as a failure to connect.
      onConnect: async (client) => {
        const facts = await prepareSession(client, settingsSql);
        this.#checksClients = facts.checks_clients;
        refuseUnwanted(facts, address.sessionAttributes, client as pg.Client);
        await options.check(client);
      },
    });
    this.#pool.on("error", options.onIdleError);
  }

  get max(): number {
    return this.#pool.options.max;
  }

  set max(sessions: number) {
    this.#pool.options.max = sessions;
  }

  get isShort(): boolean {
    return this.#pool.waitingCount > this.#pool.idleCount;
  }

  /** Statements after which the login's own path and limits are in effect. */
  get cleaningSql(): string {
    return cleaningSql(this.#keepsSettings, this.#checksClients);
  }

  /**
   * Returns a free session or a new one.
   *
   * @param fits preference between the last two used free sessions
   * @throws as {@link openSession}
   */
  async connect(fits: (client: pg.ClientBase) => boolean = () => true): Promise<pg.PoolClient> {
    const connect = () => firstSuitableHost(this.#address, () => this.#pool.connect());
    const client = await connect();
    if (fits(client) || this.#pool.idleCount === 0) return client;
    return await connect().finally(() => client.release());
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  /** Closes all sessions after their running statements. */
  end(): Promise<void> {
    return this.#pool.end();
  }
}
