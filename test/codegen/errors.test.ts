/** The generated error table in SQL, beside that in TypeScript. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

describe("the error table", () => {
  it("has the same errors in SQL and in TypeScript", async () => {
    const { rows } = await client.query("SELECT * FROM hawser.error_codes() ORDER BY wire_code");
    expect(rows).toEqual(
      Object.values(errorTable).map(({ wireCode, exitStatus, ...rest }) => ({
        ...rest,
        wire_code: wireCode,
        exit_status: exitStatus,
      })),
    );
  });

  it("has an SQLSTATE that RAISE takes, and NULL for an unknown code", async () => {
    const raise = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = hawser.error_sqlstate('name_in_use'); END $$";
    await expect(client.query(raise)).rejects.toMatchObject({ code: errorTable.name_in_use.sqlstate });
    const { rows } = await client.query("SELECT hawser.error_sqlstate('x') AS sqlstate");
    expect(rows).toEqual([{ sqlstate: null }]);
  });
});
