/**
 * What Postgres says about NATS: which server it is, followed while it changes; and where Postgres finds this gateway.
 *
 * One database session. It hears of changes by NOTIFY, and looks from time to time besides: notifications can be missed, a
 * standby has none, and where the installing role may not make event triggers nobody else notices ALTER SERVER.
 */
import pg from "pg";
import { type CompleteNatsServerOptions, checkNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { notifyChannels } from "../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { GatewayError, HawserError } from "../errors/index.js";
import { connectionSettings, explainRefusal } from "../store/index.js";
import type { Logger } from "./protocol/index.js";

/** What Postgres proves itself with to the gateway, and for which database. */
export interface GatewayIdentity {
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** An address at which Postgres reaches a gateway, and how. */
export interface GatewayAddress {
  readonly host: string;
  readonly port: number;
  readonly sslmode: "disable" | "require" | "verify-ca" | "verify-full";
  /** On the machine of Postgres. */
  readonly rootCertificate: string | undefined;
}

/** A gateway that is entered in Postgres. */
export interface GatewayEntry {
  readonly host: string;
  readonly port: number;
  /** As Postgres writes it: tells an entry from a later one of the same address. */
  readonly startedAt: string;
}

/** How it is watched. */
export interface ServerWatchOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** The options, whenever they have changed; undefined if no server is defined. */
  onOptions(options: CompleteNatsServerOptions | undefined): void;
}

const sql = {
  standby: "SELECT pg_is_in_recovery() AS standby",
  listen: `LISTEN ${notifyChannels.natsServer}`,
  identity: `SELECT current_database() AS database, s.user_name AS "user", s.password FROM hawser.gateway_secret AS s`,
  follow: "SELECT hawser.follow_nats_server()",
  // Postgres shows a user mapping to its own role only if that one may use the server.
  options: `SELECT s.options, f.mapping, CASE WHEN EXISTS (
      SELECT FROM pg_user_mappings AS m
      WHERE m.srvname = f.server_name AND m.usename = current_user AND m.umoptions IS NULL
        AND NOT has_server_privilege(m.srvid, 'USAGE')
    ) THEN format('GRANT USAGE ON FOREIGN SERVER %I TO %I', f.server_name, current_user) END AS grant_needed
    FROM hawser.nats_server AS s
    LEFT JOIN hawser.nats_foreign_servers() AS f ON f.server_name = s.server_name`,
  // A standby cannot change what it has, and the loopback addresses there are those of the primary.
  entries: `SELECT g.host, g.port, g.started_at::text AS "startedAt" FROM hawser.gateways AS g
    WHERE NOT pg_is_in_recovery()`,
  forget: "DELETE FROM hawser.gateways AS g WHERE g.host = $1 AND g.port = $2 AND g.started_at = $3",
  register: `INSERT INTO hawser.gateways (host, port, sslmode, root_certificate, started_at)
    VALUES ($1, $2, $3, $4, now())
    ON CONFLICT (host, port) DO UPDATE SET
      sslmode = excluded.sslmode, root_certificate = excluded.root_certificate, started_at = excluded.started_at`,
  unregister: "DELETE FROM hawser.gateways AS g WHERE g.host = $1 AND g.port = $2",
} as const;

interface OptionsRow {
  readonly options: Record<string, unknown> | null;
  readonly mapping: Record<string, unknown> | null;
  /** What lets us read our user mapping, where there is one that we may not. */
  readonly grant_needed: string | null;
}

const { optionsPollMs } = gatewayConstants;

/** See above. */
export class ServerWatch {
  readonly #options: ServerWatchOptions;
  #client: pg.Client | undefined;
  #opening: Promise<pg.Client> | undefined;
  #identity: GatewayIdentity | undefined;
  #registered: GatewayAddress | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** When it fires, by `performance.now()`. */
  #dueAt = 0;
  #reading: Promise<unknown> = Promise.resolve();
  #isStopped = false;
  /** What was logged last, so that a lasting trouble is told once. */
  #trouble = "";

  private constructor(options: ServerWatchOptions) {
    this.#options = options;
  }

  /**
   * Connects and reads. A database that cannot be reached at first is an error; one that goes away later is waited for.
   *
   * @throws StoreError `store_failed`, `schema_missing`
   */
  static async open(options: ServerWatchOptions): Promise<ServerWatch> {
    const watch = new ServerWatch(options);
    try {
      await watch.#connected();
      await watch.#look();
    } catch (error) {
      await watch.stop();
      throw error;
    }
    return watch;
  }

  /** Who may ask the gateway. */
  get identity(): GatewayIdentity {
    return this.#identity!;
  }

  /**
   * Reads the definition now, and has told it when this resolves.
   *
   * @throws HawserError if Postgres cannot be asked, or the options are not right
   */
  async refresh(): Promise<void> {
    const reading = this.#reading.then(() => this.#read());
    this.#reading = reading.catch(() => undefined);
    await reading;
  }

  /** Lets Postgres find the gateway. On a standby the primary's table has to name it. */
  async register(address: GatewayAddress): Promise<void> {
    this.#registered = address;
    const client = await this.#connected();
    await this.#announce(client, address);
  }

  /** The gateways that Postgres knows, this one among them; none on a standby. */
  async entries(): Promise<GatewayEntry[]> {
    return (await (await this.#connected()).query<GatewayEntry>(sql.entries)).rows;
  }

  /** Takes a gateway that is gone out of the table, unless it has been started again since. */
  async forget({ host, port, startedAt }: GatewayEntry): Promise<void> {
    await (await this.#connected()).query(sql.forget, [host, port, startedAt]);
  }

  /** Takes the gateway out of the table, and ends. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    if (client === undefined) return;
    const { host, port } = this.#registered ?? {};
    if (host !== undefined) {
      await client.query({ text: sql.unregister, values: [host, port] }).catch((error: unknown) => {
        this.#options.logger.debug({ err: error }, "the gateway's address could not be taken out of the database");
      });
    }
    await client.end().catch(() => undefined);
  }

  #connected(): Promise<pg.Client> {
    if (this.#client !== undefined) return Promise.resolve(this.#client);
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  async #open(): Promise<pg.Client> {
    const client = new pg.Client({
      ...connectionSettings(this.#options.databaseUrl),
      application_name: "hawser serve",
      query_timeout: optionsPollMs * 2,
    });
    client.on("error", (error) => this.#options.logger.debug({ err: error }, "the session with Postgres failed"));
    client.on("end", () => this.#lose(client));
    client.on("notification", () => this.#lookSoon(0));
    try {
      await client.connect();
      await client.query("SET lock_timeout = '2s'; SET default_transaction_isolation = 'read committed'");
      const { rows } = await client.query<GatewayIdentity>(sql.identity);
      this.#identity = rows[0]!;
      if (!(await isStandby(client))) await client.query(sql.listen);
      if (this.#registered !== undefined) await this.#announce(client, this.#registered);
    } catch (cause) {
      const failure = await explainRefusal(client, "read what the database says about NATS", cause);
      await client.end().catch(() => undefined);
      throw failure;
    }
    if (this.#isStopped) {
      await client.end().catch(() => undefined);
      throw new GatewayError("aborted", "Hawser is being stopped");
    }
    this.#client = client;
    return client;
  }

  async #announce(client: pg.Client, { host, port, sslmode, rootCertificate }: GatewayAddress): Promise<void> {
    // Nothing comes between this and the query: an end that begins later takes the address out behind it.
    if ((await isStandby(client)) || this.#isStopped) return;
    await client.query(sql.register, [host, port, sslmode, rootCertificate ?? null]);
  }

  #lose(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#lookSoon(0);
  }

  /** Looks now and from then on; what goes wrong is logged, and the next look comes all the same. */
  async #look(): Promise<void> {
    try {
      await this.refresh();
      this.#trouble = "";
    } catch (error) {
      this.#report(error);
    }
    this.#lookSoon(optionsPollMs);
  }

  #lookSoon(waitMs: number): void {
    if (this.#isStopped) return;
    const dueAt = performance.now() + waitMs;
    // What a notification has asked for during a look is not put off by the end of that look.
    if (this.#timer !== undefined && this.#dueAt <= dueAt) return;
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#look();
    }, waitMs);
  }

  #report(error: unknown): void {
    if (this.#isStopped) return;
    const { message } = error as Error;
    const { detail, code } = HawserError.is(error) ? error : { detail: undefined, code: undefined };
    const level = message === this.#trouble ? "debug" : "warn";
    this.#trouble = message;
    this.#options.logger[level]({ code, detail, problem: message }, "what the database says about NATS cannot be used");
  }

  async #read(): Promise<void> {
    const client = await this.#connected();
    let rows: OptionsRow[];
    try {
      if (!(await isStandby(client))) await client.query(sql.follow);
      ({ rows } = await client.query<OptionsRow>(sql.options));
    } catch (cause) {
      throw await explainRefusal(client, "read which NATS server the database uses", cause);
    }
    const { options = null, mapping = null, grant_needed: grant = null } = rows[0] ?? {};
    if (grant !== null) {
      const message = "there is a user mapping for the login of `hawser serve`, which may not read it";
      throw new GatewayError("nats_not_configured", message, { hint: `${grant}, then reload.` });
    }
    this.#options.onOptions(options === null ? undefined : complete({ ...options, ...mapping }));
  }
}

async function isStandby(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ standby: boolean }>(sql.standby);
  return rows[0]!.standby;
}

/** @throws GatewayError if they are not right, as those of server and user mapping together may be */
function complete(options: Record<string, unknown>): CompleteNatsServerOptions {
  const result = checkNatsServerOptions(options);
  if (result.ok) return result.options;
  const { message, detail, hint } = result.violation;
  throw new GatewayError("nats_not_configured", `the options of the NATS server are not right: ${message}`, {
    detail,
    hint,
  });
}
