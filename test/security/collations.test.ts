/**
 * A function that runs with its owner's rights takes no collation by which different texts are equal: a role could make one, and take
 * the names of others for its own.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorsOf } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());

const allEqual =
  "CREATE COLLATION pg_temp.all_equal (provider = icu, locale = 'und-u-ks-level1', deterministic = false)";

interface Definer {
  readonly name: string;
  readonly types: readonly string[];
}

/** Functions with their owner's rights that take texts, and that other roles may call. */
const definers = async (): Promise<Definer[]> => {
  const rows = await rowsOf(
    database.url,
    `SELECT p.proname AS name, ARRAY(SELECT format_type(t.oid, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (oid, nth) ORDER BY t.nth) AS types
       FROM pg_proc AS p
      WHERE p.pronamespace = 'hawser'::regnamespace AND p.prosecdef AND 'text'::regtype = ANY (p.proargtypes)
        AND EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = ANY ('{hawser_peer,hawser_nats,hawser_bridge,hawser_viewer}')
                       AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
      ORDER BY 1, 2`,
  );
  return rows as unknown as Definer[];
};

describe("a function with its owner's rights", () => {
  it("refuses a collation by which different texts are equal, whichever argument has it", async () => {
    const found = await definers();
    expect(found.length).toBeGreaterThan(30);
    const calls = found.map(({ name, types }) => {
      const given = types.map((type) => (type === "text" ? "'a' COLLATE pg_temp.all_equal" : `NULL::${type}`));
      return `SELECT FROM hawser.${name}(${given.join(", ")})`;
    });
    const [made, ...errors] = await errorsOf(database.url, [allEqual, ...calls]);
    expect(made).toBeUndefined();
    for (const [nth, call] of calls.entries()) {
      // A pattern cannot be matched by such a collation, either.
      expect(errors[nth]?.message, call).toMatch(
        /must have a deterministic one|nondeterministic collations are not supported|needs a value/,
      );
    }
  });

  it("takes any other", async () => {
    expect(await rowsOf(database.url, `SELECT hawser.unschedule('none' COLLATE "C") AS ended`)).toEqual([
      { ended: false },
    ]);
  });
});

/** Ranges of numbers have bounds, not letters. */
const bounds = /\b(?:lower|upper)\((?:r\.one|p_done)\)/g;

it("no SQL of Hawser changes the case of letters by the locale of the database: Turkish has another small I", () => {
  const folders = [
    "generated/ts/sql",
    "codegen/message-sql",
    "codegen/sql",
    "src/jobs-and-peers/store",
    "src/operating/installation",
  ];
  const files = folders.flatMap((folder) =>
    readdirSync(folder)
      .filter((file) => file.endsWith(".ts"))
      .map((file) => join(folder, file)),
  );
  const lines = files.flatMap((file) => readFileSync(file, "utf8").replaceAll(bounds, "").split("\n"));
  const folding = lines.filter((line) => /(?<![\w.])(?:pg_catalog\.)?(?:lower|upper|initcap)\(/.test(line));
  expect(folding.length).toBeGreaterThan(10);
  expect(folding.filter((line) => !line.includes('COLLATE "C"'))).toEqual([]);
});
