/**
 * The generated error table, in TypeScript and in SQL.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorByWireCode, errorTable, isErrorCodeName } from "../../generated/ts/errors/errors.js";
import { errorsFunctionsSql, errorsGrantsSql } from "../../generated/ts/sql/errors-schema.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

describe("the error table in TypeScript", () => {
  it("finds an error by its code and by its number in frames", () => {
    expect(errorTable.wrong_peer).toMatchObject({
      code: "wrong_peer",
      wireCode: 15,
      sqlstate: "08004",
      retryable: true,
    });
    expect(errorByWireCode(15)).toBe(errorTable.wrong_peer);
  });

  it("knows no other numbers and codes", () => {
    expect(errorByWireCode(0)).toBeUndefined();
    expect(errorByWireCode(65_535)).toBeUndefined();
    expect(isErrorCodeName("busy")).toBe(true);
    expect(isErrorCodeName("toString")).toBe(false);
  });

  it("has liner's numbers from 1 to 11", () => {
    const first = Object.values(errorTable).slice(0, 11);
    expect(first.map(({ code, wireCode }) => [wireCode, code])).toEqual([
      [1, "not_running"],
      [2, "already_running"],
      [3, "self_topic"],
      [4, "internal_topic"],
      [5, "no_listener"],
      [6, "bind_failed"],
      [7, "store_failed"],
      [8, "invalid_argument"],
      [9, "clear_while_running"],
      [10, "startup_failed"],
      [11, "busy"],
    ]);
  });
});

describe("the error table in SQL", () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeAll(async () => {
    database = await testDatabase({ migrated: false });
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(errorsFunctionsSql);
    await client.query(errorsGrantsSql);
  });

  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  it("says the same", async () => {
    const { rows } = await client.query("SELECT * FROM hawser.error_codes() ORDER BY wire_code");
    expect(rows).toEqual(
      Object.values(errorTable).map(({ wireCode, exitStatus, ...rest }) => ({
        ...rest,
        wire_code: wireCode,
        exit_status: exitStatus,
      })),
    );
  });

  it("gives the SQLSTATE for RAISE, and NULL for an unknown code", async () => {
    const { rows } = await client.query("SELECT hawser.error_sqlstate('busy') AS a, hawser.error_sqlstate('x') AS b");
    expect(rows).toEqual([{ a: errorTable.busy.sqlstate, b: null }]);
  });

  it("may be raised", async () => {
    const raise = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = hawser.error_sqlstate('name_in_use'); END $$";
    await expect(client.query(raise)).rejects.toMatchObject({ code: "55006" });
  });
});
