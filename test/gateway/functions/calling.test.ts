/**
 * Every function, called in the ways and places in which SQL calls functions.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { byName, callEveryFunction, prepareSamples } from "./every-function.js";
import { referenceFunctions } from "./reference-table.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** A witness of one test, with what the sample calls need. */
async function prepared(word: string): Promise<Witness> {
  const witness = await Witness.open(gateway.nats, `${word}.>`);
  await prepareSamples(witness, word);
  return witness;
}

const rowsOf = async (sql: string) => (await gateway.client.query(sql)).rows;

/** Runs the statements around the call, in the same session. */
const within =
  (before: readonly string[], after: readonly string[]) =>
  async (sql: string): Promise<Record<string, unknown>[]> => {
    for (const statement of before) await gateway.client.query(statement);
    const rows = await rowsOf(sql);
    for (const statement of after) await gateway.client.query(statement);
    return rows;
  };

describe("every function does its work", () => {
  it("with its arguments by position", async () => {
    await callEveryFunction("calls_position", await prepared("calls_position"), rowsOf);
  });

  it("with its arguments by name, in any order", async () => {
    await callEveryFunction("calls_name", await prepared("calls_name"), rowsOf, byName);
  });

  it("without the optional arguments", async () => {
    const witness = await prepared("calls_short");
    const value = (sql: string) => gateway.value(sql);
    await value("SELECT nats_publish_text('calls_short.core', 'x')");
    await value("SELECT nats_publish_text_stream('calls_short.stream.x', 'x')");
    await value("SELECT nats_publish_text_batch('calls_short.core', ARRAY['x', 'x'])");
    const seen = await witness.messages(4);
    expect(seen.map((one) => [one.string(), one.reply?.split(".")[0] ?? ""])).toEqual([
      ["x", ""],
      ["x", expect.stringMatching(/^_INBOX/)],
      ["x", ""],
      ["x", ""],
    ]);
    expect(await value("SELECT nats_put_text('calls_short', 'k', 'v')")).toBe("1");
    expect(await value("SELECT nats_get_text('calls_short', 'k')")).toBe("v");
    await value("SELECT nats_delete_value('calls_short', 'k')");
    expect(await witness.value("calls_short", "k")).toMatchObject({ operation: "DEL" });
    await value("SELECT nats_put_file('calls_short', 'f', 'c')");
    expect(await value("SELECT nats_get_file('calls_short', 'f')")).toEqual(Buffer.from("c"));
    expect(await value("SELECT count(*) FROM nats_get_file_list('calls_short')")).toBe("1");
    await value("SELECT nats_delete_file('calls_short', 'f')");
    expect(await witness.file("calls_short", "f")).toBeUndefined();
  });

  it("as prepared statements, with their plans made once and used again", async () => {
    let number = 0;
    await callEveryFunction("calls_prepared", await prepared("calls_prepared"), async (sql) => {
      const name = `call_${++number}`;
      await gateway.client.query(`SET plan_cache_mode = force_generic_plan; PREPARE ${name} AS ${sql}`);
      return rowsOf(`EXECUTE ${name}`);
    });
    await gateway.client.query("RESET plan_cache_mode");
    const witness = await Witness.open(gateway.nats, "calls_parameters.>");
    for (let round = 0; round < 8; round++) {
      const text = "SELECT nats_publish_text($1, $2, $3, $4)";
      const values = [`calls_parameters.${round}`, `payload ${round}`, null, { N: `${round}` }];
      await gateway.client.query({ name: "publish", text, values });
      const message = await witness.message();
      expect([message.subject, message.string(), message.headers?.get("N")]).toEqual([
        `calls_parameters.${round}`,
        `payload ${round}`,
        `${round}`,
      ]);
    }
  });

  it("in a read-only transaction", async () => {
    const run = within(["BEGIN READ ONLY"], ["COMMIT"]);
    await callEveryFunction("calls_read_only", await prepared("calls_read_only"), run);
  });

  it("in a serializable, read-only, deferrable transaction", async () => {
    const run = within(["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"], ["COMMIT"]);
    await callEveryFunction("calls_deferrable", await prepared("calls_deferrable"), run);
  });

  it("below savepoints, and in a transaction that goes on after an error", async () => {
    const failing = async () => {
      await gateway.client.query("SAVEPOINT a");
      expect(await gateway.errorOf("SELECT nats_publish_text('no good', 'x')")).toMatchObject({ code: "22023" });
      await gateway.client.query("ROLLBACK TO SAVEPOINT a");
    };
    await callEveryFunction("calls_savepoint", await prepared("calls_savepoint"), async (sql) => {
      await gateway.client.query("BEGIN; SAVEPOINT outermost");
      await failing();
      const rows = await rowsOf(sql);
      await gateway.client.query("RELEASE SAVEPOINT outermost");
      await failing();
      await gateway.client.query("COMMIT");
      return rows;
    });
  });

  it("inside functions of SQL", async () => {
    await callEveryFunction("calls_sql", await prepared("calls_sql"), async (sql, { name }) => {
      const { result } = referenceFunctions.find((one) => one.name === name)!;
      await gateway.client.query(`CREATE FUNCTION pg_temp.around() RETURNS ${result} LANGUAGE sql AS $$ ${sql} $$`);
      const rows = await rowsOf(`SELECT * FROM pg_temp.around() AS ${name}`);
      await gateway.client.query("DROP FUNCTION pg_temp.around()");
      return rows;
    });
  });

  it("inside functions of PL/pgSQL, in blocks with EXCEPTION, after one that was caught", async () => {
    await callEveryFunction("calls_plpgsql", await prepared("calls_plpgsql"), async (sql, { name }) => {
      const { result } = referenceFunctions.find((one) => one.name === name)!;
      const call = sql.replace("SELECT * FROM ", "");
      const body = result.startsWith("TABLE")
        ? `RETURN QUERY ${sql};`
        : result === "void"
          ? `PERFORM ${call};`
          : `RETURN ${call};`;
      await gateway.client.query(`
        CREATE FUNCTION pg_temp.around() RETURNS ${result} LANGUAGE plpgsql AS $$
        BEGIN
          BEGIN
            PERFORM nats_request_text('nobody_listens_here', 'x', 1000);
            RAISE EXCEPTION 'somebody answered';
          EXCEPTION
            WHEN SQLSTATE 'NA002' THEN NULL;
          END;
          BEGIN
            ${body}
          EXCEPTION
            WHEN division_by_zero THEN RAISE;
          END;
        END
        $$`);
      const rows = await rowsOf(`SELECT * FROM pg_temp.around() AS ${name}`);
      await gateway.client.query("DROP FUNCTION pg_temp.around()");
      return rows;
    });
  });

  it("in a DO block, whose rollback takes nothing back", async () => {
    const witness = await Witness.open(gateway.nats, "calls_do.>");
    const error = await gateway.errorOf(`
      DO $$
      DECLARE
        revision bigint;
      BEGIN
        PERFORM nats_publish_text('calls_do.told', 'before');
        revision := nats_put_text('calls_do', 'k', 'v');
        RAISE EXCEPTION 'revision %', revision;
      END
      $$`);
    expect(error.message).toBe("revision 1");
    expect((await witness.message()).string()).toBe("before");
    expect((await witness.value("calls_do", "k"))?.string()).toBe("v");
  });

  it("over many rows of one statement, in their order", async () => {
    const witness = await Witness.open(gateway.nats, "calls_rows.>");
    await gateway.value("SELECT count(nats_publish_text('calls_rows.n', n::text)) FROM generate_series(1, 500) AS n");
    const seen = await witness.messages(500);
    expect(seen.map((one) => one.string())).toEqual(Array.from({ length: 500 }, (_, index) => `${index + 1}`));
  });
});
