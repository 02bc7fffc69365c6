/**
 * Data that several checks use, and the read-only session with short timeouts that reads it. Each item is read once.
 */
import type pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { DatabaseAddress, type OpenSession, openSession } from "../../foundation/postgres/index.js";
import { type Fault, faultsOf, inspect, type State } from "../installation/index.js";
import type { Finding } from "./examine.js";

/** Time limit of connecting to Postgres. */
export const connectMs = 5_000;
/** Time limit of a statement: less than that of a check, so that Postgres names what it waited for. */
const statementMs = 4_000;

/** Connection settings of an examination. */
export interface DoctorOptions {
  /** URL of the database; without it, the PG* variables apply. */
  readonly databaseUrl?: string | undefined;
  /** URL of the login that runs subscribed functions, if `hawser serve` is given one. */
  readonly executorUrl?: string | undefined;
  /** Directories that may contain the files named by options of the NATS server. */
  readonly secretsDirectories: readonly string[];
}

/** Address at which Postgres tries to reach a gateway. */
export interface GatewayRow {
  readonly host: string;
  readonly port: number;
  /** True if a gateway registered the address and refreshes it. */
  readonly isKept: boolean;
  readonly ageSeconds: number;
  /**
   * True if the last refresh is older than a running gateway allows. Always false on a standby, whose rows may be old.
   */
  readonly isStale: boolean;
  /**
   * NATS server that the process of the gateway is connected to, as the option `host` names it; null if it is not
   * connected.
   */
  readonly natsServer: string | null;
  /** Identifier of that NATS server. */
  readonly natsServerId: string | null;
}

const gatewaysSql = `
  SELECT g.host, g.port, g.owner <> '' AS "isKept", extract(epoch FROM clock_timestamp() - g.seen_at)::float8 AS "ageSeconds",
         g.owner <> '' AND NOT pg_is_in_recovery() AND g.seen_at < clock_timestamp() - $1 * interval '1 ms' AS "isStale",
         g.nats_server AS "natsServer", g.nats_server_id AS "natsServerId"
    FROM ${tables.gateway} AS g ORDER BY g.seen_at DESC, g.host, g.port`;

const mayReadSql = `
  SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS may
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`;

/** Reads each fact once. A failed read fails for all checks that use the fact. */
export class Facts {
  readonly address: DatabaseAddress;
  readonly #known = new Map<string, Promise<unknown>>();
  #client: pg.Client | undefined;

  constructor(readonly options: DoctorOptions) {
    this.address = DatabaseAddress.of(options.databaseUrl);
  }

  /** Session of the examination, which the first check opens and all others need. */
  get client(): pg.Client {
    if (this.#client === undefined) throw new Error("the database was not reached");
    return this.#client;
  }

  set client(client: pg.Client) {
    this.#client = client;
  }

  [Symbol.dispose](): void {
    if (this.#client !== undefined) close(this.#client);
  }

  async rows<Row extends object>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return (await this.client.query<Row>(text, [...values])).rows;
  }

  /** State of the installation. */
  state(): Promise<State> {
    return this.once("state", () => inspect(this.client));
  }

  /** Faults of the installation that belong to a check. */
  async findings(check: string): Promise<Finding[]> {
    return faultsOf(await this.state())
      .filter((fault) => fault.check === check)
      .map(findingOf);
  }

  /** Addresses of gateways; undefined if this login may not read them. */
  gateways(): Promise<GatewayRow[] | undefined> {
    return this.once("gateways", async () => {
      if (!(await this.mayRead(tables.gateway))) return undefined;
      return this.rows<GatewayRow>(gatewaysSql, [gatewayConstants.gatewayStaleMs]);
    });
  }

  /** Number of bound functions by kind; undefined if this login may not read them. */
  handlerCounts(): Promise<{ readonly subscriptions: number; readonly responders: number } | undefined> {
    return this.once("handlerCounts", async () => {
      if (!(await this.mayRead(tables.natsHandler))) return undefined;
      const [row] = await this.rows<{ subscriptions: number; responders: number }>(
        `SELECT count(*) FILTER (WHERE h.kind = 'subscription')::integer AS subscriptions,
                count(*) FILTER (WHERE h.kind = 'responder')::integer AS responders FROM ${tables.natsHandler} AS h`,
      );
      return row!;
    });
  }

  async mayRead(table: string): Promise<boolean> {
    // By the catalog: the name of a table in a schema that the login may not use is an error.
    const [row] = await this.rows<{ may: boolean }>(mayReadSql, table.split("."));
    return row?.may ?? false;
  }

  /** Result of `read`, which runs once for each name. */
  once<T>(name: string, read: () => Promise<T>): Promise<T> {
    const known = (this.#known.get(name) as Promise<T> | undefined) ?? read();
    this.#known.set(name, known);
    return known;
  }
}

/** Converts a fault of the installation to a finding, for readers who may not have installed Hawser. */
export function findingOf({ kind, severity, code, what, meaning, isPlain, remedy }: Fault): Finding {
  return {
    severity: severity ?? (kind === "risk" ? "warning" : "error"),
    code,
    what: meaning === undefined || isPlain ? what : `${what}: ${meaning}`,
    remedy: `${remedy.charAt(0).toUpperCase()}${remedy.slice(1)}`,
  };
}

/**
 * Connects to Postgres.
 *
 * @param signal closes the session at once, even if Postgres does not answer
 * @throws as `openSession`
 */
export async function open(address: DatabaseAddress, signal: AbortSignal): Promise<OpenSession> {
  return openSession(address, {
    applicationName: "hawser doctor",
    connectTimeoutMs: connectMs,
    statementTimeoutMs: statementMs,
    readOnly: true,
    onClient: (opening) => {
      if (signal.aborted) close(opening);
      signal.addEventListener("abort", () => close(opening), { once: true });
    },
  });
}

/** Closes the session at once, even if Postgres does not answer. */
export function close(client: pg.Client): void {
  client.connection.stream.destroy();
}
