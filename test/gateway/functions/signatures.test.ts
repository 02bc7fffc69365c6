import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { methods } from "../../../generated/ts/nats-functions/methods.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { rowsOf } from "../../support/on-server.js";
import { callersFunctions, enqueuingFunctions, referenceFunctions } from "./reference-table.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());

interface Installed {
  readonly name: string;
  readonly parameters: string;
  readonly result: string;
  readonly definer: boolean;
  readonly settings: string[] | null;
  readonly volatility: string;
  readonly strict: boolean;
  readonly owner: string;
  readonly comment: string | null;
  readonly callers: string[];
}

/** The functions that fulfil a condition. */
async function installed(condition: string): Promise<Installed[]> {
  const rows = await rowsOf(
    database.url,
    `
    SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS parameters, pg_get_function_result(p.oid) AS result,
      p.prosecdef AS definer, p.proconfig AS settings, p.provolatile AS volatility, p.proisstrict AS strict,
      pg_get_userbyid(p.proowner) AS owner, obj_description(p.oid, 'pg_proc') AS comment,
      ARRAY(
        SELECT coalesce(r.rolname::text, 'PUBLIC')
        FROM aclexplode(p.proacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
      ) AS callers
    FROM pg_proc AS p
    WHERE ${condition}
    ORDER BY p.proname, p.oid`,
  );
  return rows as unknown as Installed[];
}

const byName = (a: { name: string; parameters: string }, b: typeof a): number =>
  `${a.name}(${a.parameters}` < `${b.name}(${b.parameters}` ? -1 : 1;

describe("the SQL functions", () => {
  it("are those of the reference: names, parameters, types, defaults and result columns, one function for each name", async () => {
    const rows = await installed("p.pronamespace = 'public'::regnamespace AND p.proname ~ 'nats'");
    const signatures = rows.map(({ name, parameters, result }) => ({ name, parameters, result }));
    expect(signatures.sort(byName)).toEqual([...referenceFunctions, ...callersFunctions].sort(byName));

    for (const found of rows) {
      expect(found, found.name).toMatchObject({
        ...(callersFunctions.some(({ name }) => name === found.name)
          ? { definer: false, settings: null }
          : { definer: true, settings: ["search_path=pg_catalog, pg_temp", "jit=off", "row_security=off"] }),
        volatility: "v",
        // A strict function would answer NULL to a NULL, and do nothing.
        strict: false,
        owner: "hawser_owner",
        callers: ["hawser_nats"],
      });
      expect(found.comment?.length, `comment of ${found.name}`).toBeGreaterThan(10);
    }
  });

  it("of the outbox are overloads: for topics of hawser_peer, and for subjects of hawser_nats", async () => {
    const rows = await installed(
      "p.pronamespace = 'hawser'::regnamespace AND p.proname ~ '^enqueue(_after|_batch|_unique)?$'",
    );
    const signatures = rows.map(({ name, parameters, result }) => ({ name, parameters, result }));
    expect(signatures.sort(byName)).toEqual([...enqueuingFunctions].sort(byName));
    for (const found of rows) {
      expect(found, found.parameters).toMatchObject({
        definer: true,
        settings: ["search_path=pg_catalog, pg_temp", "jit=off", "row_security=off"],
        volatility: "v",
        strict: false,
        owner: "hawser_owner",
        callers: [found.parameters.startsWith("topic ") ? "hawser_peer" : "hawser_nats"],
        comment: expect.stringMatching(found.parameters.startsWith("topic ") ? /for a peer/ : /for NATS/),
      });
    }
  });

  it("have the domain as the last parameter (behind it only deliver_at), optional, if they are of streams, buckets or stores", () => {
    const needsDomain = ({ name, parameters }: { name: string; parameters: string }) =>
      /(?:^|, )(?:bucket|store|stream) /.test(parameters) || /_(?:stream|ack)(?:_|$)/.test(name);
    const others = [...referenceFunctions, ...enqueuingFunctions].filter(
      (one) => needsDomain(one) !== / ?domain text DEFAULT NULL::text(?:, deliver_at [^,]+)?$/.test(one.parameters),
    );
    expect(others.map(({ name }) => name)).toEqual([]);
  });

  it("change something in NATS, so that a lost answer leaves open what happened, but for these", () => {
    const reading = Object.values(methods).flatMap(({ sqlName, changes }) => (changes ? [] : [sqlName]));
    expect(reading.sort()).toEqual([
      "litmus_pgnats_reload_conf",
      "litmus_pgnats_reload_conf_force",
      // It says itself when messages may be lost.
      "nats_flush",
      "nats_get_*",
      "nats_get_file",
      "nats_get_file_info",
      "nats_get_file_list",
      "nats_get_server_info",
      "nats_get_stream_list",
      "nats_kv_history",
      "nats_kv_keys",
    ]);
  });
});
