/**
 * Peers that use the pool of the user.
 */
import net from "node:net";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { startPooler } from "../support/pooler.js";
import { slowIt } from "../support/slow-it.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

/** A pool of the user, without a listener of its errors. */
class UsersPool extends pg.Pool {
  constructor(config: pg.PoolConfig = {}) {
    super({ ...("user" in config ? {} : { connectionString: world.url }), ...config });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The world ends the sessions that are still being closed.
    this.on("error", () => undefined);
    if (!this.ending) await this.end();
  }
}

/** Settings and role of a client. */
async function stateOf(client: pg.ClientBase): Promise<unknown[]> {
  const { rows } = await client.query(
    `SELECT name, setting FROM pg_catalog.pg_settings WHERE NOT pg_catalog.starts_with(name, 'plpgsql.')
      UNION ALL SELECT 'user', current_user ORDER BY name`,
  );
  return rows;
}

/** What Hawser could leave in a pool. */
function leftIn(pool: pg.Pool): Record<string, number> {
  const { totalCount, idleCount, waitingCount } = pool;
  return { inUse: totalCount - idleCount, waitingCount, listeners: pool.listenerCount("error") };
}

const nothing = { inUse: 0, waitingCount: 0, listeners: 0 };

/** Lets a peer send a message to itself and handle it in a transaction, and a later one through the store. */
async function use(pool: pg.Pool, options: { readonly sessionUrl?: string } = {}): Promise<Log<unknown>> {
  const handled = new Log<unknown>();
  await using peer = new Peer({ name: "a-1", pool, ...options });
  await peer.handle("a", { transactional: true }, async (message) => {
    const { rows } = await message.client.query(
      `SELECT current_setting('search_path') AS path, current_user = session_user AS own, 7::bigint AS big,
              current_setting('transaction_isolation') AS isolation`,
    );
    handled.push(rows[0]);
    await peer.enqueue(message.client, "b", message.text());
  });
  const passed = new Log<string>();
  await peer.handle("b", (message) => void passed.push(message.text()));
  await peer.start();
  for (const text of ["one", "two", "three"]) await peer.send("a", text, { key: text });
  await passed.length(3);
  expect([...passed.all].sort()).toEqual(["one", "three", "two"]);
  expect((await peer.pending()).count).toBe(0);
  return handled;
}

describe("a peer with the user's pool", () => {
  it("does nothing by what the user's code has set in the clients, and gives them back as they were", async () => {
    await world.query(`
      CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO public; CREATE SEQUENCE evil.calls;
      CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql SECURITY DEFINER
        AS $$ SELECT nextval('evil.calls') > 0 $$;
      CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql SECURITY DEFINER
        AS $$ SELECT nextval('evil.calls')::text $$;
      CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.same)`);
    await using pool = new UsersPool();
    const before = new Map<pg.ClientBase, Promise<unknown[]>>();
    pool.on("connect", (client) => {
      for (const setting of [
        ...["search_path = evil, pg_catalog", "role = pg_monitor", "row_security = off", "synchronous_commit = off"],
        ...["datestyle = German", "extra_float_digits = -15", "standard_conforming_strings = off", "array_nulls = off"],
        ...["default_transaction_isolation = serializable", "lock_timeout = 55555", "statement_timeout = 55555"],
        ...["idle_in_transaction_session_timeout = 55555", "bytea_output = escape", "client_encoding = LATIN1"],
      ]) {
        void client.query(`SET ${setting}`);
      }
      before.set(client, stateOf(client));
    });
    const handled = await use(pool);
    const inHandler = { path: '"$user", public', own: true, big: "7", isolation: "read committed" };
    expect(handled.all).toEqual(Array(3).fill(inHandler));
    expect(await world.query("SELECT is_called FROM evil.calls")).toEqual([{ is_called: false }]);

    expect(leftIn(pool)).toEqual(nothing);
    expect(pool.ending).toBe(false);
    const clients = await Promise.all(Array.from({ length: pool.idleCount }, () => pool.connect()));
    const listeners = clients.map((client) => client.listenerCount("error") + client.listenerCount("end"));
    const after = await Promise.all(clients.map(stateOf));
    for (const client of clients) client.release();
    expect(listeners).toEqual(clients.map(() => 0));
    expect(clients.length).toBeGreaterThan(0);
    expect(after).toEqual(await Promise.all(clients.map((client) => before.get(client))));
    await world.query("DROP SCHEMA evil CASCADE");
  });

  it("handles in transactions of a pool whose clients send queries before earlier ones were answered", async () => {
    await using pool = new UsersPool({ pipeline: true });
    expect((await use(pool)).all).toHaveLength(3);
    expect(leftIn(pool)).toEqual(nothing);
  });

  it.each(["", "; SELECT 1 / 0"])("rolls back transactions that the user's code left open%s", async (failure) => {
    await world.query("CREATE TABLE left_open (a int)");
    await using pool = new UsersPool({ max: 6 });
    const clients = await Promise.all(Array.from({ length: 6 }, () => pool.connect()));
    for (const client of clients) {
      await client.query(`BEGIN; INSERT INTO left_open VALUES (1)${failure}`).catch(() => undefined);
      client.release();
    }
    expect((await use(pool)).all).toHaveLength(3);
    expect(await world.query("SELECT FROM left_open")).toEqual([]);
    await pool.end();
    await world.query("DROP TABLE left_open");
  });

  it("goes on with another client when the one of its session is lost", async () => {
    await using pool = new UsersPool({ max: 3 });
    {
      await using peer = new Peer({ name: "a-1", pool });
      const received = new Log<string>();
      await peer.handle("a", (message) => void received.push(message.text()));
      await peer.start();
      const session =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser'";
      const [old] = await world.query<{ pid: number }>(session);
      await world.query("SELECT pg_terminate_backend($1)", [old!.pid]);
      await eventually("there is another session", async () => {
        const [row] = await world.query<{ pid: number }>(session);
        return row !== undefined && row.pid !== old!.pid;
      });
      await eventually("the peer is ready", () => peer.health().ready);
      await peer.send("a", "after");
      await received.length(1);
      expect(pool.totalCount).toBeLessThanOrEqual(3);
    }
    expect(leftIn(pool)).toEqual(nothing);
  });

  it("ends no process by a client that the user's code has taken and Postgres has closed", async () => {
    await using pool = new UsersPool();
    const idle = await pool.connect();
    idle.release();
    const listeners = (client: pg.ClientBase) => client.listenerCount("error");
    const before = listeners(idle);
    {
      await using _peer = await new Peer({ name: "a-1", pool }).start();
      const clients = await Promise.all([pool.connect(), pool.connect()]);
      const [lost, kept] = clients;
      expect(clients.map(listeners)).toEqual([1, 1]);
      const { rows } = await lost.query("BEGIN; SELECT pg_backend_pid() AS pid").then((results) => {
        return (results as unknown as pg.QueryResult[])[1]!;
      });
      const ended = new Promise((resolve) => lost.once("end", resolve));
      await world.query("SELECT pg_terminate_backend($1)", [rows[0].pid]);
      await ended;
      await expect(lost.query("COMMIT")).rejects.toThrow(/not queryable|terminat/);
      lost.release();
      kept.release();
      expect(listeners(kept)).toBe(before);
    }
    expect(leftIn(pool)).toEqual(nothing);
  });

  it("says in time that all clients are in use, and keeps its name meanwhile", async () => {
    await using pool = new UsersPool({ max: 3 });
    const busy = "the pool gave no client within 20 ms: 3 of at most 3 clients are in use; raise max";
    await using peer = new Peer({ name: "a-1", pool });
    // With a handler it takes from the queue.
    await peer.handle("a", () => undefined);
    const whileHeld = async (kept: number, work: () => Promise<unknown>): Promise<void> => {
      const held = await Promise.all(Array.from({ length: 3 - kept }, () => pool.connect()));
      pool.options.connectionTimeoutMillis = 20;
      const error = await work().catch((thrown: Error) => thrown);
      pool.options.connectionTimeoutMillis = 0;
      for (const client of held) client.release();
      expect(error).toMatchObject({ message: expect.stringContaining(busy) });
    };
    await whileHeld(0, () => peer.start());
    await peer.start();
    const queues = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'queue'";
    await eventually("it has both of its sessions", async () => (await world.query(queues)).length === 1);
    await whileHeld(2, () => peer.pending());
    expect(peer.health()).toEqual({ ready: true, problems: [] });
    expect((await peer.pending()).count).toBe(0);
    await peer.stop();
    expect(leftIn(pool)).toEqual(nothing);
  });

  it("needs no URL: a class of the user connects as it likes", async () => {
    const { hostname, port, username, password, pathname } = new URL(world.url);
    class Socket extends net.Socket {
      override connect(): this {
        return super.connect(Number(port), hostname);
      }
    }
    const login = { user: username, password: decodeURIComponent(password), database: pathname.slice(1) };
    class Connected extends pg.Client {
      constructor() {
        super({ ...login, stream: () => new Socket(), host: "no such host", port: 1 });
      }
    }
    await using pool = new UsersPool({ user: username, Client: Connected });
    expect((await use(pool)).all).toHaveLength(3);
    expect(leftIn(pool)).toEqual(nothing);
  });

  slowIt("may go through a transaction pooler if sessionUrl does not", async () => {
    await using pooler = await startPooler(world.url, "transaction");
    await using pool = new UsersPool({ connectionString: pooler.url });
    await expect(new Peer({ name: "a-1", pool }).start()).rejects.toMatchObject({
      code: "transaction_pooler",
      message: expect.stringContaining("databaseUrl or pool may go through the pooler"),
    });
    expect((await use(pool, { sessionUrl: world.url })).all).toHaveLength(3);
    expect(leftIn(pool)).toEqual(nothing);
  });

  it("stops after its pool was ended too early, and says so meanwhile", async () => {
    await using pool = new UsersPool();
    const peer = await new Peer({ name: "a-1", pool }).start();
    const ended = pool.end();
    await expect(peer.pending()).rejects.toMatchObject({
      code: "store_failed",
      message: expect.stringContaining("the pool was ended while a peer uses it; stop the peer first"),
    });
    expect(peer.health()).toEqual({
      ready: false,
      problems: ["the given pool was ended; stop the peer before the pool is ended"],
    });
    await peer.stop();
    await ended;
  });

  slowIt(
    "is not ready while the clients of the pool cannot write, says why, and is ready again afterwards",
    async () => {
      let isReadOnly = false;
      await using pool = new UsersPool({ idleTimeoutMillis: 1 });
      pool.on("acquire", (client) => void client.query(`SET default_transaction_read_only = ${isReadOnly}`));
      await using peer = await new Peer({ name: "a-1", pool }).start();
      expect(peer.health()).toEqual({ ready: true, problems: [] });
      isReadOnly = true;
      await eventually("the peer is not ready", () => !peer.health().ready);
      expect(peer.health().problems).toEqual([
        "could not write, as each handled message needs: cannot execute UPDATE in a read-only transaction; " +
          "if this server is no standby, set default_transaction_read_only to off for the role, the database or the server",
      ]);
      isReadOnly = false;
      await eventually("the peer is ready again", () => peer.health().ready);
    },
  );

  it("shares the session with the other peers of the same pool", async () => {
    const sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser'";
    const sessions = async () => (await world.query<{ pid: number }>(sql)).map(({ pid }) => pid);
    const before = await sessions();
    await using pool = new UsersPool();
    await using _one = await new Peer({ name: "a-1", pool }).start();
    await using _two = await new Peer({ name: "a-2", pool }).start();
    // Sessions of peers before may still come or go.
    await eventually("they have one session together", async () => {
      return (await sessions()).filter((pid) => !before.includes(pid)).length === 1;
    });
  });

  it.each<[string, () => object, RegExp]>([
    ["that is none", () => ({ pool: {} }), /^pool is no Pool of node-postgres: give a new/],
    ["that is null", () => ({ pool: null }), /^pool is no Pool/],
    [
      "with databaseUrl",
      () => ({ pool: new UsersPool(), databaseUrl: world.url }),
      /^databaseUrl together with pool: .*leave/,
    ],
    ["of one client", () => ({ pool: new UsersPool({ max: 1 }) }), /^pool has max 1: .* set max to at least 3/],
    ["of two clients", () => ({ pool: new UsersPool({ max: 2 }) }), /^pool has max 2: /],
  ])("is refused with one %s", (_, options, message) => {
    const made = () => new Peer({ name: "a-1", ...options() });
    expect(made).toThrow(
      expect.objectContaining({ code: "invalid_argument", message: expect.stringMatching(message) }),
    );
  });

  it("is refused with one that has ended, at the start and before", async () => {
    await using pool = new UsersPool();
    const peer = new Peer({ name: "a-1", pool });
    await pool.end();
    const ended = { code: "invalid_argument", message: expect.stringMatching(/^pool has ended: give an open one/) };
    await expect(peer.start()).rejects.toMatchObject(ended);
    expect(() => new Peer({ name: "a-1", pool })).toThrow(expect.objectContaining(ended));
  });

  it("has no transactional handlers if the pool has no client for their statements", async () => {
    const peer = new Peer({ name: "a-1", pool: new UsersPool({ max: 3 }) });
    const handling = peer.handle("a", { transactional: true }, () => undefined);
    await expect(handling).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/^pool has max 3: .* raise max of the pool/),
    });
  });
});
