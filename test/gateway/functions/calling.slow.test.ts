/**
 * Every function, called in the ways and places in which SQL calls functions, in sessions that are set up in their own way.
 */
import { afterAll, beforeAll, describe, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { everyFunction, everyFunctionIn, inTransaction, type Run } from "./calling-ways.js";
import { byName, byPosition, isOptional } from "./every-function.js";
import { referenceFunctions } from "./reference-table.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

const rowsOf = async (sql: string) => (await gateway.client.query(sql)).rows;

/** Calls a function in the body of another one, which `create` makes. */
const inside =
  (create: (sql: string, result: string) => string): Run =>
  async (sql, { name }) => {
    const { result } = referenceFunctions.find((one) => one.name === name)!;
    await gateway.client.query(`CREATE FUNCTION pg_temp.around() RETURNS ${result} ${create(sql, result)}`);
    const rows = await rowsOf(`SELECT * FROM pg_temp.around() AS ${name}`);
    await gateway.client.query("DROP FUNCTION pg_temp.around()");
    return rows;
  };

describe("every function does its work", () => {
  it("with its arguments by name, in any order", async () => {
    await everyFunction(gateway, "calls_name", rowsOf, byName);
  });

  it("with NULL for what is optional, which means the default", async () => {
    // What the sample calls look for afterwards.
    const needed = (fn: string) => (/_(create|update)_stream$/.test(fn) ? /^(?!domain$)/ : /^(headers|reply)$/);
    const isNull = (fn: string, parameter: string) => isOptional(fn, parameter) && !needed(fn).test(parameter);
    await everyFunction(gateway, "calls_null", rowsOf, (call) => {
      const given = Object.entries(call.given).map(([name, literal]) => [
        name,
        isNull(call.name, name) ? "NULL" : literal,
      ]);
      return byPosition({ ...call, given: Object.fromEntries(given) });
    });
  });

  it("as prepared statements, with their plans made once and used again", async () => {
    let number = 0;
    await everyFunction(gateway, "calls_prepared", async (sql) => {
      const name = `call_${++number}`;
      await gateway.client.query(`SET plan_cache_mode = force_generic_plan; PREPARE ${name} AS ${sql}`);
      return rowsOf(`EXECUTE ${name}`);
    });
    await gateway.client.query("RESET plan_cache_mode");
  });

  it("in a serializable, read-only, deferrable transaction, below savepoints, that goes on after errors", async () => {
    await everyFunction(gateway, "calls_transaction", (sql) => inTransaction(gateway, sql));
  });

  it("inside functions of SQL", async () => {
    await everyFunction(
      gateway,
      "calls_sql",
      inside((sql) => `LANGUAGE sql AS $$ ${sql} $$`),
    );
  });

  it("inside functions of PL/pgSQL, in blocks with EXCEPTION, after one that was caught", async () => {
    const inPlpgsql = inside((sql, result) => {
      const call = sql.replace("SELECT * FROM ", "");
      const isTable = result.startsWith("TABLE");
      const body = isTable ? `RETURN QUERY ${sql};` : result === "void" ? `PERFORM ${call};` : `RETURN ${call};`;
      return `LANGUAGE plpgsql AS $$
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
        $$`;
    });
    await everyFunction(gateway, "calls_plpgsql", inPlpgsql);
  });

  it.each<[string, readonly string[]]>([
    [
      "other settings of all kinds",
      [
        "SET bytea_output = escape",
        "SET client_encoding = LATIN1",
        "SET DateStyle = 'SQL, DMY'",
        "SET IntervalStyle = sql_standard",
        "SET TimeZone = 'Pacific/Chatham'",
        "SET extra_float_digits = -15",
        "SET standard_conforming_strings = off",
        "SET escape_string_warning = on",
        "SET backslash_quote = off",
        "SET quote_all_identifiers = on",
        "SET array_nulls = off",
        "SET transform_null_equals = on",
        "SET default_transaction_read_only = on",
        "SET default_transaction_isolation = serializable",
        "SET session_replication_role = replica",
        "SET row_security = off",
        "SET client_min_messages = debug2",
      ],
    ],
    [
      "other plans",
      [
        "SET debug_parallel_query = on",
        "SET parallel_setup_cost = 0",
        "SET min_parallel_table_scan_size = 0",
        "SET plan_cache_mode = force_custom_plan",
        "SET plpgsql.extra_errors = 'all'",
        "SET plpgsql.variable_conflict = 'use_column'",
        "SET search_path = public",
      ],
    ],
  ])("in a session with %s, which it leaves alone", async (name, statements) => {
    await everyFunctionIn(gateway, `calls_${name.replaceAll(" ", "_")}`, statements);
  });
});
