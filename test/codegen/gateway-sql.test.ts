/**
 * The golden SQL of codegen/gateway runs.
 */
import { readFileSync } from "node:fs";
import pg from "pg";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";

const golden = (name: string) => readFileSync(new URL(`golden/gateway/sql/${name}`, import.meta.url), "utf8");

/** Does what the gateway does: gives back what the test has told it. */
const fakeGateway = `CREATE FUNCTION hawser.gateway_call(p_query text) RETURNS text LANGUAGE sql AS $$
  SELECT current_setting('test.answer', true) $$`;

it("makes functions that return what the gateway answers, as their types, under all names", async () => {
  await using database = await testDatabase();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    await client.query("CREATE SCHEMA till");
    await client.query(fakeGateway);
    const install = async () => {
      for (const name of ["functions.sql", "grants.sql"]) {
        await client.query(golden(name).replaceAll("@extschema@", "till").replaceAll("@dblink@", "public"));
      }
    };
    await install();
    // A second time replaces them.
    await install();
    const ask = async (call: string, answer: string): Promise<unknown> => {
      await client.query("SELECT set_config('test.answer', $1, false)", [answer]);
      const { rows } = await client.query(`SELECT * FROM till.${call}`);
      return rows.length === 1 && Object.keys(rows[0]).length === 1 ? Object.values(rows[0])[0] : rows;
    };
    expect(await ask("till_ring_up_text('s', 'x', 1, NULL)", "9223372036854775807")).toBe("9223372036854775807");
    expect(await ask("till_add_binary('s', '', 1, NULL, notes => '{}')", "1")).toBe("1");
    expect(await ask("till_ring_up_jsonb_batch('s', ARRAY['1'::jsonb, NULL])", "")).toBe("");
    expect(await ask("till_line_text()", "ä")).toBe("ä");
    expect(await ask("till_line_json('a')", "[1]")).toEqual([1]);
    expect(await ask("till_line_binary('a')", "\\x00ff")).toEqual(Buffer.from([0, 255]));
    const bill = {
      thing: "a",
      pieces: 1,
      unit_price: "9007199254740993",
      rebate: null,
      picture: "\\x00",
      gift: true,
      lines: [1],
    };
    expect(await ask("till_bill('here')", JSON.stringify([bill, bill]))).toEqual(
      new Array(2).fill({ ...bill, picture: Buffer.alloc(1), notes: null }),
    );
    expect(await ask("till_bill()", "[]")).toEqual([]);
    await expect(ask("till_line_jsonb()", "{")).rejects.toMatchObject({
      message: "till_line_jsonb: the value is not jsonb",
      detail: expect.stringContaining("invalid input syntax"),
      hint: expect.stringMatching(/./),
    });
    const { rows: open } = await client.query(
      `SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
        WHERE pronamespace = 'till'::regnamespace AND a.grantee = 0`,
    );
    expect(open).toEqual([]);
    await client.query("GRANT USAGE ON SCHEMA till TO hawser_nats; SET ROLE hawser_nats");
    await expect(client.query("SELECT hawser.till_call('x')")).rejects.toMatchObject({ code: "42501" });
  } finally {
    await client.end();
  }
});
