/**
 * What several checks have to know, each of it read once, and the session in which that is done: it reads, waits for nothing
 * long, and changes nothing.
 */
import type pg from "pg";
import { tables } from "../../generated/ts/rows/nats.js";
import { doctorConstants, gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type Fault, faultsOf, inspect, type State } from "../installation/index.js";
import { DatabaseAddress, type OpenSession, openSession } from "../postgres/index.js";
import type { Finding } from "./examine.js";

/** How to examine. */
export interface DoctorOptions {
  /** The database; without it the PG* variables are used. */
  readonly databaseUrl?: string | undefined;
  /** The login that runs subscribed functions, where `hawser serve` is given one. */
  readonly executorUrl?: string | undefined;
  /** Below which directories the files may be that options of the NATS server name. */
  readonly secretsDirectories: readonly string[];
}

/** An address at which Postgres tries to reach a gateway. */
export interface GatewayRow {
  readonly host: string;
  readonly port: number;
  /** Entered by a gateway, which tells that it is there. */
  readonly isKept: boolean;
  readonly ageSeconds: number;
  /** Its gateway was not there for longer than one that runs ever is. What a replica has may be old. */
  readonly isStale: boolean;
  /** The NATS server that its process receives subscriptions from, as option `host` names it; null: it is not connected. */
  readonly natsServer: string | null;
  /** What this server calls itself. */
  readonly natsServerId: string | null;
}

const gatewaysSql = `
  SELECT g.host, g.port, g.owner <> '' AS "isKept", extract(epoch FROM clock_timestamp() - g.seen_at)::float8 AS "ageSeconds",
         g.owner <> '' AND NOT pg_is_in_recovery() AND g.seen_at < clock_timestamp() - $1 * interval '1 ms' AS "isStale",
         g.nats_server AS "natsServer", g.nats_server_id AS "natsServerId"
    FROM ${tables.gateway} AS g ORDER BY g.seen_at DESC, g.host, g.port`;

/** Reads each of it once. What fails for one check fails for all that ask for it. */
export class Facts {
  readonly address: DatabaseAddress;
  readonly #known = new Map<string, Promise<unknown>>();
  #client: pg.Client | undefined;

  constructor(readonly options: DoctorOptions) {
    this.address = DatabaseAddress.of(options.databaseUrl);
  }

  /** The session of the examination; every check but the first needs the one that opens it. */
  get client(): pg.Client {
    if (this.#client === undefined) throw new Error("the database was not reached");
    return this.#client;
  }

  set client(client: pg.Client) {
    this.#client = client;
  }

  /** Ends the session. */
  [Symbol.dispose](): void {
    if (this.#client !== undefined) close(this.#client);
  }

  async rows<Row extends object>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return (await this.client.query<Row>(text, [...values])).rows;
  }

  /** What is installed. */
  state(): Promise<State> {
    return this.once("state", () => inspect(this.client));
  }

  /** What of that is not as it should be, as far as a check reports it. */
  async findings(check: string): Promise<Finding[]> {
    return faultsOf(await this.state())
      .filter((fault) => fault.check === check)
      .map(findingOf);
  }

  /** Undefined if this login may not read them. */
  gateways(): Promise<GatewayRow[] | undefined> {
    return this.once("gateways", async () => {
      if (!(await this.mayRead(tables.gateway))) return undefined;
      return this.rows<GatewayRow>(gatewaysSql, [gatewayConstants.gatewayStaleMs]);
    });
  }

  /** How many functions NATS reaches, by their kind; undefined if this login may not read them. */
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
    const [row] = await this.rows<{ may: boolean }>("SELECT has_table_privilege($1, 'SELECT') AS may", [table]);
    return row!.may;
  }

  /** The result of `read`, which runs once for each name. */
  once<T>(name: string, read: () => Promise<T>): Promise<T> {
    const known = (this.#known.get(name) as Promise<T> | undefined) ?? read();
    this.#known.set(name, known);
    return known;
  }
}

/** A fault of the installation, for people who may not have installed it. */
export function findingOf({ kind, severity, code, what, meaning, isPlain, remedy }: Fault): Finding {
  return {
    severity: severity ?? (kind === "risk" ? "warning" : "error"),
    code,
    what: meaning === undefined || isPlain ? what : `${what}: ${meaning}`,
    remedy: `${remedy.charAt(0).toUpperCase()}${remedy.slice(1)}`,
  };
}

/**
 * Connects.
 *
 * @param signal ends it at once, also where Postgres does not answer
 * @throws as `openSession`
 */
export async function open(address: DatabaseAddress, signal: AbortSignal): Promise<OpenSession> {
  return openSession(address, {
    applicationName: "hawser doctor",
    connectTimeoutMs: doctorConstants.connectMs,
    statementTimeoutMs: doctorConstants.statementMs,
    readOnly: true,
    onClient: (opening) => {
      if (signal.aborted) close(opening);
      signal.addEventListener("abort", () => close(opening), { once: true });
    },
  });
}

/** Ends it at once, also where Postgres does not answer. */
export function close(client: pg.Client): void {
  client.connection.stream.destroy();
}
