/**
 * Which regular expressions a rule may use, and that those mean the same in JavaScript and in Postgres.
 */
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { patternLiteral } from "../../codegen/print.js";
import { sqlString } from "../../codegen/sql/literal.js";
import { patternProblem } from "../../src/typed/pattern.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

const good = [
  "^$",
  "^a$",
  "^a/b$",
  "^[a-z]+$",
  "^[^:\\u0001-\\u001f]*$",
  "^(?:[A-Z]{2}-)?[0-9]{1,5}$",
  "^(a|b(c|d)*|)x?$",
  "^\\^\\$\\\\\\.\\*\\+\\?\\(\\)\\[\\]\\{\\}\\|\\/$",
  "^[\\]\\\\\\^\\-x]{0,255}$",
  "^[a-c-]+$",
  "^'\"[`]?$",
  "^[ä-ü€]+$",
];

describe("patternProblem", () => {
  it.each(good)("takes %s", (pattern) => {
    expect(patternProblem(pattern)).toBeUndefined();
  });

  it.each([
    ["a$", "must begin with ^ and end with $, so that it stands for the whole string"],
    ["^a", "must begin with ^ and end with $, so that it stands for the whole string"],
    ["^", "must begin with ^ and end with $, so that it stands for the whole string"],
    ["^a|b$", 'has "|" where'],
    ["^.$", 'has "." where'],
    ["^\\d$", 'has "\\d" where'],
    ["^\\w+$", 'has "\\w" where'],
    ["^[\\s]$", 'has "\\s" where'],
    ["^[[:alpha:]]$", 'has "[" where'],
    ["^a+?$", 'has "?" where'],
    ["^a**$", 'has "*" where'],
    ["^(?=a)$", 'has "?" where'],
    ["^(a)\\1$", 'has "\\1" where'],
    ["^(a$", "has a group that is not closed"],
    ["^a)$", 'has ")" where'],
    ["^[a$", "has a character class that is not closed"],
    ["^[]$", "has an empty character class"],
    ["^[^]$", "has an empty character class"],
    ["^a{256}$", "repeats more than 255 times"],
    ["^a{1,999}$", "repeats more than 255 times"],
    ["^a{2,1}$", "is not a regular expression"],
    ["^[b-a]$", "is not a regular expression"],
    ["^\\u0000$", "has \\u0000, which no text in Postgres can hold"],
    ["^\\ud83d$", "has \\ud83d, which no text in Postgres can hold"],
    ["^\\$", 'has "\\" where'],
  ])("refuses %s", (pattern, problem) => {
    expect(patternProblem(pattern)).toContain(problem);
  });
});

describe("a pattern that is taken", () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeAll(async () => {
    database = await testDatabase({ migrated: false });
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
  });

  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  it.each(good)("means the same in JavaScript and Postgres: %s", async (pattern) => {
    // biome-ignore lint/security/noGlobalEval: the literal as it stands in generated files is what is tested
    const expression: RegExp = eval(patternLiteral(pattern));
    const near = fc.stringMatching(expression, { size: "-1" });
    const characters = fc.constantFrom(
      "a",
      "b",
      "c",
      "x",
      "-",
      "]",
      "\\",
      "^",
      "/",
      "ä",
      "€",
      "😀",
      "\n",
      "0",
      "A",
      "'",
    );
    const text = fc.oneof(
      near,
      fc.array(characters, { maxLength: 6 }).map((all) => all.join("")),
      fc.string(),
    );
    const texts = fc.sample(text, 300).filter((one) => !/[\0\p{Cs}]/u.test(one));
    const { rows } = await client.query(
      `SELECT v ~ ${sqlString(pattern)} AS good FROM unnest($1::text[]) WITH ORDINALITY AS t (v, nth) ORDER BY nth`,
      [texts],
    );
    expect(texts.map((one) => expression.test(one))).toEqual(rows.map((row) => row.good));
  });
});
