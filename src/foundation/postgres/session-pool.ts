/** Pools of sessions with Postgres, for statements and transactions. */
import pg from "pg";
import { inTime } from "../runtime/index.js";
import { type DatabaseAddress, databaseConnectTimeoutMs } from "./database-address.js";
import { isServerError } from "./failure.js";
import {
  cleaning,
  cleaningWith,
  endLimitsSql,
  firstSuitableHost,
  isRefusedParameter,
  localSettingsSql,
  poolParameters,
  prepareSession,
  readKeptSql,
  refuseUnwanted,
  type SessionLimits,
  sessionSettingsSql,
  settingsToRestore,
} from "./open-session.js";
import { programTypes, withoutProgramDefaults } from "./own-types.js";
import type { PreparedStatement } from "./prepared-run.js";

const ignored = (): void => undefined;
/** SQLSTATE of a server, a login or a database that has no connection left. */
const tooManyConnections = "53300";
/** Time until a pool that Postgres has given no more sessions asks for some again. */
const growAgainMs = 10_000;

/** Options of a {@link ClientPool}. */
export interface ClientPoolOptions extends SessionLimits {
  readonly max: number;
  /** Checks a client before its first use. A rejection destroys it. */
  readonly check: (client: pg.ClientBase) => Promise<void>;
  /** Called when an idle client was lost. The pool has removed it. */
  readonly onIdleError: (error: Error) => void;
  /** Called when Postgres gives no more sessions than the pool has. It has no more for a while. */
  readonly onFull: (sessions: number) => void;
  /** Called when a session of Hawser's own was closed, as it was idle or lost, with the number of the others. */
  readonly onClosed: (sessions: number) => void;
}

/** Pool of clients for statements and transactions: Hawser's own, or clients borrowed from a user's pool. */
export interface ClientPool {
  /** Maximum number of clients in use. */
  max: number;
  /** True if callers wait for a client and none is free. */
  readonly isShort: boolean;
  /** Number of sessions that it may still open, and of those that it is opening, none of which Postgres shows. Those of a user's pool do not count. */
  readonly unopened: number;
  /**
   * Statements that set Hawser's settings for a transaction. Each transaction must begin with them; undefined if the
   * clients keep their settings.
   */
  readonly localSettingsSql: string | undefined;
  /** Raises the maximum, and opens so many clients as far as it has clients of its own. Does not reject. */
  grow(clients: number): Promise<void>;
  /** Statements that clean a client after statements of a user. One that keeps its settings has the login's own after them. */
  cleaningOf(client: pg.ClientBase): readonly PreparedStatement[];
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
  /** False after a server or a pooler has refused start-up parameters. */
  #givesParameters: boolean;
  readonly #cleaning = new WeakMap<pg.ClientBase, readonly PreparedStatement[]>();
  readonly #onFull: (sessions: number) => void;
  /** Number of sessions that it may have when Postgres gives them. */
  #wanted: number;
  #growAgain: NodeJS.Timeout | undefined;
  /** Sessions that are ready. The pool also removes one that was lost before it was. */
  readonly #open = new Set<pg.ClientBase>();

  /**
   * @param options.keepsSettings false behind a transaction pooler, where session settings are lost and each
   * transaction sets its own
   */
  constructor(address: DatabaseAddress, options: ClientPoolOptions & { readonly keepsSettings: boolean }) {
    this.#address = address;
    this.#onFull = options.onFull;
    this.#wanted = options.max;
    this.#givesParameters = options.keepsSettings;
    const givesParameters = () => this.#givesParameters;
    class HostClient extends pg.Client {
      // A member that the types of the driver omit.
      declare readonly connectionParameters: { options?: string };

      constructor() {
        super({ ...address.hosts[address.next], types: programTypes });
        withoutProgramDefaults(this);
        const { connectionParameters: given } = this;
        // Behind those of the address or of PGOPTIONS.
        if (givesParameters()) given.options = `${given.options ?? ""} ${poolParameters}`;
        // The pool listens only while a client is idle; without a listener a lost session would end the process. Its statements fail.
        this.on("error", () => undefined);
      }
    }
    this.localSettingsSql = options.keepsSettings ? undefined : localSettingsSql(options);
    // First as RESET ALL leaves them, also in a session that another client of a pooler had.
    const settingsSql =
      this.localSettingsSql ??
      ["RESET ALL", endLimitsSql, readKeptSql, sessionSettingsSql(options), readKeptSql].join("; ");
    this.#pool = new pg.Pool({
      ...address.hosts[0],
      max: options.max,
      Client: HostClient,
      // The pool waits for the promise, and reports its rejection as a failure to connect.
      onConnect: async (client) => {
        const facts = await prepareSession(client, settingsSql);
        const [atStart, made] = facts.kept;
        if (atStart !== undefined) this.#cleaning.set(client, cleaningWith(settingsToRestore(atStart, made!)));
        refuseUnwanted(facts, address.sessionAttributes, client as pg.Client);
        await options.check(client);
      },
    });
    this.#pool.on("error", options.onIdleError);
    this.#pool.on("connect", (client) => void this.#open.add(client));
    this.#pool.on("remove", (client) => {
      this.#open.delete(client);
      options.onClosed(this.#pool.totalCount);
    });
  }

  get max(): number {
    return this.#pool.options.max;
  }

  set max(sessions: number) {
    this.#wanted = sessions;
    this.#pool.options.max = sessions;
  }

  async grow(sessions: number): Promise<void> {
    this.max += Math.max(0, sessions);
    const opened = Array.from({ length: Math.max(0, sessions) }, async () => (await this.connect()).release());
    await Promise.allSettled(opened);
  }

  get isShort(): boolean {
    return this.#pool.waitingCount > this.#pool.idleCount;
  }

  get unopened(): number {
    return this.max - this.#open.size;
  }

  /**
   * Returns a free session or a new one.
   *
   * @param fits preference between the last two used free sessions
   * @throws as {@link openSession}
   */
  async connect(fits: (client: pg.ClientBase) => boolean = () => true): Promise<pg.PoolClient> {
    const open = () => firstSuitableHost(this.#address, () => this.#pool.connect());
    const take = () =>
      open().catch((error) => {
        if (!this.#isFull(error)) throw error;
        const freed = open();
        // All may be in use by handlers that wait for this one.
        return inTime(
          databaseConnectTimeoutMs,
          () => error,
          (over) => {
            over.addEventListener("abort", () => void freed.then((client) => client.release(), ignored));
            return freed;
          },
        );
      });
    const connect = () => {
      const gaveParameters = this.#givesParameters;
      return take().catch((error) => {
        if (!gaveParameters || !isRefusedParameter(error)) throw error;
        this.#givesParameters = false;
        return take();
      });
    };
    const client = await connect();
    if (fits(client) || this.#pool.idleCount === 0) return client;
    return await connect().finally(() => client.release());
  }

  /** Has as many sessions as Postgres gives, if it gives no more: who wants one waits for them. @returns false if that is not the error */
  #isFull(error: unknown): boolean {
    const { totalCount } = this.#pool;
    if (!isServerError(error) || error.code !== tooManyConnections || totalCount === 0) return false;
    if (this.#growAgain === undefined) {
      this.#onFull(totalCount);
      this.#growAgain = setTimeout(() => {
        this.#growAgain = undefined;
        this.#pool.options.max = this.#wanted;
      }, growAgainMs).unref();
    }
    this.#pool.options.max = totalCount;
    return true;
  }

  cleaningOf(client: pg.ClientBase): readonly PreparedStatement[] {
    return this.#cleaning.get(client) ?? cleaning;
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  /** Closes all sessions after their running statements. */
  end(): Promise<void> {
    return this.#pool.end();
  }
}
