/**
 * The generated SQL on a real Postgres: that of the shop in `protos/`, which has one of everything, and the store's.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { columnWords, reservedWords } from "../../codegen/model/names.js";
import { peerFunctionsSql, peerGrantsSql, peerSchemaSql } from "../../generated/ts/sql/peer-schema.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { type Shop, shop } from "./support/shop.js";

const open: (TestDatabase | pg.Client)[] = [];

afterAll(async () => {
  for (const one of open.reverse()) {
    await (one instanceof pg.Client ? one.end() : one.drop());
  }
});

async function freshDatabase(): Promise<{ client: pg.Client; name: string }> {
  const database = await testDatabase({ migrated: false });
  open.push(database);
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  open.push(client);
  return { client, name: database.name };
}

describe("the shop", () => {
  let client: pg.Client;
  let made: Shop;

  beforeAll(async () => {
    made = await shop();
    ({ client } = await freshDatabase());
    await client.query(made.sql["shopSchemaSql"]);
    await client.query(made.sql["shopGrantsSql"]);
  });

  it("has its columns, their defaults and generated values, and its first rows", async () => {
    const { rows: columns } = await client.query(
      `SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS needed, attgenerated AS generated,
        pg_get_expr(adbin, adrelid) AS value
       FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
       WHERE attrelid = 'hawser_data.orders'::regclass AND attnum > 0 ORDER BY attnum`,
    );
    expect(columns.map(({ name, type, needed }) => `${name} ${type}${needed ? "" : " NULL"}`)).toEqual([
      "shop text",
      "number integer",
      "reference bigint",
      "state text",
      "total bigint",
      "paid bigint",
      "items text[]",
      "note jsonb NULL",
      "digest bytea",
      "placed_at timestamp with time zone",
      "gift boolean",
      "paid_at timestamp with time zone NULL",
      "open_amount bigint",
      "priority smallint",
    ]);
    expect(columns.filter(({ value }) => value !== null).map(({ name, value }) => [name, value])).toEqual([
      ["reference", "nextval('hawser_data.orders_reference_seq'::regclass)"],
      ["state", "'open'::text"],
      ["placed_at", "now()"],
      ["open_amount", "(total - paid)"],
    ]);
    const { rows } = await client.query(
      "SELECT shop, number, state, open_amount, items, priority FROM hawser_data.orders",
    );
    expect(rows).toEqual([{ shop: "main", number: 1, state: "open", open_amount: "0", items: ["a"], priority: 7 }]);
  });

  it("has constraints whose names say table, column and rule, and its index", async () => {
    const { rows } = await client.query(
      `SELECT conname AS name, pg_get_constraintdef(oid) AS says FROM pg_constraint
       WHERE conrelid = 'hawser_data.orders'::regclass AND contype IN ('c', 'p', 'u') ORDER BY 1`,
    );
    expect(rows.map(({ name, says }) => [name, says])).toEqual([
      ["orders_digest_bytes", "CHECK ((octet_length(digest) <= 4))"],
      ["orders_items_items", "CHECK ((cardinality(items) <= 3))"],
      ["orders_number_range", "CHECK ((number >= 0))"],
      ["orders_paid_at_most_total", "CHECK ((paid <= total))"],
      ["orders_paid_range", expect.stringMatching(/paid >= '?-5'?.* AND .*paid <= '?9007199254740991'?/)],
      ["orders_pkey", "PRIMARY KEY (shop, number)"],
      ["orders_priority_range", "CHECK (((priority >= 1) AND (priority <= 9)))"],
      ["orders_reference_key", "UNIQUE (reference)"],
      ["orders_shop_bytes", "CHECK (((octet_length(shop) >= 1) AND (octet_length(shop) <= 10)))"],
      ["orders_shop_pattern", "CHECK ((shop ~ '^[^''\\u0001-\\u001f]+$'::text))"],
      ["orders_state_values", expect.stringContaining("'open'::text, 'won''t pay'::text")],
      ["orders_total_range", "CHECK ((total >= 0))"],
    ]);
    const { rows: indexes } = await client.query("SELECT pg_get_indexdef('hawser_data.orders_open'::regclass) AS says");
    expect(indexes[0].says).toMatch(/\(placed_at, lower\(state\)\) WHERE \(state = 'open'::text\)$/);
  });

  it.each([
    ["a number below 0 in an unsigned column", { number: -1 }, "orders_number_range"],
    ["too many items", { items: ["a", "b", "c", "d"] }, "orders_items_items"],
    ["a state that is not listed", { state: "won't" }, "orders_state_values"],
    ["a shop against the pattern", { shop: "o'k" }, "orders_shop_pattern"],
    ["a digest that is too long", { digest: Buffer.alloc(5) }, "orders_digest_bytes"],
    ["a row against a check of several columns", { paid: 2 }, "orders_paid_at_most_total"],
  ])("refuses %s", async (_, change, constraint) => {
    await expect(insertOrder(client, change)).rejects.toMatchObject({ constraint });
  });

  it("takes NULL where a column is optional, and nowhere else", async () => {
    await insertOrder(client, { number: 2, note: null, paid_at: null });
    await expect(insertOrder(client, { number: 3, digest: null })).rejects.toMatchObject({ code: "23502" });
  });

  it("keeps the spec's comments", async () => {
    const { rows } = await client.query(
      `SELECT obj_description('hawser_data.orders'::regclass) AS table,
        obj_description('hawser.open_orders()'::regprocedure) AS function,
        (SELECT array_agg(coalesce(col_description('hawser_data.orders'::regclass, n), '') ORDER BY n)
         FROM generate_series(5, 8) AS n) AS columns`,
    );
    expect(rows).toEqual([
      {
        table: `The orders, "open" and closed. It's a test of \`quotes\` and \${braces}, too: */ done.`,
        function: "The open orders of some shops.",
        columns: ["In cents.", "", "What was bought.", "Anything else."],
      },
    ]);
  });

  it("tells its channel of each row that is inserted, updated, renamed and deleted", async () => {
    const told: unknown[] = [];
    client.on("notification", ({ channel, payload }) => told.push([channel, JSON.parse(payload!)]));
    await client.query("LISTEN shop_orders");
    await insertOrder(client, { number: 5 });
    await client.query("UPDATE hawser_data.orders SET state = 'won''t pay' WHERE number = 5");
    await client.query("UPDATE hawser_data.orders SET number = 6 WHERE number = 5");
    await client.query("DELETE FROM hawser_data.orders WHERE number = 6");
    // Notifications come before the answer to the next query.
    await client.query("UNLISTEN shop_orders");
    expect(told).toEqual([
      ["shop_orders", { operation: "insert", shop: "s", number: 5 }],
      ["shop_orders", { operation: "update", shop: "s", number: 5 }],
      ["shop_orders", { operation: "delete", shop: "s", number: 5 }],
      ["shop_orders", { operation: "update", shop: "s", number: 6 }],
      ["shop_orders", { operation: "delete", shop: "s", number: 6 }],
    ]);
  });

  it("has functions of the spec's types, that pin search_path and row_security, whether definer or not, and the trigger's too", async () => {
    // A second run replaces them.
    await client.query(made.sql["shopFunctionsSql"]);
    const { rows } = await client.query(
      `SELECT proname AS name, pg_get_function_arguments(oid) AS takes, pg_get_function_result(oid) AS gives,
        prosecdef AS definer, proconfig AS settings, provolatile AS volatility
       FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace ORDER BY 1`,
    );
    expect(rows.map(({ name }) => name)).toEqual([
      "error_codes",
      "error_sqlstate",
      "header_excess",
      "list_excess",
      "open_orders",
      "orders_notify",
      "place_order",
      "refuse_argument",
      "shop_database",
      ...new Array(8).fill("write_note"),
      ...new Array(4).fill("write_notes"),
    ]);
    for (const { name, settings, definer, volatility } of rows) {
      const readsRows = volatility !== "i" && !["orders_notify", "refuse_argument"].includes(name);
      const rows = readsRows ? ["row_security=off"] : [];
      const own = name === "open_orders" ? ["enable_seqscan=off"] : [];
      expect(settings, name).toEqual(["search_path=pg_catalog, pg_temp", ...rows, ...own]);
      expect(definer, name).toBe(/^open_orders|^write_note/.test(name));
      expect(volatility === "i", name).toBe(/^(shop_database|.*_excess|error_.*)$/.test(name));
    }
    expect(rows[4]).toMatchObject({ gives: "TABLE(shop text, reference bigint, all_references bigint[])" });
    expect(rows[6].takes).toBe(
      "p_shop text, p_total bigint, p_references bigint[], p_digest bytea, p_pictures bytea[], p_note jsonb, OUT number integer, OUT reference bigint",
    );
    // Its body has the tag with which the generator quotes bodies.
    const { rows: placed } = await client.query("SELECT * FROM hawser.place_order('s', 7, '{}', NULL, '{}', NULL)");
    expect(placed).toEqual([{ number: 1, reference: "7" }]);
  });

  describe("has functions that are overloaded by the type of the payload", () => {
    const payloads = { text: "'ä'", json: `'"a"'::json`, jsonb: `'"a"'::jsonb`, bytea: "'abc'::bytea" };
    const lengths = { text: 2, json: 3, jsonb: 3, bytea: 3 };
    // The shop's own errors are none of arguments.
    const sqlstates = `CREATE OR REPLACE FUNCTION hawser.error_sqlstate(p_code text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
      AS $$ SELECT CASE p_code WHEN 'null_argument' THEN '22004' ELSE '22023' END $$`;
    beforeAll(() => client.query(sqlstates));
    afterAll(() => client.query(made.sql["shopFunctionsSql"]));
    const value = async (call: string) => Object.values((await client.query(`SELECT ${call}`)).rows[0])[0];

    it("with those of their parameters, and rights of their own", async () => {
      const { rows } = await client.query(
        `SELECT oid::regprocedure::text || ' ' || pg_get_function_result(oid) AS name, has_function_privilege('hawser_peer', oid, 'EXECUTE') AS peer,
                has_function_privilege('hawser_bridge', oid, 'EXECUTE') AS bridge, obj_description(oid) AS comment
           FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND proname ~ '^write_note'`,
      );
      const note = { peer: true, bridge: false, comment: expect.stringMatching(/^Writes (a|some) note/) };
      const urgent = { peer: false, bridge: true, comment: "Writes a note that may be urgent." };
      const expected = Object.keys(payloads).flatMap((type) => [
        { name: `hawser.write_note(text,${type},text,text) bigint`, ...note },
        { name: `hawser.write_note(text,${type},boolean,boolean) bigint`, ...urgent },
        { name: `hawser.write_notes(text,${type}[]) bigint[]`, ...note },
      ]);
      const byName = (one: { name: string }, other: { name: string }) => (one.name < other.name ? -1 : 1);
      expect(rows.sort(byName)).toEqual(expected.sort(byName));
    });

    it.each(Object.keys(payloads) as (keyof typeof payloads)[])("%s: by a short way for plain calls", async (type) => {
      const [payload, length] = [payloads[type], lengths[type]];
      expect(await value(`hawser.write_note('s', ${payload})`)).toBe(`${1_000_000_000 + length}`);
      // What is allowed beside is checked by the body, the rest by the long way.
      expect(await value(`hawser.write_note('s', ${payload}, writer => 'too long')`)).toBe(`${1_000_000_000 + length}`);
      expect(await value(`hawser.write_note('s', ${payload}, 'p')`)).toBe(`${2_000_000_000 + length}`);
      expect(await value(`hawser.write_note('s', ${payload}, true)`)).toBe(`${-length}`);
      expect(await value(`hawser.write_note('s', ${payload}, urgent => false, is_public => true)`)).toBe(`${length}`);
      expect(await value(`hawser.write_notes('s', ARRAY[${payload}, ${payload}])`)).toEqual([`${length}`, `${length}`]);
      for (const [call, says] of [
        [`hawser.write_note(NULL, ${payload})`, "hawser.write_note: the argument shop is NULL, and needs a value"],
        [`hawser.write_note('', ${payload})`, 'shop is "", and must be 1 to 10 bytes long'],
        [`hawser.write_note('abcdefghijk', ${payload})`, 'shop is 11 bytes long|shop is "abcdefghijk"'],
        [`hawser.write_note('A', ${payload})`, 'shop is "A", and must be small letters and \''],
        [`hawser.write_note('s', NULL::${type})`, "the argument note is NULL, and needs a value"],
        [
          `hawser.write_note('s', ${payload}, 'p', 'too long')`,
          'the argument writer is 8 bytes long|writer is "too long"',
        ],
        [`hawser.write_note('s', ${payload}, 'pages')`, "the argument page is "],
        [
          `hawser.write_note('s', ${payload}, NULL::boolean)`,
          "hawser.write_note: the argument urgent is NULL, and needs a value",
        ],
        [`hawser.write_notes('s', ARRAY[${payload}, NULL])`, "hawser.write_notes: the argument notes"],
        [
          `hawser.write_notes('s', array_fill(${payload}::${type}, ARRAY[4]))`,
          "hawser.write_notes: the argument notes is a list of 4 elements",
        ],
      ] as const) {
        await expect(value(call), call).rejects.toThrow(new RegExp(says));
      }
    });

    it.each([
      ["text", "repeat('a', 1000001)", "''"],
      ["json", "to_json(repeat('a', 999999))", undefined],
      ["jsonb", "to_jsonb(repeat('a', 999999))", undefined],
      ["bytea", "convert_to(repeat('a', 1000001), 'UTF8')", "''::bytea"],
    ])("%s: by the long way where the payload is too long, or empty where it may not be", async (name, long, empty) => {
      await expect(value(`hawser.write_note('s', ${long})`)).rejects.toThrow("the argument note is 1000001 bytes long");
      const fits = long.replace(/\d+/, (count) => `${Number(count) - 1}`);
      expect(await value(`hawser.write_note('s', ${fits})`)).toBe(name === "jsonb" ? "2001000000" : "1001000000");
      // That a payload has a byte is left to the body.
      if (empty !== undefined) expect(await value(`hawser.write_note('s', ${empty})`)).toBe("2000000000");
    });

    it("which TypeScript calls with bytes", async () => {
      const functions = made.rows["noteFunctions"](client);
      const note = Buffer.from("abc");
      const common = { shop: "s", note };
      expect(await functions.writeNote({ ...common, page: null, writer: null })).toEqual({ length: 1_000_000_003n });
      expect(await functions.writeUrgentNote({ ...common, urgent: true, isPublic: null })).toEqual({ length: -3n });
      expect(await functions.writeNotes({ shop: "s", notes: [note, Buffer.from("")] })).toEqual({ lengths: [3n, 0n] });
    });
  });

  it("has its errors in SQL and in TypeScript, with quotes as they are", async () => {
    const { rows } = await client.query("SELECT * FROM hawser.error_codes() ORDER BY wire_code");
    const soldOut = {
      code: "sold_out",
      sqlstate: "P0002",
      retryable: true,
      summary: "There is nothing left of it; it's gone.",
      remedy: 'Wait, or buy "something" else.',
    };
    expect(rows[0]).toEqual({ ...soldOut, wire_code: 4, exit_status: 69 });
    expect(made.errors["errorTable"].sold_out).toEqual({ ...soldOut, wireCode: 4, exitStatus: 69 });
    expect(rows.map(({ code }) => code)).toEqual(["sold_out", "closed"]);
  });

  it("lets each role do what its grants say, on columns where they name them", async () => {
    const codes = async (role: string) => {
      await client.query(`SET ROLE ${role}`);
      const tried = [
        "INSERT INTO hawser_data.orders SELECT 'x', 1, DEFAULT",
        "SELECT FROM hawser_data.orders",
        "SELECT nextval('hawser_data.orders_reference_seq')",
        "UPDATE hawser_data.orders SET paid = 0",
        "UPDATE hawser_data.orders SET total = 0",
        "SELECT hawser.open_orders()",
        "SELECT hawser.place_order('s', 7, NULL, NULL, NULL, NULL)",
        "SELECT hawser.error_sqlstate('closed')",
      ];
      const may: string[] = [];
      for (const statement of tried) {
        const error = await client.query(`EXPLAIN ANALYZE ${statement}`).catch((thrown) => thrown);
        if (error.code !== "42501" && error.code !== "42601") may.push(statement);
      }
      await client.query("RESET ROLE");
      return may.map((statement) => /SET \w+|open_orders|place_order|error_sqlstate|nextval|FROM/.exec(statement)![0]);
    };
    expect(await codes("hawser_peer")).toEqual(["FROM", "nextval", "open_orders", "place_order", "error_sqlstate"]);
    expect(await codes("hawser_bridge")).toEqual(["SET paid", "open_orders", "error_sqlstate"]);
    expect(await codes("hawser_nats")).toEqual(["error_sqlstate"]);
    expect(await codes("hawser_executor")).toEqual(["error_sqlstate"]);
  });
});

describe("the store", () => {
  let client: pg.Client;

  beforeAll(async () => {
    ({ client } = await freshDatabase());
    await client.query(peerSchemaSql);
    await client.query(peerGrantsSql);
  });

  it("leaves nothing to PUBLIC", async () => {
    const { rows } = await client.query(
      `SELECT relname AS name FROM pg_class, aclexplode(relacl) AS a
        WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND a.grantee = 0
       UNION ALL SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
        WHERE pronamespace = 'hawser'::regnamespace AND a.grantee = 0
       UNION ALL SELECT nspname FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname IN ('hawser', 'hawser_data') AND a.grantee = 0`,
    );
    expect(rows).toEqual([]);
  });

  it("gives hawser_owner everything and hawser_peer what the spec says", async () => {
    const { rows: owners } = await client.query(
      `SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace)
       UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace
       UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname IN ('hawser', 'hawser_data')`,
    );
    expect(owners).toEqual([{ owner: "hawser_owner" }]);
    await client.query("SET ROLE hawser_peer");
    await client.query("INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ('t', 'a:1', 'n')");
    await client.query("SELECT * FROM hawser.id_of_topic('t')");
    await expect(client.query("DELETE FROM hawser_data.peers")).rejects.toMatchObject({ code: "42501" });
    await expect(client.query("UPDATE hawser_data.mesh_secret SET id = 2")).rejects.toMatchObject({ code: "42501" });
    await client.query("RESET ROLE");
  });

  it("tells its channel of the longest row that the rules let in", async () => {
    const values = ['"'.repeat(255), "\u0001".repeat(512), "\\".repeat(255)];
    await client.query("INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ($1, $2, $3)", values);
  });

  it("installs what a user without further rights may do, twice, and says what is left out", async () => {
    const { client: admin, name } = await freshDatabase();
    const user = `hawser_test_${process.pid}_plain`;
    await admin.query(`CREATE ROLE ${user} LOGIN PASSWORD 'plain'`);
    try {
      await admin.query(`GRANT CREATE ON DATABASE ${name} TO ${user}`);
      await admin.query(`SET ROLE ${user}`);
      const notices: string[] = [];
      admin.on("notice", ({ message }) => notices.push(message ?? ""));
      await admin.query(peerSchemaSql);
      await admin.query(peerGrantsSql);
      await admin.query(peerFunctionsSql);
      await admin.query(peerGrantsSql);
      expect(notices.join("\n")).toMatch(/goes on owning it|may not make it/);
      const { rows } = await admin.query("SELECT epoch > 0 AS taken FROM hawser.own_name('n', 'twin', 1)");
      expect(rows).toEqual([{ taken: true }]);
    } finally {
      await admin.query("RESET ROLE");
      await admin.query(`DROP OWNED BY ${user}`);
      await admin.query(`DROP ROLE ${user}`);
    }
  });
});

async function insertOrder(client: pg.Client, change: Record<string, unknown>): Promise<void> {
  const order = {
    shop: "s",
    number: 9,
    total: 1,
    paid: 0,
    items: ["a"],
    digest: Buffer.of(1),
    gift: false,
    priority: 1,
    ...change,
  };
  const places = Object.keys(order).map((_, position) => `$${position + 1}`);
  const sql = `INSERT INTO hawser_data.orders (${Object.keys(order).join(", ")}) VALUES (${places.join(", ")})`;
  await client.query(sql, Object.values(order));
}

it("refuses every word that this Postgres does not take as a name without quotes", async () => {
  const { client } = await freshDatabase();
  const { rows } = await client.query<{ word: string; catcode: string }>("SELECT word, catcode FROM pg_get_keywords()");
  const missing = (catcodes: string, known: ReadonlySet<string>) =>
    rows.filter(({ word, catcode }) => catcodes.includes(catcode) && !known.has(word)).map(({ word }) => word);
  expect(missing("RT", reservedWords)).toEqual([]);
  expect(missing("C", columnWords)).toEqual([]);
  expect(rows.length).toBeGreaterThan(400);
});
