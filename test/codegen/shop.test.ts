/**
 * Output for the spec in `shop/`, which has what the project's own spec does without. (`npm run verify` compares the output for
 * that one; what its SQL and its checks do is tested where they are used.)
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateDocs } from "../../codegen/docs/generate.js";
import { generateErrors } from "../../codegen/errors/generate.js";
import type { Generator } from "../../codegen/plugin.js";
import { generateRows } from "../../codegen/rows/generate.js";
import { generateSettings } from "../../codegen/settings/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { generateValidators } from "../../codegen/validators/generate.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { compile, generated, requestFor } from "./support/request.js";

const generators: Readonly<Record<string, Generator>> = {
  docs: generateDocs,
  errors: generateErrors,
  rows: generateRows,
  rules: generateValidators,
  settings: generateSettings,
  sql: generateSql,
};

// biome-ignore lint/suspicious/noExplicitAny: modules that are made while the tests run have no types
type Module = Record<string, any>;

/** Texts of the generated files, by path. */
let files: Record<string, string>;
let rules: Module;
let rowRules: Module;
let settings: Module;
let errors: Module;
let sql: Module;

beforeAll(async () => {
  const path = "hawser/shop/v1/shop.proto";
  const proto = readFileSync(new URL("shop/shop.proto", import.meta.url), "utf8");
  const request = requestFor(await compile({ [path]: proto }), [path]);
  files = await generated(request, (spec) =>
    Object.entries(generators).flatMap(([folder, generate]) =>
      generate(spec).map((file) => ({ ...file, path: `${folder}/${file.path}` })),
    ),
  );
  const folder = mkdtempSync(join(tmpdir(), "hawser-shop-"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    const load = (name: string): Promise<Module> => import(/* @vite-ignore */ pathToFileURL(join(folder, name)).href);
    rules = await load("rules/shop/shop.ts");
    rowRules = await load("rules/shop/shop-rows.ts");
    settings = await load("settings/shop.ts");
    errors = await load("errors/shop.ts");
    sql = await load("sql/shop-schema.ts");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe("a generated page or file", () => {
  it.each<[path: string, texts: readonly string[]]>([
    [
      "docs/catalog.md",
      [
        `The orders, "open" and closed. It's a test of \`quotes\` and \${braces}, too: */ done.\n`,
        '| `state` | `text` | `\'open\'` | one of "open", "won\'t pay" | Where it stands. |\n',
        "| `paid` | `bigint` |  | -5 to 9007199254740991 |  |\n",
        "| `items` | `text[]` |  | at most 3 elements | What was bought. |\n",
        "- Index `orders_open`: `(lower(state))` where `state = 'open'`\n",
        "- Inserts fill a page to 70 %\n",
        "- `hawser_bridge` may SELECT, UPDATE on `state`\n",
      ],
    ],
    [
      "docs/errors.md",
      ["| `sold_out` | 4 | `P0002` | 69 | yes | There is nothing left of it; it's gone. | Wait, or buy"],
    ],
    [
      "docs/frames.md",
      [
        "| `weight` | 1 | `uint64` | 1 to 1000 |",
        "| `coldest` | 2 | `sint32` | at least -40 |",
        "| `sent_at` | 4 | `Timestamp` | required |",
        "| `cash` | 5 | `int64` | one of `payment`; at least 1 | In cents. |\n",
        "One field of `payment` must be set.\n",
      ],
    ],
    [
      "docs/settings.md",
      ['| `greeting` | `"hello \\"you\\""` |  | at most 40 bytes long in UTF-8 | The greeting. |\n'],
    ],
    ["rows/shop.ts", [`\${braces}, too: *\\/ done. */\nexport interface OrderRow {`]],
  ])("has the texts of the spec as they are: %s", (path, texts) => {
    for (const text of texts) expect(files[path]).toContain(text);
  });
});

describe("the generated SQL", () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeAll(async () => {
    database = await testDatabase({ migrated: false });
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(sql["shopSchemaSql"]);
    await client.query(sql["shopGrantsSql"]);
  });
  afterAll(async () => {
    await client?.end();
    await database?.drop();
  });

  const order = { number: 9, state: "won't pay", paid: 0n, items: ["a"], digest: Buffer.of(1) };

  async function insert(row: Readonly<Record<string, unknown>>): Promise<void> {
    const places = Object.keys(row).map((_, position) => `$${position + 1}`);
    const values = Object.values(row).map((value) => (typeof value === "bigint" ? String(value) : value));
    await client.query(
      `INSERT INTO hawser_bridge_data.orders (${Object.keys(row).join(", ")}) VALUES (${places.join(", ")})`,
      values,
    );
  }

  it("has a comment as it is", async () => {
    const { rows } = await client.query("SELECT obj_description('hawser_bridge_data.orders'::regclass) AS comment");
    const comment = `The orders, "open" and closed. It's a test of \`quotes\` and \${braces}, too: */ done.`;
    expect(rows).toEqual([{ comment }]);
  });

  it.each<[column: keyof typeof order, value: unknown, constraint: string]>([
    ["number", -1, "orders_number_range"],
    ["state", "won't", "orders_state_values"],
    ["paid", -6n, "orders_paid_range"],
    ["items", ["a", "b", "c", "d"], "orders_items_items"],
    ["digest", Buffer.alloc(5), "orders_digest_bytes"],
  ])("refuses a bad value of the column %s, as the check in TypeScript does", async (column, value, constraint) => {
    const check = rowRules["columnChecks"].orders[column];
    expect(check(order[column])).toBeUndefined();
    expect(check(value)).toMatchObject({ path: column });
    await expect(insert({ ...order, [column]: value })).rejects.toMatchObject({ constraint });
  });

  it("leaves room in the pages of a table with a fillfactor", async () => {
    const { rows } = await client.query(
      "SELECT reloptions FROM pg_class WHERE oid = 'hawser_bridge_data.orders'::regclass",
    );
    expect(rows).toEqual([{ reloptions: ["fillfactor=70"] }]);
  });

  it("takes the values of a good row", async () => {
    await insert(order);
    const { rows } = await client.query("SELECT number, state, paid, items, digest FROM hawser_bridge_data.orders");
    expect(rows).toEqual([{ ...order, paid: "0" }]);
  });

  it("lets a role do what is granted to it on a column, and nothing else", async () => {
    const codeOf = (statement: string): Promise<string> =>
      client.query(statement).then(
        () => "none",
        ({ code }: pg.DatabaseError) => code ?? "",
      );
    await client.query("SET ROLE hawser_bridge");
    const codes = [
      await codeOf("SELECT state FROM hawser_bridge_data.orders"),
      await codeOf("UPDATE hawser_bridge_data.orders SET state = 'open'"),
      await codeOf("SELECT paid FROM hawser_bridge_data.orders"),
      await codeOf("UPDATE hawser_bridge_data.orders SET paid = 1"),
    ];
    await client.query("RESET ROLE");
    expect(codes).toEqual(["none", "none", "42501", "42501"]);
  });

  it("has a body that contains the tag with which bodies are quoted", async () => {
    const { rows } = await client.query("SELECT * FROM hawser.place_order('o''neil')");
    expect(rows).toEqual([{ noted: "the tag of the generator, o'neil" }]);
  });

  it("has the errors with quotes as they are, as TypeScript does", async () => {
    const { rows } = await client.query("SELECT code, summary, remedy FROM hawser.error_codes()");
    const told = { summary: "There is nothing left of it; it's gone.", remedy: 'Wait, or buy "something" else.' };
    expect(rows).toEqual([{ code: "sold_out", ...told }]);
    expect(errors["errorTable"].sold_out).toMatchObject(told);
  });
});

describe("a generated check", () => {
  it("holds settings that are strings to their length and their values", () => {
    const { checkShopSettings: check, shopSettingsDefaults: defaults } = settings;
    expect(defaults).toEqual({ greeting: 'hello "you"', sortBy: "time" });
    expect(check({ sortBy: "size" })).toEqual({ ok: true, settings: { ...defaults, sortBy: "size" } });
    expect(check({ greeting: "x".repeat(41) })).toMatchObject({ ok: false, violation: { path: "greeting" } });
    const rule = 'must be one of "time", "size"';
    expect(check({ sortBy: "price" })).toMatchObject({ ok: false, violation: { value: '"price"', rule } });
  });

  const parcel = {
    coldest: -40,
    label: { text: "AB-12" },
    sentAt: new Date(0),
    payment: { $case: "gift", value: false },
  };

  it.each<[what: string, change: Record<string, unknown>, path: string | undefined]>([
    ["nothing wrong", {}, undefined],
    ["an optional number in its range", { weight: 1000n }, undefined],
    ["an optional number outside it", { weight: 0n }, "weight"],
    ["a number below a negative limit", { coldest: -41 }, "coldest"],
    ["a required message that is absent", { label: undefined }, "label"],
    ["a required time that is absent", { sentAt: undefined }, "sentAt"],
    ["a message with a mistake", { label: { text: "A-12" } }, "label.text"],
    ["a oneof that must be set", { payment: undefined }, "payment"],
    ["a number in a oneof", { payment: { $case: "cash", value: 0n } }, "cash"],
    ["bytes in a oneof", { payment: { $case: "voucher", value: new Uint8Array(5) } }, "voucher"],
    ["a message in a oneof", { payment: { $case: "stamp", value: { text: "x" } } }, "stamp.text"],
  ])("names what is wrong in a message with %s", (_, change, path) => {
    expect(rules["validateParcel"]({ ...parcel, ...change })?.path).toBe(path);
  });
});
