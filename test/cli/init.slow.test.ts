import { randomBytes } from "node:crypto";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { migrations } from "../../src/jobs-and-peers/migrations/index.js";
import { publicFunctionCount } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { noneButMembers } from "../support/member-warnings.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { hawser, jsonLines } from "./support/hawser.js";

const schemaExists = "SELECT to_regnamespace('hawser') IS NOT NULL AS exists";

describe("hawser init", () => {
  const databases: TestDatabase[] = [];
  let database: TestDatabase;

  beforeEach(async () => {
    database = await testDatabase({ migrated: false });
    databases.push(database);
  });
  afterAll(async () => {
    for (const each of databases) await each.drop();
  });

  it("prepares a database, and does nothing when it is prepared", async () => {
    const first = await hawser(["init"], { databaseUrl: database.url });
    expect(first).toMatchObject({ status: 0, stderr: "" });
    const steps = migrations.map(({ id, name }) => `${id} (${name})`).join(", ");
    expect(first.stdout).toContain(
      `${database.name} is ready, as postgres. Applied ${migrations.length} migration${migrations.length === 1 ? "" : "s"}: ${steps}.`,
    );
    const second = await hawser(["init", "--json"], { databaseUrl: database.url });
    const nats = {
      schema: "public",
      dblinkSchema: "hawser_dblink",
      functions: publicFunctionCount,
      wrappers: ["litmus_pgnats_fdw", "pgnats_fdw"],
      eventTriggers: true,
      warnings: [],
    };
    expect(jsonLines(second.stdout)).toEqual([
      {
        ...{ database: database.name, role: "postgres", migrations: [], nats, missingPrivileges: [], warnings: [] },
        ...{ partial: false, superuserStatements: [] },
        roleWarnings: noneButMembers,
      },
    ]);
    expect(first.stdout).toContain(
      `NATS from SQL: ${publicFunctionCount} functions in the schema public, over dblink in the schema hawser_dblink. ` +
        "The NATS server is set by CREATE SERVER … FOREIGN DATA WRAPPER litmus_pgnats_fdw, and changes are followed at once.",
    );
    expect(first.stdout).toMatch(
      new RegExp(
        `IN ROLE hawser_bridge;.*\\n    GRANT hawser_nats TO …;.*\\n    CREATE SERVER nats FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS .*\\n.*/${database.name} hawser serve\\n$`,
      ),
    );
  });

  it("with --dry-run changes nothing, and prints SQL that psql runs to the same end", async () => {
    const dry = await hawser(["init", "--dry-run"], { databaseUrl: database.url });
    expect(dry.status).toBe(0);
    expect(dry.stderr.trim().split("\n").filter(Boolean), dry.stderr).toEqual(noneButMembers);
    expect(await rowsOf(database.url, schemaExists)).toEqual([{ exists: false }]);
    // As psql does: one statement after another, with what it prints in between.
    await onServer(database.url, dry.stdout);
    const after = await hawser(["init", "--json"], { databaseUrl: database.url });
    expect(jsonLines(after.stdout)[0]).toMatchObject({ migrations: [], missingPrivileges: [] });
    expect(jsonLines(after.stdout)[0]).toMatchObject({ nats: { functions: publicFunctionCount, eventTriggers: true } });
    const again = await hawser(["init", "--dry-run"], { databaseUrl: database.url });
    expect(again.stdout).toMatch(/^-- roles, grants and owners\nBEGIN;/);
  });

  it("gives back what was taken away; a dry run does not name as lacking what the run itself would make", async () => {
    await using prepared = await testDatabase();
    await onServer(
      prepared.url,
      "REVOKE ALL ON hawser_peer_data.mesh_secret, hawser_peer_data.peers FROM hawser_peer",
      "ALTER TABLE hawser_peer_data.peers OWNER TO postgres",
      "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
    );
    const init = async (...flags: string[]) =>
      jsonLines((await hawser(["init", ...flags, "--json"], { databaseUrl: prepared.url })).stdout)[0];
    expect(await init("--dry-run")).toMatchObject({ missingPrivileges: [], superuserStatements: [] });
    expect(await init()).toMatchObject({ missingPrivileges: [] });
    const may = "SELECT has_table_privilege('hawser_peer', 'hawser_peer_data.mesh_secret', 'SELECT') AS may";
    expect(await rowsOf(prepared.url, may)).toEqual([{ may: true }]);
  });

  it("with --no-nats leaves NATS from SQL out", async () => {
    const { stdout } = await hawser(["init", "--no-nats"], { databaseUrl: database.url });
    // Members of roles that all databases share, which other tests have made, are warned of.
    expect(stdout.replaceAll(/^Warning: the role .*$/gm, "")).not.toContain("NATS");
    expect(await rowsOf(database.url, "SELECT FROM pg_extension WHERE extname = 'dblink'")).toEqual([]);
    const json = await hawser(["init", "--no-nats", "--json"], { databaseUrl: database.url });
    expect(jsonLines(json.stdout)[0]).toMatchObject({ nats: null });
  });

  it("with --schema puts the functions there, and `hawser uninstall` takes them out and says what stays", async () => {
    await onServer(database.url, 'CREATE SCHEMA "My bus"');
    const into = await hawser(["init", "--schema", "My bus"], { databaseUrl: database.url });
    expect(into.stdout).toContain(`${publicFunctionCount} functions in the schema My bus`);
    const dry = await hawser(["uninstall", "--dry-run"], { databaseUrl: database.url });
    expect(dry.stdout).toContain('"My bus".nats_flush()');
    const out = await hawser(["uninstall"], { databaseUrl: database.url });
    expect(out).toMatchObject({ status: 0, stderr: "" });
    expect(out.stdout).toContain(
      `Removed from ${database.name}, as postgres: ${publicFunctionCount} functions, the foreign data wrapper litmus_pgnats_fdw`,
    );
    expect(out.stdout).toContain("the schema hawser_run, the schema pgnats.");
    expect(out.stdout).toContain(
      "To remove them too: DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
    );
    expect(out.stdout).toMatch(/^The login hawser_executor_[0-9a-f]{12} stays: roles are shared/m);
    const again = await hawser(["uninstall", "--json"], { databaseUrl: database.url });
    expect(jsonLines(again.stdout)).toEqual([
      {
        ...{ database: database.name, role: "postgres", functions: 0, wrappers: [], eventTriggers: [], dblink: false },
        ...{
          schemas: [],
          login: null,
          missingPrivileges: [],
          rest: "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
        },
      },
    ]);
    expect(await rowsOf(database.url, schemaExists)).toEqual([{ exists: true }]);
  });

  it("refuses dblink that everybody may use, unless --shared-dblink accepts the risk, of which it warns", async () => {
    await onServer(database.url, "CREATE EXTENSION dblink");
    const refused = await hawser(["init"], { databaseUrl: database.url });
    expect(refused).toMatchObject({ status: 78, stdout: "" });
    expect(refused.stderr).toContain("[dblink_shared]");
    expect(refused.stderr).toContain("ALTER EXTENSION dblink SET SCHEMA hawser_dblink");
    const accepted = await hawser(["init", "--shared-dblink"], { databaseUrl: database.url });
    expect(accepted.status).toBe(0);
    expect(accepted.stdout).toContain('Warning: every role may call dblink in the schema "public"');
  });

  it("refuses flags that do not go together", async () => {
    for (const flags of [
      ["--no-nats", "--schema", "bus"],
      ["--no-nats", "--shared-dblink"],
    ]) {
      const { status, stderr } = await hawser(["init", ...flags], { databaseUrl: database.url });
      expect([status, stderr], flags.join(" ")).toEqual([64, expect.stringContaining("do not go together")]);
    }
  });

  it("names what a role without superuser may not do, what it means and the remedy, and says by its status what is missing", async () => {
    const role = `test_init_${randomBytes(4).toString("hex")}`;
    await onServer(
      database.url,
      `CREATE ROLE ${role} LOGIN PASSWORD 'a-secret-word'`,
      `GRANT CREATE ON DATABASE ${database.name} TO ${role}`,
    );
    const url = new URL(database.url);
    url.username = role;
    url.password = "a-secret-word";
    try {
      const { status, stdout, stderr } = await hawser(["init", "--database-url", url.href]);
      const lacking = `NATS from SQL does not work: dblink is not installed, and "${role}" may not install it`;
      expect({ status, stderr }).toEqual({ status: 77, stderr: expect.stringMatching(/ \[not_permitted\]\n$/) });
      expect(stderr).toContain(lacking);
      const asJson = await hawser(["init", "--json", "--database-url", url.href]);
      expect(asJson).toMatchObject({ status: 77, stderr: expect.stringContaining(lacking) });
      expect(jsonLines(asJson.stdout)).toEqual([
        expect.objectContaining({ partial: true, nats: expect.objectContaining({ functions: 0 }) }),
      ]);
      // What is not wanted is not lacking, and a dry run has left nothing out.
      const forPeers = await hawser(["init", "--json", "--no-nats", "--database-url", url.href]);
      expect(forPeers).toMatchObject({ status: 0, stderr: "" });
      expect(jsonLines(forPeers.stdout)).toEqual([expect.objectContaining({ partial: false, nats: null })]);
      const dryRun = await hawser(["init", "--json", "--dry-run", "--database-url", url.href]);
      expect(dryRun).toMatchObject({ status: 0, stderr: "" });
      expect(jsonLines(dryRun.stdout)).toEqual([expect.objectContaining({ partial: true })]);
      expect(stdout).toMatch(
        new RegExp(
          `NATS from SQL: not installed, because dblink is missing \\(see below\\)\\.\\n(Warning.*\\n)*\\n` +
            `The role ${role} lacks these privileges\\. Each has its remedy; all remedies together are below:\\n• dblink is not installed, and "${role}" may not install it`,
        ),
      );
      expect(stdout).toMatch(new RegExp(`\\n• \\d+ objects of Hawser's schemas belong to "${role}"`));
      expect(stdout).toContain(`All remedies together, for a superuser to run in this database:\n`);
      expect(stdout).toContain(`\n    GRANT hawser_owner TO "${role}";\n`);
      expect(stdout).toContain("\n    CREATE EXTENSION dblink SCHEMA hawser_dblink;\n");
      // There is nothing to go on with.
      expect(stdout).not.toContain("What comes next");
      expect(stdout).toContain(`which means: only "${role}" and superusers can migrate them`);
      expect(stdout).toContain(`remedy: as a superuser: GRANT hawser_owner TO "${role}"`);
      expect(stdout).not.toContain("a-secret-word");
    } finally {
      await onServer(database.url, `DROP OWNED BY ${role} CASCADE`, `DROP ROLE ${role}`);
    }
  });

  it("of one that may not make a schema asks for the grant, with the status of the error", async () => {
    const role = `test_init_${randomBytes(4).toString("hex")}`;
    await onServer(database.url, `CREATE ROLE ${role} LOGIN PASSWORD 'test'`);
    const url = new URL(database.url);
    url.username = role;
    url.password = "test";
    try {
      const { status, stdout, stderr } = await hawser(["init"], { databaseUrl: url.href });
      expect({ status, stdout }).toEqual({ status: 78, stdout: "" });
      expect(stderr).toContain(`GRANT CREATE ON DATABASE "${database.name}" TO "${role}"`);
      expect(stderr).toContain("[schema_missing]");
      expect(stderr).not.toContain("    at ");
    } finally {
      await onServer(database.url, `DROP ROLE ${role}`);
    }
  });

  it("takes the database from --database-url, else HAWSER_DATABASE_URL, else libpq's variables", async () => {
    const { hostname, port, username, password } = new URL(database.url);
    const libpq = {
      PGHOST: hostname,
      PGPORT: port,
      PGUSER: username,
      PGPASSWORD: password,
      PGDATABASE: database.name,
    };
    expect(await hawser(["topics"], { env: libpq })).toMatchObject({ status: 78 });
    expect(await hawser(["init"], { env: libpq })).toMatchObject({ status: 0 });
    const unset = await hawser(["init", "--database-url", ""], { env: libpq });
    expect(unset).toMatchObject({ status: 64 });
    expect(unset.stderr).toContain("--database-url is empty");
    const elsewhere = { ...libpq, HAWSER_DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" };
    expect(await hawser(["init", "--database-url", database.url], { env: elsewhere })).toMatchObject({ status: 0 });
  });
});

describe("a command that cannot reach its database", () => {
  it("tells of a URL that cannot be read without showing it", async () => {
    const { status, stderr } = await hawser(["topics", "--database-url", "me:a-secret-word@host"]);
    expect(status).toBe(64);
    expect(stderr).toContain("databaseUrl is not a connection URI");
    expect(stderr).not.toContain("a-secret-word");
  });
});
