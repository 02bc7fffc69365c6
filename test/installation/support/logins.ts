/**
 * Logins of a test's own, and what Postgres answers them.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { onServer, rowsOf } from "../../support/on-server.js";

/** A login. */
export interface Login {
  readonly role: string;
  readonly url: string;
}

/** Makes a login. It is dropped with everything it has in that database when it is disposed. */
export async function login(databaseUrl: string, options = ""): Promise<Login & AsyncDisposable> {
  const role = `test_login_${randomBytes(5).toString("hex")}`;
  await onServer(databaseUrl, `CREATE ROLE ${role} LOGIN PASSWORD 'test' ${options}`);
  return {
    role,
    url: as(role, databaseUrl),
    [Symbol.asyncDispose]: () => onServer(databaseUrl, `DROP OWNED BY ${role} CASCADE`, `DROP ROLE ${role}`),
  };
}

/** The database as a login sees it. */
function as(role: string, databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.username = role;
  url.password = "test";
  return url.href;
}

/** Runs statements in one session. Resolves with the error of Postgres; undefined if all succeed. */
export async function refusal(
  databaseUrl: string,
  ...statements: readonly string[]
): Promise<pg.DatabaseError | undefined> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
    return undefined;
  } catch (error) {
    if (error instanceof pg.DatabaseError) return error;
    throw error;
  } finally {
    await client.end();
  }
}

/** The SQLSTATE of that; "none" if there is none. */
export async function codeOf(databaseUrl: string, ...statements: readonly string[]): Promise<string> {
  return (await refusal(databaseUrl, ...statements))?.code ?? "none";
}

/**
 * Runs statements in one session, each in a transaction of its own, whatever became of those before. Resolves with the error of
 * each, and undefined where it succeeds.
 */
export async function errorsOf(
  databaseUrl: string,
  statements: readonly string[],
): Promise<(pg.DatabaseError | undefined)[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const errors: (pg.DatabaseError | undefined)[] = [];
    for (const statement of statements) {
      const outcome: unknown = await client.query(statement).catch((error: unknown) => error);
      if (outcome instanceof Error && !(outcome instanceof pg.DatabaseError)) throw outcome;
      errors.push(outcome instanceof pg.DatabaseError ? outcome : undefined);
    }
    return errors;
  } finally {
    await client.end();
  }
}

/** Runs statements as {@link errorsOf} does. Resolves with each statement and its SQLSTATE, or "none". */
export async function outcomesOf(databaseUrl: string, statements: readonly string[]): Promise<[string, string][]> {
  const errors = await errorsOf(databaseUrl, statements);
  return statements.map((statement, nth) => [statement, errors[nth]?.code ?? "none"]);
}

/** An address where nobody answers, as that of a gateway: whoever gets as far as to be refused there has used dblink. */
export async function deadGateway(databaseUrl: string): Promise<void> {
  await rowsOf(
    databaseUrl,
    "INSERT INTO hawser_bridge_data.gateways (host, port) VALUES ('127.0.0.1', 1) ON CONFLICT DO NOTHING",
  );
}
