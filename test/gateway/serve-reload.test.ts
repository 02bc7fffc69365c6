/**
 * The functions that have the gateway read the definition of the NATS server again.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { connectionOf, createServer, reached } from "./serving.js";

let other: TestNatsServer;
let gateway: TestGateway;

beforeAll(async () => {
  other = await startNatsServer();
  gateway = await testGateway({ serverOptions: false });
  await gateway.client.query(createServer(testNatsUrl()));
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
});

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
});

const main = () => Number(new URL(testNatsUrl()).port);
const query = (sql: string) => gateway.client.query(sql);
const alter = (port: number) => `ALTER SERVER nats_main OPTIONS (SET port '${port}')`;

/** Runs statements in a transaction, ends it, and says how the last one ended. */
async function inTransaction(
  ...statements: readonly string[]
): Promise<{ code?: string; message?: string; hint?: string }> {
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

describe.each(["litmus_pgnats_reload_conf", "pgnats_reload_conf"])("%s", (reload) => {
  it("returns when the new connection is up", async () => {
    for (const port of [other.port, main(), other.port, main()]) {
      await query(alter(port));
      await query(`SELECT ${reload}()`);
      expect(await reached(gateway)).toMatchObject({ port });
    }
  });

  it("does nothing where nothing has changed", async () => {
    const before = await connectionOf(gateway);
    await query(`SELECT ${reload}()`);
    await query(
      "BEGIN; ALTER SERVER nats_main OPTIONS (ADD capacity '9'); ALTER SERVER nats_main OPTIONS (DROP capacity); COMMIT",
    );
    await query(`SELECT ${reload}()`);
    expect(await connectionOf(gateway)).toBe(before);
  });

  it("raises why the connection is not up, and works when it can", async () => {
    await other.stop();
    await query(alter(other.port));
    const error = await gateway.errorOf(`SELECT ${reload}()`);
    expect([error.code, error.message, error.hint]).toEqual([
      "08003",
      expect.stringContaining(`${other.port}`),
      expect.stringMatching(/./),
    ]);
    await other.restart();
    await query(alter(main()));
    await query(`SELECT ${reload}()`);
    expect(await reached(gateway)).toMatchObject({ port: main() });
  });
});

describe.each(["litmus_pgnats_reload_conf_force", "pgnats_reload_conf_force"])("%s", (force) => {
  it("connects anew always, and the functions never notice", async () => {
    const seen = new Set([await connectionOf(gateway)]);
    for (let turn = 0; turn < 3; turn++) {
      await query(`SELECT ${force}()`);
      seen.add(await connectionOf(gateway));
    }
    expect(seen.size).toBe(4);
  });

  it("takes what has changed with it", async () => {
    await query(alter(other.port));
    await query(`SELECT ${force}()`);
    expect(await reached(gateway)).toMatchObject({ port: other.port });
    await query(alter(main()));
    await query(`SELECT ${force}()`);
    expect(await reached(gateway)).toMatchObject({ port: main() });
  });
});

describe.each(["litmus_pgnats_reload_conf", "litmus_pgnats_reload_conf_force"])("%s in a transaction", (reload) => {
  const select = `SELECT ${reload}()`;
  const refused = { code: "25001", hint: expect.stringMatching(/./), message: expect.stringContaining("transaction") };

  it.each([
    ["itself", [alter(4999)]],
    ["in a savepoint", ["SAVEPOINT a", alter(4999)]],
    ["in a savepoint that was released", ["SAVEPOINT a", alter(4999), "RELEASE SAVEPOINT a"]],
    [
      "in a block of PL/pgSQL that catches errors",
      [`DO $$BEGIN BEGIN ${alter(4999)}; EXCEPTION WHEN division_by_zero THEN NULL; END; END$$`],
    ],
    [
      "in two blocks within each other",
      [
        `DO $$BEGIN BEGIN BEGIN ${alter(4999)}; EXCEPTION WHEN division_by_zero THEN NULL; END; EXCEPTION WHEN division_by_zero THEN NULL; END; END$$`,
      ],
    ],
    ["before a savepoint that was rolled back", [alter(4999), "SAVEPOINT a", "SELECT 1", "ROLLBACK TO SAVEPOINT a"]],
    ["by way of hawser.set_nats_server", [`SELECT hawser.set_nats_server('{"port":"4999"}')`]],
  ])("is refused where the server was altered %s", async (_, statements) => {
    expect(await inTransaction(...statements, select)).toMatchObject(refused);
    expect(await reached(gateway)).toMatchObject({ port: main() });
  });

  it("works where nothing was altered, or it was undone", async () => {
    expect(await inTransaction("CREATE TEMPORARY TABLE t (a int)", "INSERT INTO t VALUES (1)", select)).toEqual({});
    expect(await inTransaction("SAVEPOINT a", alter(4999), "ROLLBACK TO SAVEPOINT a", select)).toEqual({});
    const undone = `DO $$BEGIN BEGIN ${alter(4999)}; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END; END$$`;
    expect(await inTransaction(undone, select)).toEqual({});
    expect(await inTransaction("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT 1", select)).toEqual({});
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
