/**
 * Installing on a server that has never seen Hawser: roles belong to the whole server.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { install, publicFunctionCount } from "../../src/operating/installation/index.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { schemaOwner } from "../store/support/schema-owner.js";
import { makeInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { complete, executorOf, loginSql } from "./support/executor.js";
import { codeOf, deadGateway, login } from "./support/logins.js";
import { expectToReachDblink, lacking, onlySuperusers, wrappersAndTriggers } from "./support/missing-privileges.js";

let server: OwnPostgres;
/** The superuser's, of an empty database `app`. */
let url: string;

beforeAll(async () => {
  server = await ownPostgres();
});
afterAll(() => server?.[Symbol.asyncDispose]());

/** Afterwards nothing is left of the test before. */
beforeEach(async () => {
  const databases = await rowsOf(
    server.url,
    "SELECT datname AS name FROM pg_database WHERE datname !~ '^(postgres|template)'",
  );
  for (const { name } of databases) await onServer(server.url, `DROP DATABASE "${name}" WITH (FORCE)`);
  const roles = await rowsOf(server.url, "SELECT rolname AS name FROM pg_roles WHERE rolname !~ '^(postgres$|pg_)'");
  await onServer(server.url, ...roles.flatMap(({ name }) => [`DROP OWNED BY "${name}"`, `DROP ROLE "${name}"`]));
  url = await newDatabase("app");
});

async function newDatabase(name: string): Promise<string> {
  await onServer(server.url, `CREATE DATABASE ${name}`);
  const whole = new URL(server.url);
  whole.pathname = `/${name}`;
  return whole.href;
}

/** The database as another user sees it. */
function as(user: string): string {
  const whole = new URL(url);
  whole.username = user;
  whole.password = "test";
  return whole.href;
}

describe("installing on a server of one's own", () => {
  it("works with CREATE on the database alone, names what is missing, and catches up when it is there", async () => {
    await onServer(url, "CREATE ROLE app LOGIN PASSWORD 'test'", "GRANT CREATE ON DATABASE app TO app");
    const databaseUrl = as("app");

    // What NATS from SQL asks for beyond that is tried below.
    const peersAlone = { databaseUrl, nats: false } as const;
    const foreseen = await install({ ...peersAlone, dryRun: true });
    expect(foreseen.missingPrivileges.map(({ what }) => what)).toEqual([
      'the role hawser_owner is missing, and "app" may not make roles',
      'the role hawser_peer is missing, and "app" may not make roles',
      'the role hawser_bridge is missing, and "app" may not make roles',
      'the role hawser_viewer is missing, and "app" may not make roles',
      'the role hawser_nats is missing, and "app" may not make roles',
      'the role hawser_executor is missing, and "app" may not make roles',
    ]);
    const alone = await install(peersAlone);
    expect(alone.migrations.length).toBeGreaterThan(0);
    expect(alone.missingPrivileges).toEqual(foreseen.missingPrivileges);
    expect(alone.missingPrivileges[0]!.remedy).toContain("CREATE ROLE hawser_owner NOLOGIN");

    // It works all the same: peers run as the owner of the schema.
    await using peer = new Peer({ name: "one", topic: "one", listen: "127.0.0.1:0", databaseUrl });
    await peer.start();
    await peer.stop();

    await onServer(url, ...foreseen.missingPrivileges.map(({ remedy }) => /CREATE ROLE \w+ NOLOGIN/.exec(remedy)![0]));
    const withRoles = await install(peersAlone);
    expect(withRoles.missingPrivileges).toMatchObject([
      {
        what: expect.stringMatching(/^\d+ objects of Hawser's schemas belong to "app" and not to hawser_owner$/),
      },
    ]);
    expect(withRoles.missingPrivileges[0]!.remedy).toContain('GRANT hawser_owner TO "app"');
    await onServer(url, 'GRANT hawser_owner TO "app"');
    expect((await install(peersAlone)).missingPrivileges).toEqual([]);
    expect((await install({ ...peersAlone, dryRun: true })).missingPrivileges).toEqual([]);

    // And the roles are what they are elsewhere.
    await onServer(url, "CREATE ROLE worker LOGIN PASSWORD 'test' IN ROLE hawser_peer");
    await using worker = new Peer({
      name: "w",
      topic: "w",
      listen: "127.0.0.1:0",
      databaseUrl: as("worker"),
    });
    await worker.start();
  });

  it("says of a role that may not even make the schema what it needs", async () => {
    await onServer(url, "CREATE ROLE app LOGIN PASSWORD 'test'");
    const databaseUrl = as("app");
    const error = await install({ databaseUrl }).catch((thrown) => thrown);
    expect(error instanceof HawserError && error.code).toBe("schema_missing");
    expect(error.message).toContain('GRANT CREATE ON DATABASE "app" TO "app"');
    const { missingPrivileges } = await install({ databaseUrl, dryRun: true });
    expect(missingPrivileges[0]).toMatchObject({ meaning: "`hawser init` will fail" });
  });

  it("takes turns, also with others that prepare other databases of the same server", async () => {
    const urls = [url, await newDatabase("b"), await newDatabase("c")];
    const reports = await Promise.all(
      [...urls, ...urls, ...urls, ...urls].map((databaseUrl) => install({ databaseUrl })),
    );
    expect(reports.flatMap(({ missingPrivileges }) => missingPrivileges)).toEqual([]);
    expect(reports.filter(({ migrations }) => migrations.length > 0)).toHaveLength(3);
  });
});

describe("on a server that has never seen Hawser", () => {
  it("a role that may make roles installs with all of them; one that may not, without", async () => {
    const urls = [url, await newDatabase("other")];
    const plain = await makeInstaller(urls[0]!);
    const alone = await install({ databaseUrl: plain.url });
    expect(alone.nats).toMatchObject({ functions: publicFunctionCount });
    expect(lacking(alone.missingPrivileges)).toEqual([
      ...["hawser_owner", "hawser_peer", "hawser_bridge", "hawser_viewer", "hawser_nats", "hawser_executor"].map(
        (role) => `the role ${role} is missing, and "${plain.role}" may not make roles`,
      ),
      ...onlySuperusers,
    ]);
    // The owner of all of it can call it.
    await deadGateway(urls[0]!);
    expect(await codeOf(plain.url, "SELECT nats_flush()")).toBe("08001");

    const creator = await makeInstaller(urls[1]!, { createRole: true });
    const { missingPrivileges } = await install({ databaseUrl: creator.url });
    expect(lacking(missingPrivileges).filter((what) => !what.startsWith("SQL functions in the schema"))).toEqual(
      wrappersAndTriggers,
    );
    expect(await schemaOwner(urls[1]!)).toBe("hawser_owner");
    expect(await rowsOf(urls[1]!, loginSql(await executorOf(urls[1]!)))).toEqual([complete]);
    await expectToReachDblink(urls[1]!);

    // And a superuser completes both.
    await onServer(urls[0]!, `GRANT hawser_owner TO ${plain.role}`);
    for (const databaseUrl of urls) {
      expect(await install({ databaseUrl })).toMatchObject({ nats: { eventTriggers: true }, missingPrivileges: [] });
      await expectToReachDblink(databaseUrl);
    }
  });

  it.each([
    ["that knows nothing of dblink", "SELECT"],
    ["with a dblink that nobody may use", "CREATE SCHEMA hawser_dblink; CREATE EXTENSION dblink SCHEMA hawser_dblink"],
  ])("a superuser has all statements to run at once for a role of few rights, in a database %s", async (_, prepare) => {
    await onServer(
      url,
      prepare,
      "REVOKE ALL ON SCHEMA public FROM PUBLIC",
      "CREATE ROLE few LOGIN PASSWORD 'test'",
      "GRANT CREATE ON DATABASE app TO few",
    );
    const few = as("few");
    const foreseen = await install({ databaseUrl: few, dryRun: true });
    const { nats, missingPrivileges, superuserStatements } = await install({ databaseUrl: few });
    expect(nats).toMatchObject({ functions: 0 });
    expect(missingPrivileges[0]!.what).toMatch(/^dblink is not installed|^the SQL functions/);
    expect(superuserStatements).toEqual(
      expect.arrayContaining([
        "CREATE ROLE hawser_nats NOLOGIN;",
        'GRANT USAGE, CREATE ON SCHEMA "public" TO hawser_owner;',
      ]),
    );
    expect(foreseen.superuserStatements).toEqual(superuserStatements);

    await onServer(url, ...superuserStatements);
    const dry = await install({ databaseUrl: few, dryRun: true });
    expect(dry.missingPrivileges.map(({ what }) => what)).toEqual(onlySuperusers);
    const after = await install({ databaseUrl: few });
    expect(after.nats).toMatchObject({ functions: publicFunctionCount, dblinkSchema: "hawser_dblink" });
    expect(after.missingPrivileges.map(({ what }) => what)).toEqual(onlySuperusers);
    expect(after.superuserStatements).toEqual([]);
    await deadGateway(url);
    await using caller = await login(url, "IN ROLE hawser_nats");
    expect(await codeOf(caller.url, "SELECT nats_flush()")).toBe("08001");
    expect(await install({ databaseUrl: url })).toMatchObject({ missingPrivileges: [], superuserStatements: [] });
    expect(await install({ databaseUrl: few })).toMatchObject({ missingPrivileges: [], superuserStatements: [] });
  });
});

describe("roles of Hawser that are there already", () => {
  it("are named where they may more than they are for, and who may act as the owner", async () => {
    await onServer(
      url,
      "CREATE ROLE eve LOGIN",
      "CREATE ROLE hawser_owner LOGIN PASSWORD 'x'",
      "CREATE ROLE hawser_peer CREATEROLE",
      "GRANT hawser_owner TO eve",
    );
    const { roleWarnings } = await install({ databaseUrl: url });
    expect(roleWarnings).toEqual([
      expect.stringContaining("ALTER ROLE hawser_owner NOLOGIN"),
      expect.stringContaining("ALTER ROLE hawser_peer NOCREATEROLE"),
      expect.stringContaining('"eve" is a member of hawser_owner'),
    ]);
    await onServer(
      url,
      "ALTER ROLE hawser_owner NOLOGIN",
      "ALTER ROLE hawser_peer NOCREATEROLE",
      'REVOKE hawser_owner FROM "eve"',
    );
    expect((await install({ databaseUrl: url })).roleWarnings).toEqual([]);
  });

  it("are named with those who are in them, before they get anything here, and with whoever may put others in", async () => {
    await onServer(
      url,
      "CREATE ROLE eve LOGIN",
      "CREATE ROLE hawser_bridge",
      "CREATE ROLE hawser_peer",
      "GRANT hawser_bridge TO eve",
      "GRANT hawser_peer TO eve WITH ADMIN OPTION",
    );
    const inBridge = expect.stringMatching(
      /hawser_bridge was there .* "eve" .*password.*REVOKE hawser_bridge FROM "eve"$/,
    );
    const inPeer = expect.stringMatching(/hawser_peer was there .* "eve" .*secret.*REVOKE hawser_peer FROM "eve"$/);
    const admin =
      '"eve" may put others into hawser_peer, and take its members out: REVOKE ADMIN OPTION FOR hawser_peer FROM "eve"';
    const foreseen = await install({ databaseUrl: url, dryRun: true });
    expect(foreseen.roleWarnings).toEqual([inBridge, inPeer, admin]);
    expect((await install({ databaseUrl: url })).roleWarnings).toEqual([inBridge, inPeer, admin]);
    // Who is a member is for the operator to say, who knows it by now.
    expect((await install({ databaseUrl: url })).roleWarnings).toEqual([admin]);
    await onServer(url, "REVOKE ADMIN OPTION FOR hawser_peer FROM eve");
    expect((await install({ databaseUrl: url })).roleWarnings).toEqual([]);
  });
});
