/**
 * ALTER DEFAULT PRIVILEGES of whoever installs gives nobody anything of ours.
 */
import pg from "pg";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { install, publicFunctionCount } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { limitedInstaller } from "../support/limited-installer.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { catalogOf } from "./support/catalog.js";
import { codeOf, login } from "./support/logins.js";

const kinds = ["TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"];

/** Everything that is made later is given to a role. */
const giveAll = (role: string, options = "") =>
  kinds.map((kind) => `ALTER DEFAULT PRIVILEGES GRANT ALL ON ${kind} TO ${role}${options}`);

const databases: TestDatabase[] = [];
let database: TestDatabase;

beforeEach(async () => {
  database = await emptyDatabase();
});
afterAll(async () => {
  for (const each of databases) await each.drop();
});

async function emptyDatabase(): Promise<TestDatabase> {
  const made = await testDatabase({ migrated: false });
  databases.push(made);
  return made;
}

async function installed(): Promise<TestDatabase> {
  const made = await testDatabase();
  databases.push(made);
  return made;
}

/** Reads the catalog of an installation by a superuser under unchanged default privileges. */
async function plainCatalog(): Promise<string[]> {
  const byOthers = Boolean(process.env["HAWSER_TEST_INSTALLER"]);
  await using plain = await testDatabase({ migrated: !byOthers });
  if (byOthers) await install({ databaseUrl: plain.url });
  return await catalogOf(plain.url);
}

describe("default privileges of the installing role", () => {
  it.each([
    [
      "for roles, also ones that may pass them on, for every role, and within the schema of the functions",
      (role: string) => [
        ...giveAll(role),
        ...giveAll("hawser_peer", " WITH GRANT OPTION"),
        ...giveAll("PUBLIC"),
        `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO ${role}`,
      ],
    ],
    [
      "that leave out the owner",
      (role: string) => [
        ...kinds.map((kind) => `ALTER DEFAULT PRIVILEGES REVOKE ALL ON ${kind} FROM CURRENT_USER`),
        // Postgres takes an empty list for none at all.
        ...giveAll(role),
      ],
    ],
    [
      "that take from everybody what everybody may",
      () => ["ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"],
    ],
  ])("%s change nothing in what is installed", async (_, statements) => {
    await using reader = await login(database.url);
    await onServer(database.url, ...statements(reader.role));
    expect(await install({ databaseUrl: database.url })).toMatchObject({
      nats: { functions: publicFunctionCount, warnings: [] },
      missingPrivileges: [],
      warnings: [],
    });
    expect(await catalogOf(database.url)).toEqual(await plainCatalog());
  });

  it("let nobody call a function, read a secret or set the server; not with hawser_nats either", async () => {
    await using reader = await login(database.url);
    await onServer(database.url, ...giveAll(reader.role));
    await install({ databaseUrl: database.url });
    await onServer(database.url, "INSERT INTO hawser_bridge_data.gateways (host, port) VALUES ('127.0.0.1', 1)");
    expect(await codeOf(reader.url, "SELECT public.nats_flush()")).toBe("42501");
    await onServer(database.url, `GRANT hawser_nats TO ${reader.role}`);
    // Now it gets as far as to the gateway, which is not there; and no further.
    expect(await codeOf(reader.url, "SELECT public.nats_flush()")).toBe("08001");
    for (const statement of [
      "SELECT password FROM hawser_bridge_data.gateway_secret",
      "SELECT options FROM hawser_bridge_data.nats_server",
      "SELECT secret FROM hawser_peer_data.mesh_secret",
      "DELETE FROM hawser_bridge_data.gateways",
      "SELECT nextval('hawser_peer_data.stored_messages_id_seq')",
      `SELECT hawser.set_nats_server('{"host": "evil"}')`,
      "SELECT hawser.gateway_conninfo()",
      "SELECT hawser.gateway_call('')",
      "SELECT hawser.own_name('theirs', 'twin', 1)",
      "SELECT hawser_dblink.dblink_get_connections()",
      "CREATE TABLE hawser.mine (id integer)",
    ]) {
      expect(`${statement}: ${await codeOf(reader.url, statement)}`).toBe(`${statement}: 42501`);
    }
  });

  it("in a schema hawser that was made by hand do not count either", async () => {
    await using reader = await login(database.url);
    await onServer(
      database.url,
      "CREATE SCHEMA hawser",
      ...["hawser_data", "hawser_peer_data", "hawser_bridge_data"].map((name) => `CREATE SCHEMA ${name}`),
      ...["TABLES", "SEQUENCES", "FUNCTIONS"].map(
        (kind) =>
          `ALTER DEFAULT PRIVILEGES IN SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data GRANT ALL ON ${kind} TO ${reader.role}`,
      ),
    );
    expect(await install({ databaseUrl: database.url })).toMatchObject({ missingPrivileges: [], warnings: [] });
    expect(await catalogOf(database.url)).toEqual(await plainCatalog());
  });

  it("are left out by a peer that migrates, and by the SQL of a dry run", async () => {
    await using reader = await login(database.url);
    await onServer(database.url, ...giveAll(reader.role));
    const { sql } = await install({ databaseUrl: database.url, dryRun: true });
    await onServer(database.url, sql!);
    expect(await catalogOf(database.url)).toEqual(await plainCatalog());

    const [other, plain] = [await emptyDatabase(), await emptyDatabase()];
    await using second = await login(other.url);
    await onServer(other.url, ...giveAll(second.role));
    await migrate({ databaseUrl: other.url });
    await migrate({ databaseUrl: plain.url });
    expect(await catalogOf(other.url)).toEqual(await catalogOf(plain.url));
  });

  it("are left out by several that install at once: all succeed, and it is as if one had", async () => {
    await using reader = await login(database.url);
    await onServer(database.url, ...giveAll(reader.role));
    const reports = await Promise.all(Array.from({ length: 4 }, () => install({ databaseUrl: database.url })));
    for (const report of reports) {
      expect(report).toMatchObject({
        nats: { schema: "public", functions: publicFunctionCount, eventTriggers: true, warnings: [] },
        ...{ missingPrivileges: [], warnings: [] },
      });
    }
    expect(await catalogOf(database.url)).toEqual(await plainCatalog());
  });

  it("are left out by one that is no superuser", async () => {
    await using limited = await limitedInstaller();
    await using reader = await login(limited.superuserUrl);
    await onServer(limited.installerUrl, ...giveAll(reader.role));
    const { warnings, nats } = await install({ databaseUrl: limited.installerUrl });
    expect({ warnings, functions: nats!.functions }).toEqual({ warnings: [], functions: publicFunctionCount });
    expect((await catalogOf(limited.superuserUrl)).filter((line) => line.includes(`${reader.role}=`))).toEqual([]);
  });

  it("do not come back with a function that is made anew, and what an operator has granted stays", async () => {
    database = await installed();
    await using operator = await login(database.url);
    await using reader = await login(database.url);
    await onServer(
      database.url,
      `GRANT EXECUTE ON FUNCTION nats_get_text(text, text, text) TO ${operator.role}`,
      "INSERT INTO hawser_bridge_data.gateways (host, port) VALUES ('127.0.0.1', 1)",
      ...giveAll(reader.role),
      "DROP FUNCTION nats_flush()",
    );
    expect(await install({ databaseUrl: database.url })).toMatchObject({ missingPrivileges: [], warnings: [] });
    expect(await codeOf(operator.url, "SELECT nats_get_text('a', 'b')")).toBe("08001");
    expect(await codeOf(operator.url, "SELECT nats_flush()")).toBe("42501");
    expect(await codeOf(reader.url, "SELECT nats_flush()")).toBe("42501");
  });
});

describe("a privilege that was granted by hand", () => {
  /** The statement of a warning. */
  const remedyOf = (warning: string) => /which Hawser did not grant: (.*)$/.exec(warning)![1]!;

  it("is named with the statement that takes it away, secrets first, and left as it is", async () => {
    database = await installed();
    await using reader = await login(database.url);
    const before = await catalogOf(database.url);
    const odd = `odd "role" ${reader.role.slice(-6)}`;
    const enqueue = "hawser.enqueue(text, jsonb, jsonb, text, text, timestamptz, boolean, integer, integer)";
    // What members of hawser_peer execute gives more than a caller needs: this one reads the messages of all roles.
    const take = "hawser.take(bigint, integer, bigint, jsonb, text[])";
    await onServer(database.url, `CREATE ROLE ${pg.escapeIdentifier(odd)}`);
    try {
      await onServer(
        database.url,
        `GRANT SELECT ON ALL TABLES IN SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data TO ${reader.role}`,
        `GRANT EXECUTE ON FUNCTION hawser.set_nats_server(jsonb), hawser.gateway_conninfo(), ${take} TO ${pg.escapeIdentifier(odd)}`,
        `GRANT UPDATE (host), UPDATE (port) ON hawser_bridge_data.gateways TO ${pg.escapeIdentifier(odd)}`,
        `GRANT USAGE, CREATE ON SCHEMA hawser_dblink TO ${reader.role}`,
        "GRANT CREATE ON SCHEMA hawser_fdw TO hawser_nats",
        "GRANT USAGE ON SEQUENCE hawser_data.dead_letters_id_seq TO hawser_nats",
        "GRANT DELETE ON hawser_peer_data.peers TO hawser_peer",
        "GRANT SELECT ON hawser_peer_data.peers TO hawser_peer WITH GRANT OPTION",
        // Single functions that callers use are how an operator gives a role less than hawser_nats or hawser_peer.
        `GRANT EXECUTE ON FUNCTION nats_flush(), ${enqueue} TO ${reader.role}`,
        `GRANT USAGE ON SCHEMA hawser TO ${reader.role}`,
        `GRANT EXECUTE ON FUNCTION ${enqueue} TO hawser_viewer`,
      );
      const [tables] = await rowsOf(
        database.url,
        "SELECT count(*)::integer - 1 AS others FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p', 'v')",
      );
      const changed = await catalogOf(database.url);
      const { warnings } = await install({ databaseUrl: database.url });
      expect(warnings.map((line) => line.slice(0, line.indexOf(" ON ")))).toEqual(
        [
          `"${reader.role}" has SELECT on table hawser_bridge_data.gateway_secret and ${tables!["others"]} more, which Hawser did not grant: REVOKE SELECT`,
          `"${odd}" has UPDATE (host), UPDATE (port) on table hawser_bridge_data.gateways, which Hawser did not grant: REVOKE UPDATE (host), UPDATE (port)`,
          `"${reader.role}" has CREATE, USAGE on schema hawser_dblink, which Hawser did not grant: REVOKE CREATE, USAGE`,
          "hawser_nats has CREATE on schema hawser_fdw, which Hawser did not grant: REVOKE CREATE",
          "hawser_viewer has EXECUTE on function hawser.enqueue(text,jsonb,jsonb,text,text,timestamp with time zone,boolean,integer,integer), which Hawser did not grant: REVOKE EXECUTE",
          `"${odd}" has EXECUTE on function hawser.gateway_conninfo() and 2 more, which Hawser did not grant: REVOKE EXECUTE`,
          "hawser_peer has DELETE on table hawser_peer_data.peers, which Hawser did not grant: REVOKE DELETE",
          "hawser_peer may grant SELECT on table hawser_peer_data.peers to others, which Hawser did not grant: REVOKE GRANT OPTION FOR SELECT",
          "hawser_nats has USAGE on sequence hawser_data.dead_letters_id_seq, which Hawser did not grant: REVOKE USAGE",
        ].map((line) => line.replace(/^(hawser_\w+)/, '"$1"')),
      );
      expect((await install({ databaseUrl: database.url, dryRun: true })).warnings).toEqual(warnings);
      expect((await install({ databaseUrl: database.url, nats: false })).warnings).toEqual(warnings);
      expect(await catalogOf(database.url)).toEqual(changed);

      await onServer(
        database.url,
        ...warnings.map(remedyOf),
        `REVOKE EXECUTE ON FUNCTION nats_flush(), ${enqueue} FROM ${reader.role}`,
        `REVOKE USAGE ON SCHEMA hawser FROM ${reader.role}`,
      );
      expect((await install({ databaseUrl: database.url })).warnings).toEqual([]);
      expect(await catalogOf(database.url)).toEqual(before);
    } finally {
      await onServer(
        database.url,
        `DROP OWNED BY ${pg.escapeIdentifier(odd)}`,
        `DROP ROLE ${pg.escapeIdentifier(odd)}`,
      );
    }
  });

  it("is taken away together with what was granted on", async () => {
    database = await installed();
    await using first = await login(database.url);
    await using second = await login(database.url);
    await onServer(
      database.url,
      `GRANT USAGE ON SCHEMA hawser_bridge_data TO ${first.role}, ${second.role}`,
      `GRANT SELECT ON hawser_bridge_data.gateway_secret TO ${first.role} WITH GRANT OPTION`,
    );
    await onServer(first.url, `GRANT SELECT ON hawser_bridge_data.gateway_secret TO ${second.role}`);
    const { warnings } = await install({ databaseUrl: database.url });
    const granted = warnings.find((line) => line.startsWith(`"${second.role}"`))!;
    expect(remedyOf(granted)).toBe(
      `SET ROLE "${first.role}"; REVOKE SELECT ON TABLE hawser_bridge_data.gateway_secret FROM "${second.role}"; RESET ROLE`,
    );
    await onServer(database.url, remedyOf(granted));
    const rest = (await install({ databaseUrl: database.url })).warnings;
    expect(rest).toEqual(warnings.filter((line) => line !== granted));
    await onServer(first.url, `GRANT SELECT ON hawser_bridge_data.gateway_secret TO ${second.role}`);
    await onServer(database.url, ...rest.map(remedyOf));
    expect((await install({ databaseUrl: database.url })).warnings).toEqual([]);
  });

  it("to every role is named where the installing role cannot take it back", async () => {
    await using limited = await limitedInstaller();
    await install({ databaseUrl: limited.installerUrl });
    await onServer(
      limited.superuserUrl,
      "CREATE TABLE hawser.theirs (secret text)",
      "GRANT SELECT ON hawser.theirs TO PUBLIC",
    );
    expect((await install({ databaseUrl: limited.installerUrl })).warnings).toEqual([
      "every role has SELECT on table hawser.theirs, which Hawser did not grant: REVOKE SELECT ON TABLE hawser.theirs FROM PUBLIC",
    ]);
  });
});

describe("remedies", () => {
  it("can be run as they are, whatever role and database are called", async () => {
    const name = `odd "db" ${database.name}`;
    await using reader = await login(database.url);
    const role = `odd "role" ${reader.role}`;
    await onServer(
      database.url,
      `ALTER ROLE ${reader.role} RENAME TO ${pg.escapeIdentifier(role)}`,
      `ALTER ROLE ${pg.escapeIdentifier(role)} PASSWORD 'test'`,
      `CREATE DATABASE ${pg.escapeIdentifier(name)} TEMPLATE template0 ENCODING 'UTF8'`,
    );
    const url = new URL(database.url);
    url.pathname = `/${encodeURIComponent(name)}`;
    const theirs = new URL(url);
    theirs.username = encodeURIComponent(role);
    theirs.password = "test";
    try {
      const { missingPrivileges } = await install({ databaseUrl: theirs.href, dryRun: true, nats: false });
      const foreseen = missingPrivileges.find(({ what }) => what.includes("may not create a schema"))!.remedy;
      const error = await install({ databaseUrl: theirs.href, nats: false }).catch((thrown: Error) => thrown);
      const granting = /GRANT CREATE .*$/.exec((error as Error).message)![0];
      expect(foreseen).toBe(`as its owner or a superuser: ${granting}`);
      await onServer(url.href, granting);
      await install({ databaseUrl: theirs.href, nats: false });
      const own = (await install({ databaseUrl: theirs.href, nats: false })).missingPrivileges;
      const member = own.map(({ remedy }) => /GRANT hawser_owner TO .*(?=;)/.exec(remedy)?.[0]).find((one) => one)!;
      await onServer(url.href, member);
      expect((await install({ databaseUrl: theirs.href, nats: false })).missingPrivileges).toEqual([]);
    } finally {
      await onServer(
        database.url,
        `DROP DATABASE IF EXISTS ${pg.escapeIdentifier(name)} WITH (FORCE)`,
        `ALTER ROLE ${pg.escapeIdentifier(role)} RENAME TO ${reader.role}`,
      );
    }
  });
});
