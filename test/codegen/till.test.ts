/**
 * Output of codegen/gateway for the shop's till: the SQL functions on a real Postgres, with an answer of the test's in
 * the place of the gateway's; the readers and writers of their calls; and the client.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sqlMethods } from "../../src/serve/nats-sql.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { type Shop, shop } from "./support/shop.js";

let made: Shop;
let database: TestDatabase;
let client: pg.Client;

/** Does what the gateway does: keeps the call, and gives back what the test has told it. */
const fakeGateway = `CREATE FUNCTION hawser.gateway_call(p_query text) RETURNS text LANGUAGE sql AS $$
  SELECT set_config('test.query', p_query, false); SELECT nullif(current_setting('test.answer', true), '') $$`;

beforeAll(async () => {
  made = await shop();
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(`CREATE SCHEMA till; CREATE ROLE ${other}; ${fakeGateway}`);
  // The till's own function asks the gateway by dblink; to the others there is no connection yet.
  await client.query(`
    CREATE FUNCTION till.dblink(a text, b text) RETURNS text LANGUAGE sql AS $$ SELECT a || b $$;
    CREATE FUNCTION till.dblink_get_connections() RETURNS text[] LANGUAGE sql AS $$ SELECT NULL::text[] $$;
    CREATE FUNCTION till.dblink_is_busy(a text) RETURNS integer LANGUAGE sql AS $$ SELECT 0 $$;
    CREATE FUNCTION till.dblink_error_message(a text) RETURNS text LANGUAGE sql AS $$ SELECT 'OK' $$;
    GRANT USAGE ON SCHEMA till TO hawser_owner`);
  // A second time replaces them.
  for (const _ of [1, 2]) {
    for (const name of ["natsFunctionsSql", "natsFunctionsGrantsSql"]) {
      const sql: string = made.till.sql[name];
      await client.query(sql.replaceAll("@extschema@", "till").replaceAll("@dblink@", "till"));
    }
  }
});

afterAll(async () => {
  await client.query(`DROP ROLE ${other}`);
  await client.end();
  await database.drop();
});

const other = `hawser_test_${process.pid}_till`;

/** Calls a function while the gateway gives this answer. Resolves with the result and the gateway's request. */
async function ask(call: string, answer: string | null): Promise<{ returned: unknown; asked: string }> {
  await client.query("SELECT set_config('test.answer', $1, false)", [answer]);
  const { rows } = await client.query(`SELECT * FROM till.${call}`);
  const returned = rows.length === 1 && Object.keys(rows[0]).length === 1 ? Object.values(rows[0])[0] : rows;
  const { rows: asked } = await client.query("SELECT current_setting('test.query') AS query");
  return { returned, asked: asked[0].query };
}

const bill = {
  thing: "a",
  pieces: 1,
  unit_price: "9007199254740993",
  rebate: null,
  picture: "\\x00",
  gift: true,
  lines: [1],
};

describe("the functions in SQL", () => {
  it.each<[call: string, answer: string, returned: unknown, asked: string]>([
    [
      "till_ring_up_text('s', 'ä', 1, NULL)",
      "9223372036854775807",
      "9223372036854775807",
      'RingUp {"shop":"s","thing":"w6Q=","pieces":1,"patience":null,"pictureFile":null,"notes":null}',
    ],
    [
      "till_add_binary('s', '\\x00', 1, 2, notes => '{}')",
      "1",
      "1",
      'RingUp {"shop":"s","thing":"AA==","pieces":1,"patience":2,"pictureFile":null,"notes":{}}',
    ],
    ["till_ring_up_jsonb_batch('s', ARRAY['1'::jsonb, NULL])", "", "", 'RingUpBatch {"shop":"s"}\nt1,-\n1'],
    ["till_ring_up_binary_batch('s', ARRAY['\\x00'::bytea])", "", "", 'RingUpBatch {"shop":"s"}\nb1\nAA=='],
    ["till_ring_up_text_batch(NULL, NULL)", "", "", 'RingUpBatch {"shop":null}\nn\n'],
    ["till_line_text()", "ä", "ä", 'GetLine {"line":null,"form":"text"}'],
    ["till_line_json('a')", "[1]", [1], 'GetLine {"line":"a","form":"json"}'],
    ["till_line_binary('a')", "\\x00ff", Buffer.from([0, 255]), 'GetLine {"line":"a","form":"binary"}'],
    ["till_picture('x')", "\\x01", Buffer.from([1]), 'GetPicture {"thing":"x"}'],
    ["till_cashier()", "Ann", "Ann", "GetCashier {}"],
    ["till_count()", "5", "5", "Count {}"],
    [
      "till_bill('here')",
      JSON.stringify([bill, bill]),
      new Array(2).fill({ ...bill, picture: Buffer.alloc(1), notes: null }),
      'GetBill {"shop":"here"}',
    ],
    ["till_bill()", "[]", [], 'GetBill {"shop":null}'],
    ["till_state()", "7", [{ open: true, cents: "7" }], "GetState {}"],
    ["till_open_drawer()", "", "", "OpenDrawer {}"],
  ])("ask the gateway and return its answer as their type: %s", async (call, answer, returned, asked) => {
    expect(await ask(call, answer)).toEqual({ returned, asked });
  });

  it("return NULL where the gateway answers nothing", async () => {
    for (const call of ["till_line_text()", "till_line_jsonb()", "till_cashier()", "till_count()"]) {
      expect((await ask(call, null)).returned, call).toBeNull();
    }
  });

  it("say what is no JSON, and what to do", async () => {
    await expect(ask("till_line_jsonb()", "{")).rejects.toMatchObject({
      message: "till_line_jsonb: the value is not jsonb",
      detail: expect.stringContaining("invalid input syntax"),
      hint: expect.stringMatching(/./),
    });
  });

  it("are there under all their names, with defaults where the spec has them and comments", async () => {
    const { rows } = await client.query(
      `SELECT proname || '(' || pg_get_function_arguments(oid) || ') ' || pg_get_function_result(oid) AS says,
         obj_description(oid) AS comment, prosecdef AS definer, proconfig AS settings
       FROM pg_proc WHERE pronamespace = 'till'::regnamespace AND proname LIKE 'till%' ORDER BY 1`,
    );
    const ringUp = (name: string, type: string) =>
      `${name}(shop text, thing ${type}, pieces integer, patience integer, picture_file bytea DEFAULT NULL::bytea, notes jsonb DEFAULT NULL::jsonb) bigint`;
    const types = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" };
    const expected = [
      ...Object.entries(types).flatMap(([name, type]) => [
        ringUp(`till_ring_up_${name}`, type),
        ringUp(`till_add_${name}`, type),
        `till_ring_up_${name}_batch(shop text, things ${type}[]) void`,
        `till_line_${name}(line text DEFAULT NULL::text) ${type}`,
      ]),
      "till_picture(thing text) bytea",
      "till_cashier() text",
      "till_count() bigint",
      "till_bill(shop text DEFAULT NULL::text) TABLE(thing text, pieces smallint, unit_price bigint, rebate bigint, picture bytea, gift boolean, notes jsonb, lines jsonb)",
      "till_state() TABLE(open boolean, cents bigint)",
      "till_open_drawer() void",
    ];
    expect(rows.map(({ says }) => says).sort()).toEqual(expected.sort());
    for (const { says, definer, settings } of rows) {
      expect({ definer, settings }, says).toEqual({
        definer: true,
        settings: ["search_path=pg_catalog, pg_temp", "row_security=off"],
      });
    }
    const comments = new Map(rows.map(({ says, comment }) => [says.split("(")[0], comment]));
    expect(comments.get("till_add_json")).toBe("Rings something up. Who rings\nit up pays for it.");
    expect(comments.get("till_state")).toBe("The state of the till.");
  });

  it("have fixed settings of the spec in the place of their names", async () => {
    const { rows } = await client.query(
      "SELECT hawser.till_call('?') AS said, prosrc FROM pg_proc WHERE proname = 'till_state'",
    );
    expect(rows[0].said).toBe("till?#");
    expect(rows[0].prosrc).toContain("-- A cart is kept for 5000 ms.");
  });

  it("are hawser_nats's to call, but for what is internal, and nobody else's", async () => {
    const { rows } = await client.query(
      `SELECT proname AS name, a.grantee::regrole::text AS role, proowner::regrole::text AS owner, prosecdef AS definer
       FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
       WHERE proname LIKE 'till%' AND a.grantee <> proowner`,
    );
    // A superuser who installs is never the owner; another role may be.
    const installer = await client.query<{ name: string; isSuperuser: boolean }>(
      `SELECT r.rolname AS name, r.rolsuper AS "isSuperuser"
       FROM pg_namespace AS n JOIN pg_roles AS r ON r.oid = n.nspowner WHERE n.nspname = 'hawser'`,
    );
    const { name, isSuperuser } = installer.rows[0]!;
    expect(new Set(rows.map(({ role }) => role))).toEqual(new Set(["hawser_nats"]));
    const [owner, ...others] = new Set(rows.map((row) => row.owner));
    expect(others).toEqual([]);
    expect(["hawser_owner", ...(isSuperuser ? [] : [name])]).toContain(owner);
    expect(rows).toHaveLength(22);
    expect(rows.map(({ name }) => name)).not.toContain("till_call");
    await client.query("GRANT USAGE ON SCHEMA till TO hawser_nats; SET ROLE hawser_nats");
    await expect(client.query("SELECT hawser.till_call('x')")).rejects.toMatchObject({ code: "42501" });
    await client.query("RESET ROLE");
  });

  it("are listed as DROP FUNCTION names them", async () => {
    const signatures = made.till.sql["natsFunctionSignatures"];
    expect(signatures).toHaveLength(23);
    expect(signatures[0]).toBe("hawser.till_call(text)");
    for (const signature of signatures) {
      await client.query(`DROP FUNCTION ${signature.replace("@extschema@", "till")}`);
    }
  });
});

describe("the methods of the gateway", () => {
  const ringUp = { shop: "s", thing: "AA==", pieces: 1, patience: 7, pictureFile: "AQ==", notes: { a: 1 } };
  const method = (name: string) => made.till.methods["methods"][name];

  it("have their names in SQL, and say what changes, what takes a list, and their time limit", () => {
    const told = Object.entries<Record<string, unknown>>(made.till.methods["methods"]).map(
      ([name, { sqlName, changes, takesList, timeoutMs }]) => [
        name,
        sqlName,
        changes,
        takesList,
        timeoutMs !== undefined,
      ],
    );
    expect(told).toEqual([
      ["RingUp", "till_ring_up_*", true, false, true],
      ["RingUpBatch", "till_ring_up_*_batch", true, true, false],
      ["GetLine", "till_line_*", false, false, false],
      ["GetPicture", "till_picture", false, false, false],
      ["GetCashier", "till_cashier", false, false, false],
      ["Count", "till_count", false, false, false],
      ["GetBill", "till_bill", false, false, false],
      ["GetState", "till_state", false, false, false],
      ["OpenDrawer", "till_open_drawer", false, false, false],
    ]);
    expect(method("RingUp").timeoutMs({ patience: 7 })).toBe(7);
  });

  it("read what the functions in SQL send", () => {
    const things = [Uint8Array.of(1)];
    expect(method("RingUp").read(ringUp)).toEqual({
      ...ringUp,
      thing: Buffer.of(0),
      pictureFile: Buffer.of(1),
    });
    expect(method("RingUp").read({ shop: "s", thing: "", pieces: 1 })).toMatchObject({ patience: undefined });
    expect(method("RingUpBatch").read({ shop: "s" }, { payloads: things })).toEqual({ shop: "s", things });
    expect(method("GetLine").read({ line: null, form: "jsonb" })).toEqual({ line: undefined, form: "jsonb" });
    expect(method("GetBill").read({ shop: "there" })).toEqual({ shop: "there" });
    for (const name of ["GetCashier", "Count", "GetState", "OpenDrawer"]) expect(method(name).read({})).toEqual({});
  });

  it.each<[name: string, json: unknown, kind: string, argument: string]>([
    ["RingUp", { ...ringUp, shop: null }, "null", "shop"],
    ["RingUp", { ...ringUp, shop: "S" }, "rule", "shop"],
    ["RingUp", { ...ringUp, shop: "s".repeat(11) }, "rule", "shop"],
    ["RingUp", { ...ringUp, pieces: 100 }, "rule", "pieces"],
    ["RingUp", { ...ringUp, pieces: 0 }, "rule", "pieces"],
    ["RingUp", { ...ringUp, pictureFile: Buffer.alloc(101).toString("base64") }, "rule", "picture_file"],
    ["RingUp", { ...ringUp, picture_file: "" }, "form", '"picture_file"'],
    ["RingUp", { ...ringUp, notes: [] }, "rule", "notes"],
    ["RingUpBatch", { shop: "s", things: [] }, "form", '"things"'],
    ["GetLine", { line: "a" }, "null", "form"],
    ["GetBill", { shop: "everywhere" }, "rule", "shop"],
    ["GetState", { a: 1 }, "form", '"a"'],
  ])("%s refuses %j", (name, json, kind, argument) => {
    let fault: unknown;
    try {
      method(name).read(json, { payloads: [] });
    } catch (error) {
      fault = (error as { fault: unknown }).fault;
    }
    expect(fault).toMatchObject({ kind, argument });
  });

  it("have the handler answer, and write its answers as the functions in SQL read them", () => {
    const handler = new Proxy({}, { get: (_, name) => (request: unknown, call: unknown) => [name, request, call] });
    for (const name of Object.keys(made.till.methods["methods"])) {
      const handled = method(name).handle(handler, "request", "call");
      expect(handled).toEqual([name[0]!.toLowerCase() + name.slice(1), "request", "call"]);
    }
    const text = Buffer.from("ä");
    expect(method("RingUp").write(2n ** 60n)).toBe("1152921504606846976");
    expect(method("RingUpBatch").write(undefined)).toBeNull();
    expect(method("GetLine").write(text, { form: "json" })).toBe("ä");
    expect(method("GetLine").write(text, { form: "binary" })).toBe("\\xc3a4");
    expect(method("GetPicture").write(text)).toBe("\\xc3a4");
    expect(method("GetCashier").write("Ann")).toBe("Ann");
    expect(method("Count").write(5n)).toBe("5");
    for (const name of ["GetLine", "GetCashier", "Count", "OpenDrawer"]) {
      expect(method(name).write(undefined, { form: "binary" })).toBeNull();
    }
    const { unit_price: _, ...plain } = bill;
    const rows = [{ ...plain, unitPrice: 2n ** 53n + 1n, rebate: undefined, picture: Buffer.alloc(1) }];
    expect(JSON.parse(method("GetBill").write(rows))).toEqual([bill]);
    const [full] = JSON.parse(
      method("GetBill").write([{ ...rows[0], rebate: 1n, picture: undefined, notes: { a: 1 } }]),
    );
    expect(full).toMatchObject({ rebate: "1", picture: null, notes: { a: 1 } });
    expect(JSON.parse(method("GetState").write({ open: true, cents: 1n }))).toEqual([{ open: true, cents: "1" }]);
    expect(JSON.parse(method("GetState").write({ open: true }))).toEqual([{ open: true, cents: null }]);
  });
});

describe("the client", () => {
  const thing = new Uint8Array([0, 1]).subarray(1);
  const bytes = (payload: unknown) => ({ payload });

  it.each<[method: string, given: unknown[], row: unknown, text: string, values: unknown[], resolved: unknown]>([
    [
      "ringUp",
      ["s", thing, 1, { pictureFile: thing, notes: { a: 1 } }],
      { value: "9007199254740993" },
      'SELECT value::text AS value FROM "public".till_ring_up_binary($1::text, $2::bytea, $3::integer, $4::integer, $5::bytea, $6::text::jsonb) AS answer(value)',
      ["s", Buffer.of(1), 1, null, Buffer.of(1), '{"a":1}'],
      9007199254740993n,
    ],
    [
      "ringUpBatch",
      ["s", [{}, [1]]],
      {},
      'SELECT 1 FROM "public".till_ring_up_json_batch($1::text, $2::text[]::json[])',
      ["s", ["{}", "[1]"]],
      undefined,
    ],
    [
      "ringUpBatch",
      ["s", ["a"]],
      {},
      'SELECT 1 FROM "public".till_ring_up_text_batch($1::text, $2::text[])',
      ["s", ["a"]],
      undefined,
    ],
    [
      "line",
      [],
      { value: thing },
      'SELECT value AS value FROM "public".till_line_binary($1::text) AS answer(value)',
      [null],
      bytes(thing),
    ],
    [
      "line",
      [{ line: "l" }],
      { value: null },
      'SELECT value AS value FROM "public".till_line_binary($1::text) AS answer(value)',
      ["l"],
      undefined,
    ],
    [
      "picture",
      ["x"],
      { value: thing },
      'SELECT value AS value FROM "public".till_picture($1::text) AS answer(value)',
      ["x"],
      bytes(thing),
    ],
    ["cashier", [], { value: "Ann" }, 'SELECT value AS value FROM "public".till_cashier() AS answer(value)', [], "Ann"],
    [
      "count",
      [],
      { value: null },
      'SELECT value::text AS value FROM "public".till_count() AS answer(value)',
      [],
      undefined,
    ],
    [
      "bill",
      [],
      { ...bill, notes: null },
      'SELECT thing, pieces, unit_price::text, rebate::text, picture, gift, notes, lines FROM "public".till_bill($1::text)',
      [null],
      [
        {
          thing: "a",
          pieces: 1,
          unitPrice: 9007199254740993n,
          rebate: undefined,
          picture: bytes("\\x00"),
          gift: true,
          notes: undefined,
          lines: [1],
        },
      ],
    ],
    [
      "state",
      [],
      { open: true, cents: "7" },
      'SELECT open, cents::text FROM "public".till_state()',
      [],
      { open: true, cents: 7n },
    ],
  ])("calls %s", async (name, given, row, text, values, resolved) => {
    const asked: unknown[] = [];
    const query = async (text: string, values: unknown[]) => {
      asked.push({ text, values });
      return { rows: [row] };
    };
    const methods = sqlMethods(made.till.client["natsSqlMethods"], { query });
    expect(await methods[name]!(...given)).toEqual(resolved);
    expect(asked).toEqual([{ text, values }]);
  });

  it("has a method for each function for which the spec has one, and quotes its schema", async () => {
    const asked: string[] = [];
    const query = async (text: string) => {
      asked.push(text);
      return { rows: [{ value: null }] };
    };
    const methods = sqlMethods(made.till.client["natsSqlMethods"], { query }, 'a"b');
    expect(Object.keys(methods)).toEqual([
      ...["ringUp", "ringUpBatch", "line", "picture", "cashier", "count", "bill", "state"],
    ]);
    await methods["cashier"]!();
    expect(asked[0]).toContain('FROM "a""b".till_cashier()');
  });
});
