/**
 * Which regular expressions a rule may use, and that those mean the same in JavaScript and in Postgres.
 */
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { patternLiteral } from "../../codegen/print.js";
import { sqlString } from "../../codegen/sql/literal.js";
import { patternProblem } from "../../src/protobuf/typed/pattern.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";

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
  // The next character decides, or soon does.
  "^(a|ab)*$",
  "^[a-c]+(?:-[a-c]+)*$",
  "^[^x]+x[^x]+[.][a-c]{2,}$",
  "^[a-c]{1,40}[a-c0-9]{1,40}$",
  "^(?:😀|[😀-😂]x){0,255}$",
  "^[a-z]{1,63}(?:[.][a-z]{1,63}){0,70}$",
];

/** In too many ways, whatever the rest of the text. */
const slow: [pattern: string, problem: string][] = [
  ["^(?:a+)+$", 'can read "aaaaaaaa" in more than 100 ways'],
  ["^(a|a)*$", 'can read "aaaaaaa" in more than 100 ways'],
  ["^(?:a|[a-z])+x$", "in more than 100 ways"],
  ["^([a-z]+-?)*$", "in more than 100 ways"],
  ["^(?:aa|a)*$", "in more than 100 ways"],
  ["^(?:a{1,100}){1,100}$", "too complex"],
  ["^(?:[a-z]{1,9}){1,9}$", "in more than 100 ways"],
  ["^(?:(?:(?:[a-z]{1,255}-){255}){255}){255}$", "too complex"],
  ["^[a-z0-9_]*[0-9]*x$", 'can read "00000000000000000000…" in more than 100 ways'],
  ["^[0-9]+[a-z0-9]*[0-9]*$", "in more than 100 ways"],
  [
    `^(?:${[..."bcdefghijklmnopqr"].map((letter) => `a${letter}`).join("|")})+$`,
    'read "a" in 17 ways, for each further character',
  ],
  ["^[ab]*a[ab]{20}c$", "too complex"],
  ["^a?a?a?a?a?a?a?a?a?a?aaaaaaaaaa$", "in more than 100 ways"],
  ["^(?:a*)*$", "repeats a part that can be empty"],
  ["^(?:a?){3}$", "repeats a part that can be empty"],
  ["^(?:|a)+$", "repeats a part that can be empty"],
];

describe("patternProblem", () => {
  it.each(good)("takes %s", (pattern) => {
    expect(patternProblem(pattern)).toBeUndefined();
  });

  it.each([
    ["a$", "must begin with ^ and end with $, so that it matches the whole string"],
    ["^a", "must begin with ^ and end with $, so that it matches the whole string"],
    ["^", "must begin with ^ and end with $, so that it matches the whole string"],
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
    ["^\\u0000$", "has \\u0000, which Postgres cannot store in a text"],
    ["^\\ud83d$", "has \\ud83d, which Postgres cannot store in a text"],
    ["^\\$", 'has "\\" where'],
  ])("refuses %s", (pattern, problem) => {
    expect(patternProblem(pattern)).toContain(problem);
  });

  it.each(slow)("refuses %s, which can take very long", (pattern, problem) => {
    expect(patternProblem(pattern)).toContain(problem);
  });

  it("takes no pattern in which a matcher that tries everything reads a character in more than 100 ways", () => {
    let [taken, refused] = [0, 0];
    fc.assert(
      fc.property(tree, fc.array(fc.constantFrom("a", "b"), { maxLength: 40 }), (pattern, text) => {
        if (patternProblem(`^${textOf(pattern)}$`) !== undefined) {
          refused += 1;
          return;
        }
        taken += 1;
        expect(Math.max(0, ...waysOf(pattern, text))).toBeLessThanOrEqual(100);
      }),
      { numRuns: atDepth(2_000) },
    );
    expect(Math.min(taken, refused)).toBeGreaterThan(0);
  });
});

type Tree =
  | { readonly kind: "characters"; readonly of: string }
  | { readonly kind: "sequence" | "choice"; readonly parts: readonly Tree[] }
  | { readonly kind: "repeat"; readonly body: Tree; readonly min: number; readonly more: number | undefined };

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom("a", "b", "ab").map((of): Tree => ({ kind: "characters", of })),
    fc.record({
      kind: fc.constantFrom("sequence" as const, "choice" as const),
      parts: fc.array(tie("tree"), { minLength: 1, maxLength: 3 }),
    }),
    fc.record({
      kind: fc.constant("repeat" as const),
      body: tie("tree"),
      min: fc.nat(3),
      more: fc.option(fc.nat(4), { nil: undefined }),
    }),
  ),
}));

function textOf(node: Tree): string {
  switch (node.kind) {
    case "characters":
      return `[${node.of}]`;
    case "sequence":
      return `(?:${node.parts.map(textOf).join("")})`;
    case "choice":
      return `(?:${node.parts.map(textOf).join("|")})`;
    case "repeat":
      return `(?:${textOf(node.body)}){${node.min},${node.more === undefined ? "" : node.min + node.more}}`;
  }
}

/** Number of times that a backtracking matcher reads each character of a text. */
function waysOf(pattern: Tree, text: readonly string[]): number[] {
  const ways = text.map(() => 0);
  const match = (node: Tree, at: number, then: (at: number) => void): void => {
    switch (node.kind) {
      case "characters":
        if (at >= text.length || !node.of.includes(text[at]!)) return;
        ways[at]! += 1;
        then(at + 1);
        return;
      case "sequence": {
        const from = (index: number, place: number): void => {
          if (index === node.parts.length) then(place);
          else match(node.parts[index]!, place, (next) => from(index + 1, next));
        };
        from(0, at);
        return;
      }
      case "choice":
        for (const part of node.parts) match(part, at, then);
        return;
      case "repeat": {
        const again = (count: number, place: number): void => {
          if (node.more === undefined || count < node.min + node.more) {
            match(node.body, place, (next) => {
              if (next > place || count < node.min) again(count + 1, next);
            });
          }
          if (count >= node.min) then(place);
        };
        again(0, at);
      }
    }
  };
  match(pattern, 0, () => undefined);
  return ways;
}

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
