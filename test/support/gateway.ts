/**
 * SQL functions that reach a real NATS: a database of the test's own with everything that `hawser init` makes, and
 * `hawser serve`.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { type HawserServer, type ServeOptions, serve as startServer } from "../../src/nats/serve/index.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "./database.js";
import { onServer } from "./on-server.js";

/** NATS server of a database. */
interface NatsDatabaseOptions {
  /** The NATS server. Default: the one of the run, which is shared: use subjects, buckets and streams of your own. */
  readonly natsUrl?: string | undefined;
  /** Further options of the NATS server; `false`: define none. */
  readonly serverOptions?: Readonly<Record<string, string>> | false | undefined;
}

/** Options of a test's gateway. */
export interface TestGatewayOptions extends NatsDatabaseOptions, Omit<ServeOptions, "databaseUrl" | "executorUrl"> {
  /** As that of `serve`, or what makes it when the database is there. */
  readonly executorUrl?: string | ((database: TestDatabase) => Promise<string>);
}

/** A database with the SQL functions, for which nothing runs yet. */
export interface NatsDatabase extends AsyncDisposable {
  readonly database: TestDatabase;
  /** Connected to the database as superuser. */
  readonly client: pg.Client;
  /** A client of the NATS server that knows nothing of ours. */
  readonly nats: NatsConnection;
  /** The first column of the first row. */
  value<T = unknown>(sql: string, values?: unknown[]): Promise<T>;
  /** The error of a statement, which has to fail. */
  errorOf(sql: string, values?: unknown[]): Promise<pg.DatabaseError>;
  /** Another database session. The caller ends it. */
  connect(): Promise<pg.Client>;
}

/** A database whose SQL functions work. */
export interface TestGateway extends NatsDatabase {
  readonly serve: HawserServer;
}

/** For calls that are to succeed, where NATS is there: the machine may have much other work. */
export const patience = { callTimeoutMs: 30_000, tuning: { natsWaitMs: 20_000 } } as const;

/** Makes a database with the definition of its NATS server. */
export async function natsDatabase(options: NatsDatabaseOptions = {}): Promise<NatsDatabase> {
  const { natsUrl = testNatsUrl(), serverOptions = {} } = options;
  const undo: (() => Promise<unknown>)[] = [];
  const disposeAll = async () => {
    for (const one of undo.splice(0).reverse()) await one();
  };
  const open = async (database: TestDatabase) => {
    const client = new pg.Client(database.url);
    // Its next query reports it.
    client.on("error", () => undefined);
    await client.connect();
    return client;
  };
  try {
    const database = await testDatabase();
    undo.push(() => database.drop());
    const client = await open(database);
    undo.push(() => client.end());
    if (serverOptions !== false) await defineServer(client, natsUrl, serverOptions);
    const nats = await connect({ servers: natsUrl });
    undo.push(() => nats.close());
    return {
      database,
      client,
      nats,
      value: async (sql, values) => Object.values((await client.query(sql, values)).rows[0])[0] as never,
      errorOf: async (sql, values) => {
        const outcome: unknown = await client.query(sql, values).catch((error: unknown) => error);
        if (outcome instanceof pg.DatabaseError) return outcome;
        throw new Error(`${sql} did not fail with an error of Postgres`, { cause: outcome });
      },
      connect: () => open(database),
      [Symbol.asyncDispose]: disposeAll,
    };
  } catch (error) {
    await disposeAll();
    throw error;
  }
}

/**
 * Makes one, for which `hawser serve` runs.
 *
 *     await using gateway = await testGateway();
 *     await gateway.value("SELECT nats_publish_text('a', 'hello')");
 */
export async function testGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const { natsUrl, serverOptions, executorUrl, callTimeoutMs = patience.callTimeoutMs, ...serveOptions } = options;
  const made = await natsDatabase({ natsUrl, serverOptions });
  const { database } = made;
  try {
    const serve = await startServer({
      listen: "127.0.0.1:0",
      callTimeoutMs,
      ...serveOptions,
      executorUrl: typeof executorUrl === "function" ? await executorUrl(database) : executorUrl,
      databaseUrl: database.url,
    });
    // Calls wait for a connection that is being made, but not for as long as that takes where the machine has much other work.
    if (serverOptions !== false) {
      await onServer(database.url, "SELECT litmus_pgnats_reload_conf()").catch(() => undefined);
    }
    return {
      ...made,
      serve,
      [Symbol.asyncDispose]: async () => {
        await serve.stop();
        await made[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await made[Symbol.asyncDispose]();
    throw error;
  }
}

/** Defines the NATS server of the database. */
export async function defineServer(
  client: pg.Client,
  natsUrl: string,
  options: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { hostname, port } = new URL(natsUrl);
  await client.query("SELECT hawser.set_nats_server($1)", [JSON.stringify({ host: hostname, port, ...options })]);
}
