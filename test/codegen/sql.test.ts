/** The generator of SQL and Postgres itself: words that are no names, and rows that are too long for NOTIFY. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reservedWords } from "../../codegen/model/names.js";
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

describe("the generator", () => {
  it("knows every word that this Postgres does not take as a name without quotes", async () => {
    const { rows } = await client.query<{ word: string; catcode: string }>(
      "SELECT word, catcode FROM pg_get_keywords()",
    );
    const missing = (catcodes: string, known: ReadonlySet<string>) =>
      rows.filter(({ word, catcode }) => catcodes.includes(catcode) && !known.has(word)).map(({ word }) => word);
    expect(missing("RT", reservedWords)).toEqual([]);
    expect(rows.length).toBeGreaterThan(400);
  });

  it("lets in no row whose notification Postgres refuses", async () => {
    // As long as the rules permit, of characters that JSON escapes.
    const values = ['"'.repeat(255), "\u0001".repeat(512), "\\".repeat(255)];
    await client.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ($1, $2, $3)",
      values,
    );
  });
});
