/**
 * Opens every session with Postgres that Hawser has: pools, leases, `hawser serve`, commands, doctor.
 *
 * What is the same in all of them is set here, before anything is asked:
 *
 * - `search_path = pg_catalog, pg_temp`. Other roles may put operators, functions and types into schemas of a login's
 *   path, and Postgres would call them, as this login, wherever pg_catalog has no exact match. A user's code (a handler's
 *   `message.client`, a subscribed function) gets the login's own path: {@link userPathSql}, {@link pinSql}.
 * - The server ends what a dead or stopped client leaves: keepalives where nothing is under way, `tcp_user_timeout` where
 *   an answer is, `idle_in_transaction_session_timeout` where the process lives and stands still.
 * - READ COMMITTED, which the fence relies on.
 * - How values and literals are written, which a database or a role may have settings of its own for ({@link formats}).
 */
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import type { BackoffOptions } from "../runtime/index.js";
import { type DatabaseAddress, hostOf, type SessionAttributes } from "./database-address.js";

const { sessionKeepaliveMs, sessionKeepaliveProbes, sessionIdleInTransactionMs } = storeConstants;

/** The waits before Postgres is tried again. */
export const postgresBackoff: BackoffOptions = {
  minMs: storeConstants.storeRetryMinMs,
  maxMs: storeConstants.storeRetryMaxMs,
};

/** How long the server lets one session wait and work, in milliseconds; 0: without limit. */
export interface SessionLimits {
  /** Default: what the server has for the login. */
  readonly lockTimeoutMs?: number | undefined;
  /** Default: what the server has for the login. */
  readonly statementTimeoutMs?: number | undefined;
}

/** What a session is opened for. */
export interface SessionOptions extends SessionLimits {
  /** As Postgres shows it. Default `hawser`. */
  readonly applicationName?: string | undefined;
  /** All its transactions are read-only, unless they say otherwise. */
  readonly readOnly?: boolean | undefined;
  /** How long connecting may take, to one host. Default `databaseConnectTimeoutMs`. */
  readonly connectTimeoutMs?: number | undefined;
  /** A statement that is not answered for so long fails. Default: without limit. */
  readonly queryTimeoutMs?: number | undefined;
  /**
   * Functions of others run in it, and RESET ALL after them: the settings are made when it connects, so that it goes back
   * to them; and notices are not sent.
   */
  readonly runsFunctions?: boolean | undefined;
  /** The server must take writes, also where the address allows others. */
  readonly needsWrites?: boolean | undefined;
  /**
   * Gets each client before it connects: one for each host that is tried. To end the opening, destroy its
   * stream.
   */
  readonly onClient?: ((client: pg.Client) => void) | undefined;
}

/** A session, and the process of Postgres that serves it. */
export interface OpenSession {
  readonly client: pg.Client;
  readonly backendPid: number;
  readonly isStandby: boolean;
}

/** How Hawser and the driver read and write values. */
const formats: readonly Setting[] = [
  // Only of what Postgres writes: the order of day and month in what it reads stays as it is.
  ["datestyle", "ISO"],
  // All digits.
  ["extra_float_digits", 1],
  ["standard_conforming_strings", "on"],
  ["array_nulls", "on"],
];

/** For the rest of the transaction: nothing that others have put on the login's path is called. */
const pinSql = "SET LOCAL search_path = pg_catalog, pg_temp";

/** For the rest of the transaction: the settings that a new session of the login has. */
export const userPathSql = [
  ...["search_path", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"],
  "standard_conforming_strings",
]
  .map((name) => `SET LOCAL ${name} TO DEFAULT`)
  .join("; ");

/** The limits of a session, for the rest of the transaction, and the pinned path. */
export function localSettingsSql(limits: SessionLimits): string {
  const settings = [...formats, ...limitSettings(limits)];
  return [pinSql, ...settings.map(([name, value]) => `SET LOCAL ${name} = ${value}`)].join("; ");
}

/** Everything that is set in a session that is kept, in one text of several statements. */
export function sessionSettingsSql(limits: SessionLimits, readOnly = false): string {
  const settings: readonly Setting[] = [
    ...formats,
    ...sessionSettings(limits),
    ...(readOnly ? ([["default_transaction_read_only", "on"]] as const) : []),
  ];
  // Some platforms lack it.
  return [
    "SET search_path = pg_catalog, pg_temp",
    ...settings.map(([name, value]) => `SET ${name} = '${value}'`),
    `DO $$ BEGIN SET ${clientCheck[0]} = ${clientCheck[1]}; EXCEPTION WHEN OTHERS THEN NULL; END $$`,
  ].join("; ");
}

/** A backend notices during a long statement that its client is gone. */
const clientCheck: Setting = ["client_connection_check_interval", sessionKeepaliveMs];

/**
 * Takes away what statements of the user may have left in a session; prepared statements are the driver's. A session that is
 * kept then has the login's own path and limits ({@link userPathSql}), and the settings by which its end is noticed.
 */
function cleaningSql(keepsSettings: boolean, checksClients: boolean): string {
  const kept: readonly Setting[] = keepsSettings
    ? [
        ...formats.filter(([name]) => name !== "standard_conforming_strings"),
        ...connectionSettings,
        ...(checksClients ? [clientCheck] : []),
      ]
    : [];
  // In one statement: a SET for each takes several times as long.
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

/** As parameters of the startup message: what RESET ALL and DISCARD ALL go back to, whatever the login has of its own. */
function startupOptions(limits: SessionLimits): string {
  const settings: readonly Setting[] = [
    ["search_path", "pg_catalog,pg_temp"],
    ["client_min_messages", "error"],
    ...sessionSettings(limits),
  ];
  return settings.map(([name, value]) => `-c ${name}=${String(value).replaceAll(" ", "\\ ")}`).join(" ");
}

/**
 * Opens a session with the first host of the address that is of use.
 *
 * @throws what the last host threw; with several hosts an AggregateError with the error of each. A refusal that is the
 * same everywhere (a wrong password, no such database) ends the search.
 */
export async function openSession(address: DatabaseAddress, options: SessionOptions = {}): Promise<OpenSession> {
  return firstOfUse(address, (host, wanted) => openAt(host, wanted, options));
}

async function openAt(
  config: pg.ClientConfig,
  wanted: SessionAttributes,
  options: SessionOptions,
): Promise<OpenSession> {
  const { applicationName, connectTimeoutMs, queryTimeoutMs, readOnly, runsFunctions, needsWrites, onClient } = options;
  const client = new pg.Client({
    ...config,
    ...(applicationName === undefined ? {} : { application_name: applicationName }),
    ...(connectTimeoutMs === undefined ? {} : { connectionTimeoutMillis: connectTimeoutMs }),
    ...(queryTimeoutMs === undefined ? {} : { query_timeout: queryTimeoutMs }),
    ...(runsFunctions === true ? { options: startupOptions(options) } : {}),
  });
  // The running query rejects, and the owner of the session has a listener of its own.
  client.on("error", () => undefined);
  onClient?.(client);
  try {
    await client.connect();
    const facts = await prepareSession(client, sessionSettingsSql(options, readOnly), connectTimeoutMs);
    refuseUnwanted(facts, needsWrites === true ? "read-write" : wanted, client);
    return { client, backendPid: facts.pid, isStandby: facts.standby };
  } catch (error) {
    client.connection.stream.destroy();
    throw error;
  }
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

/** Makes the settings, and reads which server answers. @throws if that takes longer than connecting may */
async function prepareSession(
  client: pg.ClientBase,
  settingsSql: string,
  limitMs: number = storeConstants.databaseConnectTimeoutMs,
): Promise<ServerFacts> {
  const late = new Error(`the server did not answer within ${limitMs} ms after it had let the login in`);
  const timer = setTimeout(() => (client as pg.Client).connection.stream.destroy(late), limitMs);
  try {
    // Several statements have several results.
    const results = (await client.query(`${settingsSql}; ${factsSql}`)) as unknown as pg.QueryResult<ServerFacts>[];
    return results.at(-1)!.rows[0]!;
  } finally {
    clearTimeout(timer);
  }
}

/** The server is of another kind than the session is for. */
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
  throw new UnwantedServer(`the server ${hostOf(client)} is ${is}; wanted is one that is ${wanted}`);
}

/** The message of the AggregateError with the error of each host. */
export const noHostOfUse = "no host of the database is of use";

/** Calls `open` with one host after the other, beginning with the one that worked last. */
async function firstOfUse<T>(
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
  throw errors.length === 1 ? errors[0] : new AggregateError(errors, noHostOfUse);
}

/** SQLSTATEs of a server that may be another one's standby, or busy, starting or stopping: another host may do. */
const ofOneServer = /^(08|25006|53|55P03|57)/;

function isSameEverywhere(error: unknown): boolean {
  return error instanceof pg.DatabaseError && !ofOneServer.test(error.code ?? "");
}

/** What a socket says of a server that is away, or whose name is not known yet. */
const unreachable = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EPIPE", "ENOENT", "EHOSTUNREACH", "ENETUNREACH"],
  ...["ENOTFOUND", "EAI_AGAIN"],
]);

/** SQLSTATEs of a server that starts, stops, or has no session free. */
const notNow = /^(08|53300|57P0[1-3])/;

/**
 * Whether a server may be reached later that {@link openSession} has not reached: it is away, or starts, or is not yet of
 * the kind that is wanted; false for a password, a database or a certificate that is not right.
 */
export function mayBeReachedLater(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(mayBeReachedLater);
  if (error instanceof UnwantedServer) return true;
  if (error instanceof pg.DatabaseError) return notNow.test(error.code ?? "");
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  // The driver's own words for a connection that was not made in time, or was closed before it was.
  return unreachable.has(code ?? "") || /timeout|terminated|did not answer/i.test(error.message);
}

/** A pool whose sessions are opened as {@link openSession} does it. */
export class SessionPool {
  readonly #pool: pg.Pool;
  readonly #address: DatabaseAddress;
  readonly #keepsSettings: boolean;
  #checksClients = false;

  /**
   * @param options.keepsSettings false behind a transaction pooler: a session's settings do not stay, and each transaction
   * makes its own ({@link localSettingsSql})
   * @param options.check checks a new session before it is used; if it rejects, the session ends
   * @param options.onIdleError an idle session was lost; the pool has dropped it already
   */
  constructor(
    address: DatabaseAddress,
    options: SessionLimits & {
      readonly max: number;
      readonly keepsSettings: boolean;
      readonly check: (client: pg.ClientBase) => Promise<void>;
      readonly onIdleError: (error: Error) => void;
    },
  ) {
    this.#address = address;
    this.#keepsSettings = options.keepsSettings;
    class HostClient extends pg.Client {
      constructor() {
        super(address.hosts[address.next]);
      }
    }
    const settingsSql = options.keepsSettings ? sessionSettingsSql(options) : localSettingsSql(options);
    this.#pool = new pg.Pool({
      ...address.hosts[0],
      max: options.max,
      Client: HostClient,
      // The pool waits for it, and reports its failure as one to connect.
      onConnect: async (client) => {
        const facts = await prepareSession(client, settingsSql);
        this.#checksClients = facts.checks_clients;
        refuseUnwanted(facts, address.sessionAttributes, client as pg.Client);
        await options.check(client);
      },
    });
    this.#pool.on("error", options.onIdleError);
  }

  /** How many sessions there may be. */
  get max(): number {
    return this.#pool.options.max;
  }

  set max(sessions: number) {
    this.#pool.options.max = sessions;
  }

  /** Somebody waits for a session, and none is free. */
  get isShort(): boolean {
    return this.#pool.waitingCount > this.#pool.idleCount;
  }

  /** Statements that make a session as it was before statements of a user. They leave the login's own path and limits. */
  get cleaningSql(): string {
    return cleaningSql(this.#keepsSettings, this.#checksClients);
  }

  /**
   * A session that is free, or a new one.
   *
   * @param fits of those that are free, one that fits is taken if there is any among the last two that were used
   * @throws as {@link openSession}
   */
  async connect(fits: (client: pg.ClientBase) => boolean = () => true): Promise<pg.PoolClient> {
    const connect = () => firstOfUse(this.#address, () => this.#pool.connect());
    const client = await connect();
    if (fits(client) || this.#pool.idleCount === 0) return client;
    return await connect().finally(() => client.release());
  }

  /** Ends all sessions; what they do is finished first. */
  end(): Promise<void> {
    return this.#pool.end();
  }
}
