/**
 * Which schemas on the paths of Hawser's logins are named, as `hawser init` reports it.
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

const suffix = randomBytes(4).toString("hex");
const bridge = `test_bridge_${suffix}`;
const peer = `test_peer_${suffix}`;
const stranger = `test_stranger_${suffix}`;

let database: TestDatabase;
const named = async (): Promise<string[]> =>
  (await install({ databaseUrl: database.url })).warnings.filter((line) => line.includes("search_path"));

beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `CREATE ROLE ${bridge} LOGIN IN ROLE hawser_bridge`,
    `CREATE ROLE ${peer} LOGIN IN ROLE hawser_peer`,
    `CREATE ROLE ${stranger} LOGIN`,
    // The logins of other tests come and go: nothing is on their paths here.
    `ALTER DATABASE ${database.name} SET search_path = pg_catalog`,
  );
});
afterAll(async () => {
  await onServer(database.url, `DROP OWNED BY ${bridge}, ${peer}, ${stranger} CASCADE`);
  for (const role of [bridge, peer, stranger]) await onServer(database.url, `DROP ROLE ${role}`);
  await database.drop();
});

describe("a schema on the search_path of a login of Hawser", () => {
  beforeEach(async () => {
    await onServer(
      database.url,
      "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
      `DROP SCHEMA IF EXISTS ${bridge}, ${peer}, aside, "of, all" CASCADE`,
      `ALTER ROLE ${bridge} SET search_path = "$user", public`,
      `ALTER ROLE ${peer} RESET search_path`,
      `ALTER ROLE ${peer} IN DATABASE ${database.name} RESET search_path`,
    );
  });

  it("is not named where nobody else may create in it", async () => {
    await onServer(
      database.url,
      `CREATE SCHEMA ${peer} AUTHORIZATION ${peer}`,
      "CREATE SCHEMA aside",
      "GRANT CREATE ON SCHEMA aside TO PUBLIC",
    );
    expect(await named()).toEqual([]);
  });

  it("is named where every role may create objects in it, with the logins and the statement that ends it", async () => {
    await onServer(database.url, "GRANT CREATE ON SCHEMA public TO PUBLIC");
    const [line, ...others] = await named();
    expect(others).toEqual([]);
    // Files that run beside this one have logins of Hawser, too.
    expect(line).toContain(`every role may create objects in the schema "public", which is on the search_path of `);
    expect(line).toContain(`"${bridge}"`);
    const [, statement] = /: (REVOKE .*)$/.exec(line!)!;
    expect(statement).toBe('REVOKE CREATE ON SCHEMA "public" FROM PUBLIC');
    await onServer(database.url, statement!);
    expect(await named()).toEqual([]);
  });

  it("is named where it is named like the login and belongs to somebody else, with a path without it", async () => {
    await onServer(database.url, `CREATE SCHEMA ${bridge} AUTHORIZATION ${stranger}`);
    const [line, ...others] = await named();
    expect(others).toEqual([]);
    expect(line).toContain(`the schema "${bridge}", which is on the search_path of the login of the same name`);
    expect(line).toContain(`belongs to "${stranger}"`);
    const [, statement] = /: (ALTER ROLE .*)$/.exec(line!)!;
    expect(statement).toBe(`ALTER ROLE "${bridge}" SET search_path = "public"`);
    await onServer(database.url, statement!);
    expect(await named()).toEqual([]);
  });

  it("is found by the path that the login has in this database, whatever characters its name has", async () => {
    await onServer(
      database.url,
      'CREATE SCHEMA "of, all"',
      'GRANT CREATE ON SCHEMA "of, all" TO PUBLIC',
      `ALTER ROLE ${peer} SET search_path = "of, all"`,
      `ALTER ROLE ${peer} IN DATABASE ${database.name} SET search_path = pg_catalog`,
    );
    expect(await named()).toEqual([]);
    await onServer(database.url, `ALTER ROLE ${peer} IN DATABASE ${database.name} RESET search_path`);
    expect(await named()).toEqual([
      expect.stringContaining(`"of, all", which is on the search_path of "${peer}": statements of this login`),
    ]);
  });
});
