/**
 * Calls of every function in one database, seen by a witness: in which places SQL calls them, and in which sessions.
 */
import type pg from "pg";
import { expect } from "vitest";
import type { TestGateway } from "../../support/gateway.js";
import { byPosition, callEveryFunction, prepareSamples, type SampleCall } from "./every-function.js";
import { Witness } from "./witness.js";

/** Runs the SQL of a sample call. */
export type Run = (sql: string, call: SampleCall) => Promise<Record<string, unknown>[]>;

/** Calls every function with a witness that sees the messages below the word. */
export async function everyFunction(
  gateway: TestGateway,
  word: string,
  run: Run = async (sql) => (await gateway.client.query(sql)).rows,
  write = byPosition,
): Promise<Witness> {
  const witness = await Witness.open(gateway.nats, `${word}.>`);
  await prepareSamples(witness, word);
  await callEveryFunction(word, witness, run, write);
  return witness;
}

/** Runs a statement in a serializable, read-only, deferrable transaction, below savepoints, that goes on after errors. */
export async function inTransaction(gateway: TestGateway, sql: string): Promise<Record<string, unknown>[]> {
  const { client } = gateway;
  const failing = async () => {
    await client.query("SAVEPOINT a");
    expect(await gateway.errorOf("SELECT nats_publish_text('no good', 'x')")).toMatchObject({ code: "22023" });
    await client.query("ROLLBACK TO SAVEPOINT a");
  };
  await client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; SAVEPOINT outermost");
  await failing();
  const { rows } = await client.query(sql);
  await client.query("RELEASE SAVEPOINT outermost");
  await failing();
  await client.query("COMMIT");
  return rows;
}

/** Names, values and sources of all settings. */
async function settingsOf(session: pg.Client): Promise<Record<string, unknown>[]> {
  const sql =
    'SELECT s.name, s.setting, s.source FROM pg_catalog.pg_settings AS s ORDER BY s.name COLLATE pg_catalog."C"';
  return (await session.query(sql)).rows;
}

/** A sample call whose types no other object can take the place of. */
function qualified(sql: string): string {
  return sql.replace(/::(text|json|jsonb|bytea)\b/g, "::pg_catalog.$1");
}

/** Every function does its work in a session that statements have set up, and leaves its settings alone. */
export async function everyFunctionIn(
  gateway: TestGateway,
  word: string,
  statements: readonly string[],
): Promise<void> {
  const session = await gateway.connect();
  try {
    for (const statement of statements) {
      // The name before Postgres 16.
      const older = statement.replace("debug_parallel_query", "force_parallel_mode");
      await session.query(statement).catch(() => session.query(older));
    }
    // So that those of PL/pgSQL are there.
    await session.query("DO 'BEGIN END'");
    const before = await settingsOf(session);
    await everyFunction(gateway, word, async (sql) => (await session.query(qualified(sql))).rows);
    expect(await settingsOf(session)).toEqual(before);
  } finally {
    await session.end();
  }
}
