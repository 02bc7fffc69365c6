/**
 * Changes of the definition of the NATS server, as processes follow them.
 */
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { notifyChannels } from "../../generated/ts/rows/nats.js";
import { install } from "../../src/operating/installation/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { codeOf, login, refusal } from "./support/logins.js";

let database: TestDatabase;
/** Changes the definition. */
let client: pg.Client;
let listener: pg.Client;
const heard: string[] = [];

beforeAll(async () => {
  database = await testDatabase();
  [client, listener] = [new pg.Client(database.url), new pg.Client(database.url)];
  await Promise.all([client.connect(), listener.connect()]);
  listener.on("notification", ({ payload }) => heard.push(payload!));
  await listener.query(`LISTEN ${notifyChannels.natsServer}`);
});
afterAll(async () => {
  await Promise.all([client?.end(), listener?.end()]);
  await database?.drop();
});
// No server is defined, in either way.
afterEach(async () => {
  // A test that fails may have left a transaction.
  await run("ROLLBACK");
  const { rows } = await client.query<{ name: string }>("SELECT srvname AS name FROM pg_foreign_server");
  await run(...rows.map(({ name }) => `DROP SERVER ${name} CASCADE`), "SELECT hawser.set_nats_server(NULL)");
  expect(await server()).toEqual(none);
});

/** Runs statements one after another, each in a transaction of its own. */
async function run(...statements: readonly string[]): Promise<void> {
  for (const statement of statements) await client.query(statement);
}

/** Runs statements, and says whether the channel was told. What was committed before an answer came has been delivered by then. */
async function tells(...statements: string[]): Promise<boolean> {
  // What was told before has come by the answer, too.
  await listener.query("SELECT 1");
  heard.length = 0;
  await run(...statements);
  await listener.query("SELECT 1");
  return heard.length > 0;
}

/** Definition in effect, after `hawser serve` has followed. */
async function server(): Promise<unknown> {
  await run("SELECT hawser.follow_nats_server()");
  return (await client.query("SELECT server_name AS name, options FROM hawser_bridge_data.nats_server")).rows[0];
}

const none = { name: null, options: null };

const wrappers = ["litmus_pgnats_fdw", "pgnats_fdw"];

describe.each(wrappers)("a foreign server over %s", (wrapper) => {
  it("is followed when it is made, altered, renamed and dropped", async () => {
    expect(await tells(`CREATE SERVER n FOREIGN DATA WRAPPER ${wrapper} OPTIONS (host 'a')`)).toBe(true);
    expect(await server()).toEqual({ name: "n", options: { host: "a" } });
    expect(await tells("ALTER SERVER n OPTIONS (SET host 'b', ADD port '4223')")).toBe(true);
    expect(await server()).toEqual({ name: "n", options: { host: "b", port: "4223" } });
    expect(await tells("ALTER SERVER n RENAME TO m")).toBe(true);
    expect(await server()).toEqual({ name: "m", options: { host: "b", port: "4223" } });
    expect(await tells("DROP SERVER m")).toBe(true);
    expect(await server()).toEqual(none);
  });

  it("is not followed when its transaction is rolled back", async () => {
    const create = `CREATE SERVER n FOREIGN DATA WRAPPER ${wrapper}`;
    expect(await tells(`BEGIN; ${create}; ROLLBACK`)).toBe(false);
    expect(await server()).toEqual(none);
    await run(create);
    await tells("BEGIN; DROP SERVER n; ROLLBACK");
    expect(await server()).toEqual({ name: "n", options: {} });
  });

  it("is told of when a user mapping of it changes, without what is in it", async () => {
    await run(`CREATE SERVER n FOREIGN DATA WRAPPER ${wrapper} OPTIONS (username 'u')`);
    for (const statement of [
      "CREATE USER MAPPING FOR CURRENT_USER SERVER n OPTIONS (password 'a-secret-word')",
      "ALTER USER MAPPING FOR CURRENT_USER SERVER n OPTIONS (SET password 'another-secret-word')",
      "DROP USER MAPPING FOR CURRENT_USER SERVER n",
    ]) {
      expect(await tells(statement)).toBe(true);
      expect(heard.join()).not.toContain("secret-word");
    }
    expect(JSON.stringify(await server())).not.toContain("secret-word");
  });
});

describe("a foreign server", () => {
  it.each(wrappers.slice(0, atDepth(10)))("over %s is dropped with its wrapper, and by DROP OWNED", async (wrapper) => {
    await run(`CREATE SERVER n FOREIGN DATA WRAPPER ${wrapper}`);
    expect(await tells(`DROP FOREIGN DATA WRAPPER ${wrapper} CASCADE`)).toBe(true);
    expect(await server()).toEqual(none);
    await install({ databaseUrl: database.url });
    await using owner = await login(database.url);
    await run(`GRANT USAGE ON FOREIGN DATA WRAPPER ${wrapper} TO ${owner.role}`);
    await onServer(owner.url, `CREATE SERVER theirs FOREIGN DATA WRAPPER ${wrapper}`);
    expect(await server()).toEqual({ name: "theirs", options: {} });
    expect(await tells(`DROP OWNED BY ${owner.role} CASCADE`)).toBe(true);
    expect(await server()).toEqual(none);
  });
});

describe("a second server", () => {
  it.each(wrappers)("over %s is refused when it is made", async (wrapper) => {
    await run("CREATE SERVER one FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host 'a')");
    const error = await refusal(database.url, `CREATE SERVER two FOREIGN DATA WRAPPER ${wrapper}`);
    expect(error).toMatchObject({
      message: "a database has one NATS server, and here 2 are defined: one, two",
      hint: expect.stringContaining("DROP SERVER two"),
    });
    expect(await server()).toEqual({ name: "one", options: { host: "a" } });
    expect(await rowsOf(database.url, "SELECT srvname FROM pg_foreign_server")).toEqual([{ srvname: "one" }]);
  });

  it("that is there nevertheless can be dropped, whichever it is; then the other one counts", async () => {
    await run(
      "CREATE SERVER one FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'a')",
      "ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE",
      "CREATE SERVER two FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'b')",
      "CREATE SERVER three FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'c')",
      "ALTER EVENT TRIGGER hawser_nats_server_follow ENABLE",
      "DROP SERVER one",
    );
    expect((await install({ databaseUrl: database.url, dryRun: true })).nats!.warnings).toHaveLength(1);
    await run("DROP SERVER three");
    expect(await server()).toEqual({ name: "two", options: { host: "b" } });
  });
});

describe("an object that is not ours", () => {
  it("is left alone, whatever state ours is in", async () => {
    const statements = [
      "CREATE FOREIGN DATA WRAPPER other_fdw",
      "CREATE SERVER theirs FOREIGN DATA WRAPPER other_fdw OPTIONS (host 'x')",
      "ALTER SERVER theirs OPTIONS (SET host 'y')",
      "CREATE USER MAPPING FOR CURRENT_USER SERVER theirs OPTIONS (password 'x')",
      "ALTER USER MAPPING FOR CURRENT_USER SERVER theirs OPTIONS (SET password 'y')",
      "DROP USER MAPPING FOR CURRENT_USER SERVER theirs",
      "CREATE SCHEMA theirs",
      "DROP SCHEMA theirs",
      "DROP SERVER theirs",
      "DROP FOREIGN DATA WRAPPER other_fdw",
    ];
    expect(await tells(...statements.slice(0, -2))).toBe(false);
    await run(...statements.slice(-2));
    await using own = await testDatabase();
    // Two of ours, which only a disabled event trigger lets in.
    await onServer(
      own.url,
      "ALTER EVENT TRIGGER hawser_nats_server_follow DISABLE",
      "CREATE SERVER one FOREIGN DATA WRAPPER pgnats_fdw",
      "CREATE SERVER two FOREIGN DATA WRAPPER pgnats_fdw",
      "ALTER EVENT TRIGGER hawser_nats_server_follow ENABLE",
      ...statements,
    );
    // Half of ours.
    await onServer(own.url, "ALTER TABLE hawser_bridge_data.nats_server DROP COLUMN seen_options", ...statements);
    await onServer(own.url, "DROP TABLE hawser_bridge_data.nats_server", ...statements);
    await onServer(own.url, "DROP FUNCTION hawser.follow_nats_server()", ...statements);
    await onServer(own.url, "DROP FUNCTION hawser.nats_foreign_servers()", ...statements);
    await onServer(
      own.url,
      "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
      ...statements,
    );
    expect(await rowsOf(own.url, "SELECT FROM pg_event_trigger")).toHaveLength(2);
  });
});

describe("hawser.set_nats_server", () => {
  const set = (options: string) => `SELECT hawser.set_nats_server(${options})`;

  it("and the foreign server count in turn: the last one set wins", async () => {
    expect(await tells(set(`'{"host": "a"}'`))).toBe(true);
    expect(await server()).toEqual({ name: null, options: { host: "a" } });
    await run("CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host 'b')");
    expect(await server()).toEqual({ name: "n", options: { host: "b" } });
    await run(set(`'{"host": "c"}'`));
    await run("ALTER SERVER n OWNER TO CURRENT_USER");
    expect(await server()).toEqual({ name: null, options: { host: "c" } });
    await run("ALTER SERVER n OPTIONS (SET host 'd')");
    expect(await server()).toEqual({ name: "n", options: { host: "d" } });
    await run(set(`'{"host": "e"}'`), set("NULL"));
    expect(await server()).toEqual({ name: "n", options: { host: "d" } });
    await run(set(`'{"host": "f"}'`), "DROP SERVER n");
    expect(await server()).toEqual({ name: null, options: { host: "f" } });
    await run(set("NULL"));
    expect(await server()).toEqual(none);
  });

  it("refuses what CREATE SERVER refuses", async () => {
    expect(await codeOf(database.url, set(`'{"port": "0"}'`))).toBe(
      await codeOf(database.url, "CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (port '0')"),
    );
    expect(await codeOf(database.url, set(`'{"no_such": "x"}'`))).not.toBe("none");
  });
});

describe("a reload", () => {
  const reload = "SELECT litmus_pgnats_reload_conf()";

  it("in the transaction of the change says to commit first", async () => {
    for (const statement of [
      "CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw",
      "SAVEPOINT s; CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw",
    ]) {
      expect(await refusal(database.url, "BEGIN", statement, reload)).toMatchObject({
        code: "25001",
        hint: "COMMIT first, then reload.",
      });
    }
    await run("CREATE SERVER n FOREIGN DATA WRAPPER pgnats_fdw");
    expect(await codeOf(database.url, "BEGIN", "ALTER SERVER n OPTIONS (ADD host 'b')", reload)).toBe("25001");
    await server();
    expect(await codeOf(database.url, "BEGIN", "DROP SERVER n", reload)).toBe("25001");
    // Without a gateway that is all that keeps it.
    expect(await codeOf(database.url, "BEGIN", reload)).toBe("08001");
  });
});
