import net from "node:net";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import {
  DatabaseAddress,
  functionSessionFacts,
  openSession,
  SessionPool,
} from "../../src/foundation/postgres/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { startPooler } from "../support/pooler.js";

let database: TestDatabase;
/** Nothing listens there. */
let deadHost: string;

beforeAll(async () => {
  database = await testDatabase({ migrated: false });
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  deadHost = `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  await new Promise((resolve) => server.close(resolve));
});
afterAll(() => database[Symbol.asyncDispose]());

/** The database with a dead host before its own. */
function withDeadHost(parameters = ""): string {
  const { host, username, password, pathname } = new URL(database.url);
  return `postgres://${username}:${password}@${deadHost},${host}${pathname}${parameters}`;
}

async function settingOf(client: pg.ClientBase, name: string): Promise<string> {
  return (await client.query("SELECT pg_catalog.current_setting($1) AS value", [name])).rows[0].value;
}

describe("a session with Postgres", () => {
  it.each([
    ["search_path", "pg_catalog, pg_temp"],
    ["default_transaction_isolation", "read committed"],
    ["idle_in_transaction_session_timeout", "8s"],
    ["idle_session_timeout", "0"],
    ["lock_timeout", "3s"],
    ["statement_timeout", "4s"],
    ["client_connection_check_interval", "2s"],
    ["tcp_keepalives_idle", "2"],
    ["tcp_user_timeout", "8000"],
  ])("has %s set to %s, alone and from a pool", async (name, value) => {
    const address = DatabaseAddress.of(database.url);
    const limits = { lockTimeoutMs: 3_000, statementTimeoutMs: 4_000 };
    const { client } = await openSession(address, limits);
    expect(await settingOf(client, name)).toBe(value);
    await client.end();
    const pool = new SessionPool(address, {
      ...limits,
      max: 1,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    const pooled = await pool.connect();
    expect(await settingOf(pooled, name)).toBe(value);
    pooled.release();
    await pool.end();
  });

  it("writes and reads values in the driver's formats, whatever the database has set", async () => {
    await using other = await testDatabase({ migrated: false });
    const name = new URL(other.url).pathname.slice(1);
    for (const format of [
      ...["datestyle = 'SQL, DMY'", "extra_float_digits = -15", "standard_conforming_strings = off"],
      "array_nulls = off",
    ]) {
      await rowsOf(other.url, `ALTER DATABASE "${name}" SET ${format}`);
    }
    const { client } = await openSession(DatabaseAddress.of(other.url));
    const sql = `SELECT '2026-12-22 03:04:05+00'::timestamptz AS time, 123456789::float8 AS number, '\\d' AS text,
      $1::text[] AS list, current_setting('datestyle') AS style`;
    const { rows } = await client.query(sql, [["NULL", null]]);
    await client.end();
    const time = new Date("2026-12-22T03:04:05Z");
    // The order of day and month in what is read is the database's.
    expect(rows).toEqual([{ time, number: 123456789, text: "\\d", list: ["NULL", null], style: "ISO, DMY" }]);
  });

  it("that runs functions has them again after DISCARD ALL", async () => {
    const { client } = await openSession(DatabaseAddress.of(database.url), { runsFunctions: true });
    expect(await functionSessionFacts(client)).toMatchObject({ keepsSettings: true });
    await client.query("SET search_path = public; SET default_transaction_isolation = serializable");
    await client.query("DISCARD ALL");
    expect(await settingOf(client, "search_path")).toBe("pg_catalog, pg_temp");
    expect(await settingOf(client, "default_transaction_isolation")).toBe("read committed");
    expect(await settingOf(client, "idle_in_transaction_session_timeout")).toBe("8s");
    await client.end();
  });

  it("has its settings whatever the database has, and no limits but its own", async () => {
    await using other = await testDatabase({ migrated: false });
    const hostile: readonly (readonly [name: string, ofDatabase: string, own: string])[] = [
      ["search_path", "elsewhere", "pg_catalog, pg_temp"],
      ["quote_all_identifiers", "on", "off"],
      ["timezone", "Pacific/Chatham", "UTC"],
      ["intervalstyle", "sql_standard", "postgres"],
      ["bytea_output", "escape", "hex"],
      ["client_min_messages", "error", "notice"],
      ["client_encoding", "LATIN1", "UTF8"],
      ["exit_on_error", "on", "off"],
      ["row_security", "on", "off"],
      ["jit", "on", "off"],
      ["default_transaction_isolation", "serializable", "read committed"],
      ["statement_timeout", "1h", "0"],
      ["lock_timeout", "1h", "0"],
      ["idle_session_timeout", "1h", "0"],
      ["idle_in_transaction_session_timeout", "1h", "8s"],
      ["transaction_timeout", "1h", "0"],
    ];
    const known = await rowsOf(other.url, "SELECT lower(name) AS name FROM pg_settings");
    // `transaction_timeout` is one of Postgres 17.
    const present = hostile.filter(([name]) => known.some((row) => row["name"] === name));
    for (const [name, value] of present) {
      await rowsOf(other.url, `ALTER DATABASE ${other.name} SET ${name} = '${value}'`);
    }
    const expected = Object.fromEntries(present.map(([name, , own]) => [name, own]));
    const columns = present.map(([name]) => `current_setting('${name}') AS ${name}`).join(", ");
    const read = async (client: pg.ClientBase) => (await client.query(`SELECT ${columns}`)).rows[0];
    const address = DatabaseAddress.of(other.url);
    const { client } = await openSession(address);
    expect(await read(client)).toEqual(expected);
    await client.end();
    const pool = new SessionPool(address, {
      max: 1,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    const pooled = await pool.connect();
    expect(await read(pooled)).toEqual(expected);
    // A user's transaction has what the database has.
    for (const { text } of pool.cleaningOf(pooled)) await pooled.query(text);
    const ofUser = present.filter(([name]) => !/isolation|idle_session|client_encoding/.test(name));
    expect(await read(pooled)).toMatchObject(Object.fromEntries(ofUser.map(([name, value]) => [name, value])));
    pooled.release(true);
    await pool.end();
  });

  it.each([
    ["directly", undefined, []],
    ["behind a pooler that drops start-up parameters", "none", ["set_config"]],
    ["behind a pooler that refuses start-up parameters", "options", ["set_config"]],
  ])("of a pool has the settings that detect its end also for a user, %s", async (_, refused, more) => {
    await using pooler = refused === undefined ? undefined : await startPooler(database.url, "session", refused);
    const pool = new SessionPool(DatabaseAddress.of(pooler?.url ?? database.url), {
      max: 2,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    const clients = await Promise.all([pool.connect(), pool.connect()]);
    for (const client of clients) {
      await client.query("SET tcp_user_timeout = 1; SET idle_session_timeout = '1h'; SET datestyle = German");
      const cleaning = pool.cleaningOf(client).map(({ text }) => text);
      for (const text of cleaning) await client.query(text);
      expect(await settingOf(client, "tcp_user_timeout")).toBe("8000");
      expect(await settingOf(client, "idle_session_timeout")).toBe("0");
      expect(await settingOf(client, "client_connection_check_interval")).toBe("2s");
      expect(await settingOf(client, "datestyle")).toMatch(/^ISO/);
      expect(cleaning.flatMap((text) => text.match(/set_config/)?.[0] ?? [])).toEqual(more);
      client.release();
    }
    await pool.end();
  });

  it.each(["the address", "PGOPTIONS"])("of a pool has for a user what the options of %s set, too", async (where) => {
    const options = "-c search_path=theirs -c datestyle=German";
    const url = new URL(database.url);
    if (where === "PGOPTIONS") vi.stubEnv("PGOPTIONS", options);
    else url.searchParams.set("options", options);
    onTestFinished(() => void vi.unstubAllEnvs());
    const pool = new SessionPool(DatabaseAddress.of(url.href), {
      max: 1,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    const client = await pool.connect();
    expect(await settingOf(client, "search_path")).toBe("pg_catalog, pg_temp");
    const cleaning = pool.cleaningOf(client).map(({ text }) => text);
    for (const text of cleaning) await client.query(text);
    expect(await settingOf(client, "search_path")).toBe("theirs");
    expect(await settingOf(client, "datestyle")).toMatch(/^ISO/);
    expect(await settingOf(client, "tcp_user_timeout")).toBe("8000");
    // Only what RESET ALL does not restore is set again.
    expect(cleaning.filter((text) => text.includes("set_config"))).toEqual([
      "SELECT pg_catalog.set_config('datestyle', 'ISO', false)",
    ]);
    client.release();
    await pool.end();
  });

  it("is ended by the server when its transaction is idle for too long", async () => {
    const { client } = await openSession(DatabaseAddress.of(database.url));
    const ended = new Promise<void>((resolve) => client.on("end", () => resolve()));
    await client.query("SET idle_in_transaction_session_timeout = 20; BEGIN");
    await ended;
  });

  it("tries the next host if one does not answer, and starts with that one from then on", async () => {
    const address = DatabaseAddress.of(withDeadHost());
    const tried: string[] = [];
    const onClient = ({ port }: pg.Client) => void tried.push(String(port));
    for (let times = 0; times < 2; times += 1) await (await openSession(address, { onClient })).client.end();
    const { port } = new URL(database.url);
    expect(tried).toEqual([deadHost.split(":")[1], port, port]);
  });

  it("of a pool tries the next host, too", async () => {
    const pool = new SessionPool(DatabaseAddress.of(withDeadHost()), {
      max: 2,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    const clients = await Promise.all([pool.connect(), pool.connect()]);
    for (const client of clients) expect(await settingOf(client, "search_path")).toBe("pg_catalog, pg_temp");
    for (const client of clients) client.release();
    await pool.end();
  });

  it("of a pool may end while the pool looks for one that fits better", async () => {
    const pool = new SessionPool(DatabaseAddress.of(database.url), {
      max: 2,
      keepsSettings: true,
      check: () => Promise.resolve(),
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: () => undefined,
    });
    for (const client of await Promise.all([pool.connect(), pool.connect()])) client.release();
    let fitting: Promise<pg.PoolClient> | undefined;
    const other = await new Promise<pg.PoolClient>((resolve) => {
      fitting = pool.connect((client) => {
        // The other free client goes to this caller. The one that prefers it waits, and holds the first.
        const taking = pool.connect();
        // Without a listener for its error, the process would end.
        client.once("end", () => resolve(taking));
        const { processID } = client as unknown as { readonly processID: number };
        void rowsOf(database.url, `SELECT pg_terminate_backend(${processID})`);
        return false;
      });
    });
    other.release();
    const client = await fitting!;
    expect(client).toBe(other);
    client.release();
    await pool.end();
  });

  it("of a pool counts as not opened if it is lost before it is ready", async () => {
    let isLost = true;
    let closed: (sessions: number) => void = () => undefined;
    const isClosed = new Promise((resolve) => {
      closed = resolve;
    });
    const pool = new SessionPool(DatabaseAddress.of(database.url), {
      max: 2,
      keepsSettings: true,
      check: async (client) => {
        if (!isLost) return;
        (client as unknown as { readonly connection: { readonly stream: net.Socket } }).connection.stream.destroy();
        await client.query("SELECT");
      },
      onIdleError: () => undefined,
      onFull: () => undefined,
      onClosed: (sessions) => closed(sessions),
    });
    await expect(pool.connect()).rejects.toThrow("Connection terminated");
    await isClosed;
    expect(pool.unopened).toBe(2);
    isLost = false;
    (await pool.connect()).release();
    expect(pool.unopened).toBe(1);
    await pool.end();
  });

  it("is not opened with a server that is not of the required kind", async () => {
    const { host, username, password, pathname } = new URL(database.url);
    const url = `postgres://${username}:${password}@${host}${pathname}`;
    const open = (attributes: string) => openSession(DatabaseAddress.of(`${url}?target_session_attrs=${attributes}`));
    await expect(open("standby")).rejects.toThrow(`the server ${host} is a primary; the address requires standby`);
    await expect(open("read-only")).rejects.toThrow("is a primary; the address requires read-only");
    for (const attributes of ["any", "primary", "read-write", "prefer-standby"]) {
      await (await open(attributes)).client.end();
    }
  });

  it("that is read-only is not opened where writes are needed", async () => {
    const readOnly = `${database.url}?options=-c%20default_transaction_read_only%3Don`;
    const opening = openSession(DatabaseAddress.of(readOnly), { needsWrites: true });
    await expect(opening).rejects.toThrow(
      /is read-only; the address requires read-write; default_transaction_read_only is on: set default_transaction_read_only to off/,
    );
  });

  it("is refused at once with an error that all hosts share", async () => {
    const { host, username, password } = new URL(database.url);
    const tried: number[] = [];
    const address = DatabaseAddress.of(`postgres://${username}:${password}@${host},${deadHost}/no_such_database`);
    const opening = openSession(address, { onClient: ({ port }) => void tried.push(port) });
    await expect(opening).rejects.toMatchObject({ code: "3D000" });
    expect(tried).toHaveLength(1);
  });

  it("that no host provides is refused with the reason of each", async () => {
    const opening = openSession(DatabaseAddress.of(`postgres://${deadHost},${deadHost}/d`));
    await expect(opening).rejects.toMatchObject({ errors: [{ code: "ECONNREFUSED" }, { code: "ECONNREFUSED" }] });
  });

  it("is abandoned when a server accepts the login and then does not answer", async () => {
    const silent = net.createServer((socket) => {
      socket.on("error", () => undefined);
      // AuthenticationOk and ReadyForQuery.
      socket.once("data", () => socket.write(Buffer.from([82, 0, 0, 0, 8, 0, 0, 0, 0, 90, 0, 0, 0, 5, 73])));
    });
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as net.AddressInfo;
    const opening = openSession(DatabaseAddress.of(`postgres://u@127.0.0.1:${port}/d`), { connectTimeoutMs: 50 });
    // The last one where the machine is so busy that the login takes as long.
    await expect(opening).rejects.toThrow(/did not answer within 50 ms|terminated|timeout expired/);
    await new Promise((resolve) => silent.close(resolve));
  });
});
