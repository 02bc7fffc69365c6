/**
 * Which relations of Hawser a role can name, that is, in which schemas they are that it may use. Whoever can name a relation can
 * hold up those who use it, without a privilege on it (`locks.test.ts`).
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** Schemas in which there are relations of Hawser that a role can name, by what the role is a member of. */
const parts: Readonly<Record<string, readonly string[]>> = {
  hawser_peer: ["hawser", "hawser_peer_data"],
  hawser_bridge: ["hawser", "hawser_bridge_data", "pgnats"],
  hawser_nats: ["hawser", "pgnats"],
  hawser_viewer: ["hawser"],
  hawser_executor: ["hawser"],
};

let database: TestDatabase;
let enqueuer: Login & AsyncDisposable;

beforeAll(async () => {
  database = await testDatabase();
  enqueuer = await login(database.url);
  await onServer(
    database.url,
    `GRANT USAGE ON SCHEMA hawser TO ${enqueuer.role}`,
    `GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hawser TO ${enqueuer.role}`,
  );
});
afterAll(async () => {
  await enqueuer?.[Symbol.asyncDispose]();
  await database?.drop();
});

interface Named {
  readonly schema: string;
  readonly name: string;
  readonly isView: boolean;
  /** Whether the role has any privilege on it, or on the table whose sequence it is. */
  readonly isGranted: boolean;
}

/** Tables, their parts, views and sequences that a role can name. */
async function namedBy(role: string): Promise<readonly Named[]> {
  const rows = await rowsOf(
    database.url,
    `SELECT n.nspname::text AS schema, n.nspname || '.' || c.relname AS name, c.relkind = 'v' AS "isView", EXISTS (
              SELECT FROM pg_class AS t CROSS JOIN LATERAL aclexplode(t.relacl) AS a
               WHERE a.grantee = '${role}'::regrole
                 AND (t.oid = c.oid OR t.oid IN (SELECT d.refobjid FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
            ) AS "isGranted"
       FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.nspname !~ '^(pg_|information_schema$)' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND has_schema_privilege('${role}', n.oid, 'USAGE')
      ORDER BY 2`,
  );
  return rows as unknown as readonly Named[];
}

const schemasOf = (named: readonly Named[]): string[] => [...new Set(named.map(({ schema }) => schema))].sort();

describe.each(Object.keys(parts))("%s", (role) => {
  it("can name relations of its own part alone", async () => {
    expect(schemasOf(await namedBy(role))).toEqual(parts[role]);
  });

  it("can name no table without a privilege on it", async () => {
    const tables = (await namedBy(role)).filter(({ isView }) => !isView);
    expect(tables.filter(({ isGranted }) => !isGranted).map(({ name }) => name)).toEqual([]);
  });
});

it("a login that may call functions of the schema hawser can name views alone", async () => {
  const named = await namedBy(enqueuer.role);
  expect(schemasOf(named)).toEqual(["hawser"]);
  expect(named.filter(({ isView }) => !isView)).toEqual([]);
});

it("no role but the owner can name a table that several parts use", async () => {
  const roles = [...Object.keys(parts), enqueuer.role];
  const named = (await Promise.all(roles.map(namedBy))).flat().map(({ name }) => name);
  const shared = ["outbox", "outbox_0", "queue", "schedules", "dead_letters", "owners", "fences", "migrations"];
  expect(named.filter((name) => shared.includes(name.replace("hawser_data.", "")))).toEqual([]);
});
