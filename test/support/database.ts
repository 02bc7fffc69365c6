/**
 * Databases for tests: each test file works in one of its own, so that files can run side by side.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { onServer } from "./on-server.js";

/** A database of the test's own. */
export interface TestDatabase extends AsyncDisposable {
  /** For a `pg.Client` of the test, as superuser. */
  readonly url: string;
  readonly name: string;
  /** Drops it, ending the sessions that are still open. */
  drop(): Promise<void>;
}

/** Contents of a test's database. */
export interface TestDatabaseOptions {
  /** False: nothing at all. Default true: what `hawser init` makes. */
  readonly migrated?: boolean;
  /** False: only what `hawser init --no-nats` makes. Default true. */
  readonly nats?: boolean;
}

/**
 * Makes a database: by default a copy of the template, which holds everything that `hawser init` makes (some 30 ms).
 *
 *     const database = await testDatabase();
 *     afterAll(() => database.drop());
 */
export async function testDatabase({ migrated = true, nats = true }: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const server = testServerUrl();
  const template = migrated ? setting(nats ? "HAWSER_TEST_TEMPLATE" : "HAWSER_TEST_PEERS_TEMPLATE") : "template0";
  const copy = process.env["HAWSER_TEST_COPY_DATABASE"] ?? "";
  const id = randomBytes(6).toString("hex");
  const name = `hawser_test_${id}`;
  await serverPool().query(`CREATE DATABASE ${name} TEMPLATE ${template} ENCODING 'UTF8' ${copy}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  // As it is since Postgres 15; before, an installation rightly warns of it.
  if (!migrated) await onServer(url.href, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
  // Roles belong to the whole server: no test is to change the login of another one's functions.
  const executor = `hawser_executor_${id}`;
  if (migrated) await onServer(url.href, nameExecutorSql, ...(nats ? [makeExecutorSql] : []));
  const drop = async () => {
    await serverPool().query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await serverPool().query(`DROP ROLE IF EXISTS ${executor}`);
  };
  return { url: url.href, name, drop, [Symbol.asyncDispose]: drop };
}

let pool: pg.Pool | undefined;

/** Connections to the server's database `postgres`, which the files of a worker share. */
function serverPool(): pg.Pool {
  if (pool !== undefined) return pool;
  pool = new pg.Pool({ connectionString: testServerUrl(), max: 2, allowExitOnIdle: true });
  // An idle one ends with the server; the next query tells.
  pool.on("error", () => undefined);
  return pool;
}

/** Gives the login of a test's functions a name of its own, by which it is dropped with the database. */
const nameExecutorSql =
  "UPDATE hawser_bridge_data.executor_login SET user_name = replace(current_database(), 'hawser_test', 'hawser_executor')";

/** As the installation makes it, whose own way (a verifier made in PL/pgSQL) takes longer than copying the database. */
const makeExecutorSql = `DO $$
DECLARE
  login record;
BEGIN
  SELECT user_name, password INTO login FROM hawser_bridge_data.executor_login;
  EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE hawser_executor', login.user_name, login.password);
  EXECUTE format('GRANT %I TO hawser_bridge', login.user_name);
END
$$`;

/** The URL of the Postgres of this run, as superuser, with its database `postgres`. */
export function testServerUrl(): string {
  return setting("HAWSER_TEST_DATABASE_URL");
}

/** The URL of the nats-server of this run. */
export function testNatsUrl(): string {
  return setting("HAWSER_TEST_NATS_URL");
}

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set. Run the tests by \`npm test\`, whose set-up sets it.`);
  return value;
}
