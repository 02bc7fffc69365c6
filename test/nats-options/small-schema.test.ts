/**
 * Output for a small schema with one of each kind, and for the project's own after a change. `generated/` has the
 * output for the project's own as it is: see test/codegen/generated.test.ts.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type MadeOptions, makeOptions, smallSchema } from "./made-options.js";
import { type Part, ValidatorDatabase } from "./validator-database.js";

describe("a small schema", () => {
  let made: MadeOptions;
  let database: ValidatorDatabase;
  beforeAll(async () => {
    made = await makeOptions(smallSchema, "schema/small.schema.json");
    database = await ValidatorDatabase.create(made.sql);
  });
  afterAll(() => database[Symbol.asyncDispose]());

  // `npx vitest --update` writes the golden files anew; they are then read like any other change.
  it.each(["auth.ts.txt", "types.ts.txt", "nats-server-options.md"])("makes the golden %s", async (path) => {
    await expect(made.files[path.replace(".txt", "")]).toMatchFileSnapshot(`golden/${path}`);
  });

  it("is the same each time", async () => {
    expect((await makeOptions(smallSchema, "schema/small.schema.json")).files).toEqual(made.files);
  });

  it("names what the connection is made of", () => {
    expect(made.connectionOptions).toEqual(["key", "key_path"]);
  });

  const key = { key: "s3cret" };
  it.each<[options: Record<string, unknown>, violated: string | null | undefined]>([
    [key, undefined],
    [{}, "key"],
    [{ key: "s" }, "key"],
    [{ key: "s".repeat(21) }, "key"],
    [{ key: 5 }, "key"],
    [{ key_path: "/a" }, undefined],
    [{ key_path: "relative" }, "key_path"],
    [{ key_path: `/${"a".repeat(100)}` }, "key_path"],
    [{ key_path: null }, "key_path"],
    [{ ...key, level: 5, title: "any" }, undefined],
    [{ ...key, level: "5", loud: "y", title: "it's" }, "loud"],
    [{ ...key, level: "4", loud: "y", title: "it's" }, undefined],
    [{ ...key, level: "4", title: "its" }, "loud"],
    [{ ...key, loud: "n" }, "title"],
    [{ ...key, loud: "loud", title: "it's" }, "loud"],
    [{ ...key, level: -6 }, "level"],
    [{ ...key, level: 6 }, "level"],
    [{ ...key, level: "x" }, "level"],
    [{ ...key, level: "-0" }, undefined],
    [{ ...key, title: "12345678901", level: 5 }, "title"],
    [{ ...key, title: 7 }, "title"],
    [{ ...key, titel: "" }, "titel"],
    [{ ...key, volume: "" }, "volume"],
  ])("has validators in TypeScript and SQL that say the same of %j", async (options, violated) => {
    const inTypeScript = made.check(options);
    expect(inTypeScript.ok ? undefined : inTypeScript.violation.option).toBe(violated);
    expect(await database.check([options])).toEqual([inTypeScript]);
  });

  it("has violations with the words and SQLSTATEs of the schema", () => {
    const violations = [
      { key: "s" },
      { ...key, level: 5, loud: true, title: "x" },
      { ...key, loud: true },
      { a: 1 },
    ].map((options) => {
      const answer = made.check(options);
      return answer.ok ? [] : [answer.violation.sqlstate, answer.violation.message, answer.violation.hint];
    });
    expect(violations).toEqual([
      ["HV024", 'option "key" must have at least 2 characters', "Give the whole key."],
      ["HV00C", 'option "loud" may not be true at level 5', "Lower level, or drop loud."],
      ["HV002", 'option "title" is missing: loud needs it', "Add title, or drop loud."],
      ["HV00D", 'unknown option "a"', "Use one of the options, or drop it."],
    ]);
  });

  it.each<[part: Part, options: Record<string, unknown>, violated: string | null | undefined]>([
    ["server", {}, undefined],
    ["server", { loud: "n" }, "title"],
    ["server", { level: "4", title: "its" }, "loud"],
    ["user_mapping", { key: "s3cret" }, undefined],
    ["user_mapping", { key: "s" }, "key"],
    ["user_mapping", { level: "4" }, "level"],
    ["user_mapping", { kye: "" }, "kye"],
    ["none", { title: "x" }, "title"],
  ])("knows as part %s what is allowed: %j", async (part, options, violated) => {
    const [answer] = await database.check([options], part);
    expect(answer!.ok ? undefined : answer!.violation.option).toBe(violated);
    // The copy for the foreign data wrappers.
    const error = await database.errorOf(
      `SELECT hawser_fdw.nats_server_options_check('${JSON.stringify(options)}', '${part}')`,
    );
    expect(error?.message).toBe(answer!.ok ? undefined : answer!.violation.message);
  });

  it("resolves the authentication in SQL as in TypeScript", async () => {
    for (const options of [{}, { key: "a" }, { key_path: "/a" }, { key: "a", key_path: "/a" }]) {
      const { rows } = await database.client.query("SELECT hawser.nats_auth_mode($1) AS mode", [options]);
      expect(made.resolveAuth(options)).toMatchObject({ mode: rows[0].mode });
    }
  });

  it("takes its functions from PUBLIC", async () => {
    const { rows } = await database.client.query(
      `SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
       WHERE pronamespace = 'hawser'::regnamespace AND a.grantee = 0`,
    );
    expect(rows).toEqual([]);
  });
});

it("a changed range and order of authentication are those of both validators, both resolvers and the page", async () => {
  const file = "schema/nats-server-options.schema.json";
  const schema = JSON.parse(readFileSync(file, "utf8"));
  schema.properties.port.maximum = 5000;
  const modes: { readonly mode: string }[] = schema["x-auth-priority"];
  modes.unshift(
    ...modes.splice(
      modes.findIndex(({ mode }) => mode === "token"),
      1,
    ),
  );
  const made = await makeOptions(JSON.stringify(schema), file);
  await using database = await ValidatorDatabase.create(made.sql);
  const sets = [{ port: "5000" }, { port: "5001" }, { port: 5001 }];
  const inTypeScript = sets.map((options) => made.check(options));
  expect(inTypeScript.map((answer) => answer.ok || answer.violation.message)).toEqual([
    true,
    'option "port" must be an integer from 1 to 5000',
    'option "port" must be an integer from 1 to 5000',
  ]);
  expect(await database.check(sets)).toEqual(inTypeScript);
  const options = { creds_path: "/creds", nkey_seed_path: "/seed", nkey_seed: "S", token_path: "/token", token: "t" };
  expect(made.authModes.slice(0, 2)).toEqual(["token", "creds_path"]);
  expect(made.resolveAuth(options)).toEqual({ mode: "token", token: "t" });
  const { rows } = await database.client.query("SELECT hawser.nats_auth_mode($1) AS mode", [options]);
  expect(rows[0].mode).toBe("token");
  const page = made.files["nats-server-options.md"];
  expect(page).toContain("| `port` | integer | `4222` | 1 to 5000 |");
  expect(page).toContain("| 1 | `token` | `token` |");
  expect(page).toContain("| 2 | `creds_path` | `creds_path` |");
});
