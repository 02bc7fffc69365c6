/**
 * Objects that others have planted or replaced, and the code of theirs that a superuser would run.
 */
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { migrate, newSchemaSql, takeInstallationLock } from "../../src/jobs-and-peers/migrations/index.js";
import { install, uninstall } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { codeOf, type Login, login } from "./support/logins.js";

let database: TestDatabase;
let mallory: Login & AsyncDisposable;

beforeEach(async () => {
  database = await testDatabase({ migrated: false });
  mallory = await login(database.url);
  await onServer(database.url, `GRANT CREATE ON DATABASE ${database.name} TO ${mallory.role}`);
});
afterEach(async () => {
  await rowsOf(database.url, `DROP OWNED BY ${mallory.role} CASCADE`);
  await mallory[Symbol.asyncDispose]();
  await database.drop();
});

/** Makes the login a superuser, if a superuser runs it. */
const evil = () =>
  `BEGIN IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN ALTER ROLE ${mallory.role} SUPERUSER; END IF;`;

async function expectNoSuperuser(): Promise<void> {
  expect(await rowsOf(database.url, `SELECT rolsuper FROM pg_roles WHERE rolname = '${mallory.role}'`)).toEqual([
    { rolsuper: false },
  ]);
}

const ways = [
  ["init", (databaseUrl: string) => install({ databaseUrl })],
  ["a dry run", (databaseUrl: string) => install({ databaseUrl, dryRun: true })],
  ["init for peers alone", (databaseUrl: string) => install({ databaseUrl, nats: false })],
  ["the start of a peer", (databaseUrl: string) => migrate({ databaseUrl })],
  ["the removal", (databaseUrl: string) => uninstall({ databaseUrl })],
] as const;

const escaped = (text: string) => text.replaceAll(/[.()]/g, "\\$&");

/** Each way to begin with a database stops there, because of what the message says. */
async function expectOccupied(url: string, message: unknown): Promise<void> {
  for (const [name, way] of ways) {
    const error: unknown = await way(url).catch((thrown: unknown) => thrown);
    expect(error, name).toMatchObject({ code: "name_occupied", message });
  }
}

describe("a schema of Hawser's that somebody has made beforehand", () => {
  it.each(["hawser, hawser_data", "hawser", "hawser_data"])(
    "is not touched by anything, and its owner and the remedy are named: %s",
    async (names) => {
      const schemas = names.split(", ");
      const [first, last] = [schemas[0]!, schemas.at(-1)!];
      await onServer(
        mallory.url,
        ...schemas.map((schema) => `CREATE SCHEMA ${schema}`),
        `CREATE FUNCTION ${first}.f() RETURNS integer LANGUAGE plpgsql AS $$ ${evil()} RETURN NULL; END $$`,
        `CREATE VIEW ${last}.migrations AS SELECT ${first}.f() AS id, ''::text AS name, ''::text AS checksum`,
      );
      const words = `^the schema ${first} belongs to "${mallory.role}".*GRANT hawser_owner TO .*DROP SCHEMA ${names} CASCADE$`;
      await expectOccupied(database.url, expect.stringMatching(new RegExp(words)));
      await expectNoSuperuser();
    },
  );

  it.each(["hawser", "hawser_data"])(
    "is not touched by anything where only something in it is somebody else's: %s",
    async (schema) => {
      await onServer(
        database.url,
        `CREATE SCHEMA ${schema}`,
        `CREATE FUNCTION ${schema}.f() RETURNS integer LANGUAGE plpgsql AS $$ ${evil()} RETURN NULL; END $$`,
        `GRANT ALL ON SCHEMA ${schema} TO ${mallory.role}`,
        `ALTER FUNCTION ${schema}.f() OWNER TO ${mallory.role}`,
      );
      await expectOccupied(
        database.url,
        expect.stringContaining(`the function ${schema}.f belongs to "${mallory.role}"`),
      );
      await expectNoSuperuser();
    },
  );

  it.each([
    "ALTER TABLE hawser_data.migrations RENAME TO m; CREATE VIEW hawser_data.migrations AS SELECT * FROM hawser_data.m",
    "CREATE POLICY p ON hawser_data.migrations USING (true); ALTER TABLE hawser_data.migrations ENABLE ROW LEVEL SECURITY",
    "CREATE RULE r AS ON INSERT TO hawser_data.migrations DO NOTHING",
    "CREATE TRIGGER t BEFORE INSERT ON hawser_data.migrations FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE DOMAIN hawser.d AS text; ALTER TABLE hawser_data.migrations ALTER name TYPE hawser.d",
    "CREATE TABLE hawser.child () INHERITS (hawser_data.migrations)",
  ])("is refused with another table of migrations: %s", async (statement) => {
    await using prepared = await testDatabase({ nats: false });
    await onServer(prepared.url, statement);
    await expectOccupied(prepared.url, expect.stringContaining("the relation hawser_data.migrations"));
  });

  it("is kept where Hawser was installed and an owner has changed since, by the statement that the error names", async () => {
    await using prepared = await testDatabase({ nats: false });
    const ownerSql =
      "SELECT pg_get_userbyid(relowner) AS name FROM pg_class WHERE oid = 'hawser_data.migrations'::regclass";
    const before = String((await rowsOf(prepared.url, ownerSql))[0]!["name"]);
    for (const object of [
      "SCHEMA hawser",
      "SCHEMA hawser_data",
      "TABLE hawser_peer_data.stored_messages",
      "ROUTINE hawser.release_name(text, boolean)",
    ]) {
      const alter = `ALTER ${object} OWNER TO`;
      await onServer(prepared.url, `${alter} ${mallory.role}`);
      const others = object.startsWith("SCHEMA") ? "" : `. If it is not Hawser's: DROP ${object}`;
      const trusted = `If "${mallory.role}" installs Hawser here and is to be trusted: GRANT hawser_owner TO "${mallory.role}"${others}`;
      const remedy = `If it is Hawser's and only its owner was changed: ${alter} "${before}". ${trusted}`;
      await expectOccupied(prepared.url, expect.stringMatching(new RegExp(`Nothing was done\\. ${escaped(remedy)}$`)));
      await onServer(prepared.url, `${alter} ${before}`);
    }
    await migrate({ databaseUrl: prepared.url });
  });

  it.each(["hawser", "hawser_data"])("makes the first step fail where the look had found none: %s", async (schema) => {
    const { sql } = await install({ databaseUrl: database.url, dryRun: true });
    await rowsOf(mallory.url, `CREATE SCHEMA ${schema}`);
    await expect(onServer(database.url, sql!)).rejects.toThrow(`schema "${schema}" already exists`);
    expect(await codeOf(database.url, newSchemaSql(schema))).toBe("42P06");
  });
});

describe("a schema for dblink or the wrappers that somebody has made beforehand", () => {
  it.each(["hawser_dblink", "hawser_fdw"])("is refused: %s", async (schema) => {
    const { sql } = await install({ databaseUrl: database.url, dryRun: true });
    await rowsOf(mallory.url, `CREATE SCHEMA ${schema}`);
    await expect(install({ databaseUrl: database.url })).rejects.toMatchObject({
      code: "name_occupied",
      message: expect.stringContaining(`"${mallory.role}"`),
    });
    await expect(onServer(database.url, sql!)).rejects.toThrow(schema);
  });
});

describe("who owns the schema hawser", () => {
  it("runs nothing as superuser: not at init, not at the DDL of a superuser, not at CREATE SERVER", async () => {
    await install({ databaseUrl: database.url });
    await onServer(database.url, `GRANT hawser_owner TO ${mallory.role}`);
    await onServer(
      mallory.url,
      `CREATE OR REPLACE FUNCTION hawser.nats_foreign_servers(OUT server_name text, OUT options jsonb, OUT mapping jsonb, OUT uncommitted boolean)
         RETURNS SETOF record LANGUAGE plpgsql AS $$ ${evil()} END $$`,
      `CREATE OR REPLACE FUNCTION hawser.follow_nats_server(OUT changed boolean) LANGUAGE plpgsql AS $$ ${evil()} END $$`,
      `CREATE OR REPLACE FUNCTION hawser.nats_server_options_check(options jsonb, part text DEFAULT 'whole')
         RETURNS void LANGUAGE plpgsql AS $$ ${evil()} END $$`,
    );
    for (const statement of [
      "CREATE OR REPLACE FUNCTION hawser_fdw.follow_nats_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
      "CREATE FUNCTION hawser_fdw.mine() RETURNS void LANGUAGE sql AS ''",
    ]) {
      expect(await codeOf(mallory.url, statement)).toBe("42501");
    }
    await onServer(
      database.url,
      "CREATE SCHEMA s1",
      "DROP SCHEMA s1",
      "CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'a')",
      "CREATE USER MAPPING FOR CURRENT_USER SERVER n OPTIONS (token 'a')",
      "DROP SERVER n CASCADE",
    );
    await install({ databaseUrl: database.url });
    await install({ databaseUrl: database.url, dryRun: true });
    await uninstall({ databaseUrl: database.url });
    await expectNoSuperuser();
  });

  it("cannot keep others from their DDL, whatever becomes of the schema", async () => {
    await install({ databaseUrl: database.url });
    await onServer(database.url, "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE");
    await onServer(mallory.url, "CREATE SCHEMA o", "DROP SCHEMA o");
    await onServer(database.url, "CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw", "DROP SERVER n");
  });
});

describe("a turn that somebody does not give back", () => {
  it("is waited for, telling whose it is, and not for ever", async () => {
    const holder = new pg.Client({ connectionString: mallory.url, application_name: "held up" });
    const waiting = new pg.Client({ connectionString: database.url });
    await Promise.all([holder.connect(), waiting.connect()]);
    try {
      await holder.query("SELECT pg_advisory_lock(hashtextextended('hawser:migrate', 0))");
      const told: string[] = [];
      const turn = takeInstallationLock(waiting, (line) => told.push(line), { noticeMs: 100, limitMs: 1_000 });
      await expect(turn).rejects.toMatchObject({
        code: "store_failed",
        message: expect.stringContaining(`("${mallory.role}", held up)`),
      });
      expect(told).toEqual([expect.stringContaining(`("${mallory.role}", held up)`)]);
      await holder.query("SELECT pg_advisory_unlock_all()");
      await takeInstallationLock(waiting, (line) => told.push(line));
      expect(told).toHaveLength(1);
    } finally {
      await Promise.all([holder.end(), waiting.end()]);
    }
  });
});
