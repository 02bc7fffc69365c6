import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serverOptions } from "../../generated/ts/nats-options/index.js";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkNatsServerOptions, coerceOption } from "../../src/nats/connections/server-options.js";
import { atDepth } from "../support/depth.js";
import { cases } from "./cases.js";
import { type Answer, serverVersion, ValidatorDatabase } from "./validator-database.js";

const schema = JSON.parse(readFileSync("schema/nats-server-options.schema.json", "utf8"));
const properties: Readonly<Record<string, { readonly [keyword: string]: unknown; readonly pattern?: string }>> =
  schema.properties;

let database: ValidatorDatabase;
beforeAll(async () => {
  database = await ValidatorDatabase.create();
});
afterAll(() => database[Symbol.asyncDispose]());

function checkInTypeScript(options: unknown): Answer {
  return checkNatsServerOptions(options as Record<string, unknown>);
}

function summary(answer: Answer): unknown {
  return answer.ok ? "accepted" : [answer.violation.option, answer.violation.sqlstate];
}

describe("the validators in TypeScript and SQL", () => {
  it("are tried with a value of each option that is accepted, and one that is refused", () => {
    const accepted = new Set(cases.flatMap(({ refused, options }) => (refused ? [] : Object.keys(options))));
    const refused = new Set(cases.flatMap((tried) => (tried.refused?.[1] === "HV024" ? [tried.refused[0]] : [])));
    expect(Object.keys(properties).filter((name) => !accepted.has(name) || !refused.has(name))).toEqual([]);
  });

  it("say the same of each of them", async () => {
    const answers = await database.check(cases.map(({ options }) => options));
    for (const [number, { name, options, refused }] of cases.entries()) {
      const inTypeScript = checkInTypeScript(options);
      expect(summary(inTypeScript), name).toEqual(refused ?? "accepted");
      expect(answers[number], name).toEqual(inTypeScript);
    }
  });

  it("refuse what is no set of options", async () => {
    for (const options of [null, [], "host", 5, true]) {
      const inTypeScript = checkInTypeScript(options);
      expect(summary(inTypeScript), String(options)).toEqual([null, "HV024"]);
      expect(await database.check([options]), String(options)).toEqual([inTypeScript]);
    }
  });

  it("refuse no options at all", async () => {
    expect(summary(checkInTypeScript(undefined))).toEqual([null, "HV024"]);
    const { rows } = await database.client.query("SELECT * FROM hawser.nats_server_options_violation(NULL)");
    expect(rows[0].sqlstate).toBe("HV024");
  });

  it("say the same of random sets of options", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(optionSets, { minLength: 40, maxLength: 80 }), async (sets) => {
        expect(await database.check(sets)).toEqual(sets.map(checkInTypeScript));
      }),
      { numRuns: atDepth(60) },
    );
  });

  it("accept what Ajv accepts, which reads the schema by itself", () => {
    const valid = new Ajv2020({ strict: false }).compile(schema);
    fc.assert(
      fc.property(fc.oneof(fc.constantFrom(...cases.map(({ options }) => options)), optionSets), (options) => {
        expect(checkInTypeScript(options).ok).toBe(valid(inOwnTypes(options)));
      }),
      { numRuns: atDepth(5_000) },
    );
  });

  it("take their own answer again: coercing and completing twice changes nothing", async () => {
    const complete = cases.map(({ options }) => checkInTypeScript(options)).filter((answer) => answer.ok);
    expect(complete.map(({ options }) => checkInTypeScript(options))).toEqual(complete);
    expect(await database.check(complete.map(({ options }) => options))).toEqual(complete);
  });

  it("keep out what only JavaScript can hold: NUL and half a surrogate pair", async () => {
    for (const password of ["a\0b", "a\ud800", "\udc00b"]) {
      const options = { username: "", password };
      expect(summary(checkInTypeScript(options))).toEqual(["password", "HV024"]);
      // Postgres does not even read it.
      await expect(database.check([options])).rejects.toMatchObject({ code: expect.stringMatching(/^22P0[25]$/) });
    }
  });

  it("read Infinity, which JSON.parse makes of 1e400, as Postgres reads 1e400", async () => {
    const sets = '[{"port": 1e400}, {"port": -1e400, "tls_cert_path": "/c"}]';
    expect(await database.checkText(sets)).toEqual(JSON.parse(sets).map(checkInTypeScript));
  });

  it("make a whole number of 4222.0", async () => {
    const { rows } = await database.client.query(
      `SELECT hawser.nats_server_options('{"port": 4222.0}') ->> 'port' AS port`,
    );
    expect(rows[0].port).toBe("4222");
  });
});

describe("the schema", () => {
  it("says of each text that must not be empty that it has a character at least", () => {
    const wrong = Object.entries(properties).filter(([, { pattern, minLength = 0 }]) => {
      return pattern !== undefined && !new RegExp(pattern, "u").test("") && minLength === 0;
    });
    expect(wrong.map(([name]) => name)).toEqual([]);
  });

  it("has the patterns of the named rules for domains and subjects", () => {
    for (const [name, rules] of [
      ["domain", namedRules.jetstreamDomain],
      ["notify_subject", namedRules.natsSubject],
    ] as const) {
      const { pattern, "x-pattern-means": means } = properties[name]!;
      expect({ pattern, means: `must be ${means}` }).toEqual({ pattern: rules.pattern.source, means: rules.means });
    }
  });
});

describe.skipIf((await serverVersion()) < 150000)("in a database that sorts and lowers as Turkish does", () => {
  let turkish: ValidatorDatabase;
  beforeAll(async () => {
    turkish = await ValidatorDatabase.createWithLocale("tr-TR");
  });
  afterAll(() => turkish[Symbol.asyncDispose]());

  it("the validators say the same of the whole table", async () => {
    const sets = cases.map(({ options }) => options);
    expect(await turkish.check(sets)).toEqual(sets.map(checkInTypeScript));
  });

  it.each([
    ["two unknown options in the order of their bytes", { "a\u0131": 1, aZ: 1, Z: 1, "\u00e7": 1 }],
    ["a mistyped name with I", { TLIS_IINSICURI: "true" }],
    ["other white space around a number", { port: "\u20035\u2003" }],
    ["a dotless i in a boolean", { tls_insecure: "\u0131" }],
  ])("they say the same of %s", async (_, options) => {
    expect(await turkish.check([options])).toEqual([checkInTypeScript(options)]);
  });
});

/** Each known option in its own type; null, which no option takes, where it has another. */
function inOwnTypes(options: Readonly<Record<string, unknown>>): unknown {
  const entries = Object.entries(options).map(([name, value]) => {
    const entry = Object.hasOwn(serverOptions, name) ? serverOptions[name as keyof typeof serverOptions] : undefined;
    return [name, entry === undefined ? value : coerceOption(entry.type, value)];
  });
  return Object.fromEntries(entries);
}

/** Names that are known, nearly known, and anything. */
const optionNames = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(...Object.keys(serverOptions)) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(...Object.keys(serverOptions)), fc.nat(20), fc.constantFrom("", "x", "_", "É"))
      .map(([name, at, piece]) => name.slice(0, at) + piece + name.slice(at + 1)),
  },
  { weight: 1, arbitrary: storableText() },
);

/** Options as they stand in the table, so that many a set is valid or nearly so. */
const usualEntries = fc.constantFrom(
  ...cases.flatMap(({ options }) => Object.entries(options)).filter(([, value]) => String(value).length < 5000),
);

const anyValues = fc.oneof(
  storableText(),
  fc.integer().map(String),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.boolean(),
  fc.constant(null),
  fc.stringMatching(/^[ \t]*[+-]?[0-9a-fx_.]{0,22}[ \t]*$/),
  usualEntries.map(([, value]) => value),
);

const optionSets = fc
  .array(fc.oneof({ weight: 6, arbitrary: usualEntries }, { weight: 1, arbitrary: fc.tuple(optionNames, anyValues) }), {
    maxLength: 8,
  })
  .map((entries) => Object.fromEntries(entries) as Record<string, unknown>);

/** Any text that Postgres can hold. */
function storableText(): fc.Arbitrary<string> {
  return fc.string({ unit: "binary" }).filter((text) => !text.includes("\0"));
}
