/**
 * The functions that have the gateway read the definition of the NATS server again.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { connectionOf, createServer, reached } from "./serving.js";

let other: TestNatsServer;
let gateway: TestGateway;

beforeAll(async () => {
  other = await startNatsServer();
  gateway = await testGateway({ serverOptions: false });
  await gateway.client.query(createServer(testNatsUrl()));
});

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
});

const main = () => Number(new URL(testNatsUrl()).port);
const query = (sql: string) => gateway.client.query(sql);
const alter = (port: number) => `ALTER SERVER nats_main OPTIONS (SET port '${port}')`;

beforeEach(async () => {
  await query(alter(main()));
  await query("SELECT litmus_pgnats_reload_conf()");
});

/** Runs statements in a transaction, ends it, and says how the last one ended. */
async function inTransaction(...statements: readonly string[]): Promise<object> {
  await query("BEGIN");
  try {
    for (const statement of statements) await query(statement);
    return {};
  } catch (error) {
    return error as object;
  } finally {
    await query("ROLLBACK");
  }
}

const keeping = ["litmus_pgnats_reload_conf", "pgnats_reload_conf"];
const forced = ["litmus_pgnats_reload_conf_force", "pgnats_reload_conf_force"];

// The second name of a forced one is the same function; each of its calls waits for the second to be over.
describe.each([...keeping, forced[0]!])("%s", (reload) => {
  it("returns when the new connection is up", async () => {
    for (const port of [other.port, main(), other.port, main()]) {
      await query(alter(port));
      await query(`SELECT ${reload}()`);
      expect(await reached(gateway)).toMatchObject({ port });
    }
    await query(alter(other.port));
    await query(`SELECT ${reload}()`);
    // As another client sees it.
    await using connection = await natsClient({ servers: other.url });
    expect(await gateway.value("SELECT server_id FROM nats_get_server_info()")).toBe(connection.info!.server_id);
  });

  it("raises why the connection is not up, and works when it can", async () => {
    await other.stop();
    await query(alter(other.port));
    expect(await gateway.errorOf(`SELECT ${reload}()`)).toMatchObject({
      code: "08003",
      message: expect.stringContaining(`${other.port}`),
      detail: expect.stringContaining("Nothing listens there"),
      hint: expect.stringMatching(/./),
    });
    await other.restart();
    await query(alter(main()));
    await query(`SELECT ${reload}()`);
    expect(await reached(gateway)).toMatchObject({ port: main() });
  });
});

it.each(keeping)("%s does nothing where nothing has changed", async (reload) => {
  const before = await connectionOf(gateway);
  await query(`SELECT ${reload}()`);
  await query(
    "BEGIN; ALTER SERVER nats_main OPTIONS (ADD capacity '9'); ALTER SERVER nats_main OPTIONS (DROP capacity); COMMIT",
  );
  await query(`SELECT ${reload}()`);
  expect(await connectionOf(gateway)).toBe(before);
});

it.each(forced)("%s connects anew always, and the functions never notice", async (force) => {
  const seen = new Set([await connectionOf(gateway)]);
  for (let turn = 0; turn < 3; turn++) {
    await query(`SELECT ${force}()`);
    seen.add(await connectionOf(gateway));
  }
  expect(seen.size).toBe(4);
});

describe.each([...keeping, ...forced])("%s in a transaction", (reload) => {
  const select = `SELECT ${reload}()`;
  const caught = (inner: string) => `BEGIN ${inner}; EXCEPTION WHEN division_by_zero THEN NULL; END`;

  it("is refused if the server was altered in it, in whatever way", async () => {
    for (const statements of [
      [alter(4999)],
      ["SAVEPOINT a", alter(4999)],
      ["SAVEPOINT a", alter(4999), "RELEASE SAVEPOINT a"],
      [`DO $$BEGIN ${caught(alter(4999))}; END$$`],
      [`DO $$BEGIN ${caught(caught(alter(4999)))}; END$$`],
      [alter(4999), "SAVEPOINT a", "SELECT 1", "ROLLBACK TO SAVEPOINT a"],
      [`SELECT hawser.set_nats_server('{"port":"4999"}')`],
    ]) {
      expect(await inTransaction(...statements, select), statements.join("; ")).toMatchObject({
        code: "25001",
        hint: expect.stringContaining("COMMIT"),
        message: expect.stringContaining("transaction"),
      });
      expect(await reached(gateway)).toMatchObject({ port: main() });
    }
  });

  it("works if nothing was altered, or it was undone", async () => {
    for (const statements of [
      ["CREATE TEMPORARY TABLE t (a int)", "INSERT INTO t VALUES (1)"],
      ["SAVEPOINT a", alter(4999), "ROLLBACK TO SAVEPOINT a"],
      [`DO $$BEGIN ${caught(`${alter(4999)}; PERFORM 1/0`)}; END$$`],
      ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1"],
    ]) {
      expect(await inTransaction(...statements, select), statements.join("; ")).toEqual({});
    }
  });

  it("works where another session is altering it, and takes what is committed", async () => {
    const session = await gateway.connect();
    try {
      await session.query(`BEGIN; ${alter(4999)}`);
      expect(await inTransaction(select)).toEqual({});
      expect(await reached(gateway)).toMatchObject({ port: main() });
    } finally {
      await session.end();
    }
  });
});

it("a role that forces reloads without end has the gateway connect again once a second at most, and nobody's call fails", async () => {
  await using own = await testGateway();
  const server = new URL(testNatsUrl()).port;
  const connections = new Set<string>();
  const sessions = await Promise.all(Array.from({ length: 8 }, () => own.connect()));
  const startedAt = performance.now();
  let forcedReloads = 0;
  const forcing = sessions.slice(1).map(async (session) => {
    while (performance.now() - startedAt < 2_500) {
      await session.query("SELECT litmus_pgnats_reload_conf_force()");
      forcedReloads += 1;
    }
  });
  const inbox = `reload${server}${Date.now()}`;
  const received: string[] = [];
  own.nats.subscribe(inbox, { callback: (_, message) => void received.push(message.string()) });
  await own.nats.flush();
  const sent: string[] = [];
  while (performance.now() - startedAt < 2_500) {
    sent.push(`${sent.length}`);
    await sessions[0]!.query("SELECT nats_publish_text($1, $2)", [inbox, sent.at(-1)]);
    const { rows } = await sessions[0]!.query("SELECT i.client_id::text FROM nats_get_server_info() AS i");
    connections.add(rows[0].client_id);
  }
  await Promise.all(forcing);
  await eventually("all that was published is received", async () => received.length === sent.length);
  expect(received).toEqual(sent);
  // All that ask at a time share one. At once, and then at each second that has begun.
  const seconds = (performance.now() - startedAt) / 1_000;
  expect(connections.size).toBeGreaterThan(1);
  expect(connections.size).toBeLessThanOrEqual(2 + seconds);
  expect(forcedReloads).toBeGreaterThan(connections.size);
  await Promise.all(sessions.map((session) => session.end()));
});
