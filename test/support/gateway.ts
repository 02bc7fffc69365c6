/**
 * SQL functions that reach a real NATS: a database of the test's own with everything that `hawser init` makes, and a
 * server that answers.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { type HawserServer, type ServeOptions, serve as startServer } from "../../src/serve/index.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "./database.js";
import { onServer } from "./on-server.js";

/** Options of a test's gateway. */
export interface TestGatewayOptions extends Omit<ServeOptions, "databaseUrl"> {
  /** The NATS server. Default: the one of the run, which is shared: use subjects, buckets and streams of your own. */
  readonly natsUrl?: string;
  /** Further options of the NATS server; `false`: define none. */
  readonly serverOptions?: Readonly<Record<string, string>> | false;
}

/** A database whose SQL functions work. */
export interface TestGateway extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly serve: HawserServer;
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

/** For calls that are to succeed, where NATS is there: the machine may have much other work. */
export const patience = { callTimeoutMs: 30_000, tuning: { natsWaitMs: 20_000 } } as const;

/**
 * Makes one.
 *
 *     await using gateway = await testGateway();
 *     await gateway.value("SELECT nats_publish_text('a', 'hello')");
 */
export async function testGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const {
    natsUrl = testNatsUrl(),
    serverOptions = {},
    callTimeoutMs = patience.callTimeoutMs,
    ...serveOptions
  } = options;
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
    const serve = await startServer({
      listen: "127.0.0.1:0",
      callTimeoutMs,
      ...serveOptions,
      databaseUrl: database.url,
    });
    undo.push(() => serve.stop());
    // Calls wait for a connection that is being made, but not for as long as that takes where the machine has much other work.
    if (serverOptions !== false) {
      await onServer(database.url, "SELECT litmus_pgnats_reload_conf()").catch(() => undefined);
    }
    return {
      database,
      serve,
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

/** Defines the NATS server of the database. */
export async function defineServer(
  client: pg.Client,
  natsUrl: string,
  options: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { hostname, port } = new URL(natsUrl);
  await client.query("SELECT hawser.set_nats_server($1)", [JSON.stringify({ host: hostname, port, ...options })]);
}
