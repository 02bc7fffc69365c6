/**
 * A rule is written once and enforced twice: in TypeScript and as a CHECK. Both read the same table of values here, and
 * random ones, and must agree on each. (Rules that no table of the project has: shop.test.ts.)
 */

import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { columnChecks as auditChecks } from "../../generated/ts/rules/peer/audit.js";
import { columnChecks as catalogChecks } from "../../generated/ts/rules/peer/catalog.js";
import { peerSchemaSql } from "../../generated/ts/sql/peer-schema.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { tableNamed } from "../support/tables.js";
import { goodRows, type RuleCase, ruleCases } from "./rule-cases.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase({ migrated: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(peerSchemaSql);
});

afterAll(async () => {
  await client.end();
  await database.drop();
});

describe.each(ruleCases)("the rule of $table.$column", (one) => {
  const check = checkOf(one);

  it.each(one.good.map(named))("takes $shown on both sides", async ({ value }) => {
    expect(check(value)).toBeUndefined();
    expect(await insertError(one, value)).toBeUndefined();
  });

  it.each(one.bad.map(named))("refuses $shown on both sides", async ({ value }) => {
    expect(check(value)).toMatchObject({ path: one.column, rule: expect.stringMatching(/^must /) });
    // 22…: not a value of the type at all. 23514: a CHECK.
    expect(await insertError(one, value)).toMatch(/^(22...|23514)$/);
  });
});

describe("random text", () => {
  const strange = fc.constantFrom(
    ":",
    "\n",
    "\t",
    "\u0001",
    "\u001f",
    "\u007f",
    "\u0080",
    "ä",
    "€",
    "😀",
    "'",
    "\\",
    " ",
  );
  const text = fc.oneof(
    fc
      .array(fc.oneof(strange, fc.string({ unit: "binary", maxLength: 3 })), { maxLength: 300 })
      .map((all) => all.join("")),
    fc.string({ unit: "grapheme", maxLength: 300 }),
  );

  it("means the same on both sides in every text column", async () => {
    const { rows: columns } = await client.query(
      `SELECT table_name AS table, column_name AS column FROM information_schema.columns
       WHERE table_schema IN ('hawser_data', 'hawser_peer_data', 'hawser_bridge_data') AND data_type = 'text' ORDER BY 1, 2`,
    );
    expect(columns.length).toBeGreaterThan(20);
    for (const column of columns) {
      // Postgres has no text with NUL to judge.
      const texts = fc.sample(text, 300).map((value) => value.replaceAll("\0", ""));
      const inSql = await checkedBySql(column, texts);
      const differing = texts.filter((value, nth) => (checkOf(column)(value) === undefined) !== inSql[nth]);
      expect(differing, `${column.table}.${column.column}`).toEqual([]);
    }
  });
});

const columnChecks = { ...catalogChecks, ...auditChecks };

type ColumnName = Pick<RuleCase, "table" | "column">;

function checkOf({ table, column }: ColumnName): (value: unknown) => unknown {
  const check = (columnChecks[table] as unknown as Record<string, (value: unknown) => unknown>)[column];
  if (check === undefined) {
    throw new Error(`${table}.${column} has no check in TypeScript`);
  }
  return check;
}

/** Inserts a row with the value, rolls it back, and returns the SQLSTATE of the error, if any. */
async function insertError({ table, column }: ColumnName, value: unknown): Promise<string | undefined> {
  const row: Record<string, unknown> = { ...goodRows[table], [column]: value };
  const names = Object.keys(row);
  const places = names.map((_, position) => `$${position + 1}`);
  const values = Object.values(row).map((one) => (typeof one === "bigint" ? String(one) : one));
  await client.query("BEGIN");
  try {
    await client.query(`DELETE FROM ${tableNamed(table)}`);
    await client.query(`INSERT INTO ${tableNamed(table)} (${names.join(", ")}) VALUES (${places.join(", ")})`, values);
    return undefined;
  } catch (error) {
    return (error as pg.DatabaseError).code ?? String(error);
  } finally {
    await client.query("ROLLBACK");
  }
}

/** Evaluates the CHECKs of one column, as Postgres keeps them, for many values in one query. */
async function checkedBySql({ table, column }: ColumnName, values: readonly string[]): Promise<boolean[]> {
  const { rows: checks } = await client.query(
    `SELECT pg_get_expr(conbin, conrelid) AS condition FROM pg_constraint
     WHERE conrelid = $1::regclass AND contype = 'c' AND conkey = ARRAY[
       (SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = $2)]`,
    [tableNamed(table), column],
  );
  const conditions = checks.map(({ condition }) => `(${condition})`).join(" AND ") || "true";
  const { rows } = await client.query(
    `SELECT ${conditions} AS good FROM unnest($1::text[]) WITH ORDINALITY AS v (${column}, nth) ORDER BY nth`,
    [values],
  );
  return rows.map(({ good }) => good);
}

function named(value: unknown) {
  const text =
    typeof value === "string"
      ? JSON.stringify(value)
      : value instanceof Uint8Array
        ? `${value.length} bytes`
        : String(value);
  return { value, shown: text.length > 40 ? `${text.slice(0, 40)}… (${text.length})` : text };
}
