/**
 * What several checks have to know, each of it looked up once.
 */
import type pg from "pg";
import { tables } from "../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { DatabaseAddress } from "../postgres/index.js";
import { type Grant, grants, grantsIn } from "../store/grants.js";
import { functionsGrantsSql } from "../store/nats/function-text.js";
import { inspectNats, type NatsState } from "../store/nats/inspect.js";
import { dblinkMark, dblinkSchema, defaultFunctionsSchema, runSchema } from "../store/nats/objects.js";
import { askGateway, type GatewayAnswer } from "./gateway-call.js";
import { type NatsDefinition, readDefinition } from "./nats-definition.js";
import { close } from "./session.js";

/** How to examine. */
export interface DoctorOptions {
  /** The database; without it the PG* variables are used. */
  readonly databaseUrl?: string | undefined;
  /** The login that runs subscribed functions, where `hawser serve` is given one. */
  readonly executorUrl?: string | undefined;
  /** Below which directories the files may be that options of the NATS server name. */
  readonly secretsDirectories: readonly string[];
}

/** An address at which Postgres looks for a gateway. */
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

const intentSql = `
  SELECT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = $1)
      OR EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = $2 AND obj_description(n.oid, 'pg_namespace') = $3)
      OR EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'hawser' AND p.proname = 'gateway_call')
      AS wanted`;

const gatewaysSql = `
  SELECT g.host, g.port, g.owner <> '' AS "isKept", extract(epoch FROM clock_timestamp() - g.seen_at)::float8 AS "ageSeconds",
         g.owner <> '' AND NOT pg_is_in_recovery() AND g.seen_at < clock_timestamp() - $1 * interval '1 ms' AS "isStale",
         g.nats_server AS "natsServer", g.nats_server_id AS "natsServerId"
    FROM ${tables.gateway} AS g ORDER BY g.seen_at DESC, g.host, g.port`;

/** See above. What fails for one who asks fails for all. */
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

  /** NATS from SQL as the catalogs describe it. */
  natsState(): Promise<NatsState> {
    return this.#once("natsState", () => inspectNats(this.client, defaultFunctionsSchema));
  }

  /** Whether NATS from SQL was installed, or was to be; else the database is for peers alone. */
  wantsNats(): Promise<boolean> {
    return this.#once("wantsNats", async () => {
      const { functions, wrappers } = await this.natsState();
      if (functions.some(({ isOurs }) => isOurs) || wrappers.some(({ isOurs }) => isOurs)) return true;
      const [row] = await this.rows<{ wanted: boolean }>(intentSql, [runSchema, dblinkSchema, dblinkMark]);
      return row!.wanted;
    });
  }

  /** The schema of the SQL functions. */
  async functionsSchema(): Promise<string> {
    const { functions } = await this.natsState();
    return functions.find(({ isOurs }) => isOurs)?.schema ?? defaultFunctionsSchema;
  }

  /** What the roles of Hawser are to have. */
  async wantedGrants(): Promise<Grant[]> {
    if (!(await this.wantsNats())) return [...grants];
    const { dblink } = await this.natsState();
    const schema = await this.functionsSchema();
    return [...grants, ...grantsIn(functionsGrantsSql({ schema, dblinkSchema: dblink?.schema ?? dblinkSchema }))];
  }

  /** Undefined if this login may not read them. */
  gateways(): Promise<GatewayRow[] | undefined> {
    return this.#once("gateways", async () => {
      if (!(await this.mayRead(tables.gateway))) return undefined;
      return this.rows<GatewayRow>(gatewaysSql, [gatewayConstants.gatewayStaleMs]);
    });
  }

  /** How many functions NATS reaches, by their kind; undefined if this login may not read them. */
  handlerCounts(): Promise<{ readonly subscriptions: number; readonly responders: number } | undefined> {
    return this.#once("handlerCounts", async () => {
      if (!(await this.mayRead(tables.natsHandler))) return undefined;
      const [row] = await this.rows<{ subscriptions: number; responders: number }>(
        `SELECT count(*) FILTER (WHERE h.kind = 'subscription')::integer AS subscriptions,
                count(*) FILTER (WHERE h.kind = 'responder')::integer AS responders FROM ${tables.natsHandler} AS h`,
      );
      return row!;
    });
  }

  /** What the database says about the NATS server. */
  natsDefinition(): Promise<NatsDefinition> {
    return this.#once("natsDefinition", () => readDefinition(this));
  }

  /** What a call of a SQL function has brought, made by this login on a connection of its own. */
  gatewayAnswer(signal: AbortSignal): Promise<GatewayAnswer> {
    return this.#once("gatewayAnswer", () => askGateway(this, signal));
  }

  async mayRead(table: string): Promise<boolean> {
    const [row] = await this.rows<{ may: boolean }>("SELECT has_table_privilege($1, 'SELECT') AS may", [table]);
    return row!.may;
  }

  #once<T>(name: string, look: () => Promise<T>): Promise<T> {
    const known = (this.#known.get(name) as Promise<T> | undefined) ?? look();
    this.#known.set(name, known);
    return known;
  }
}
