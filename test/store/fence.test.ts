import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type World, world } from "./support/world.js";

const fence = "hashtextextended('hawser:fence:' || $1, 0)";

/** Stores one message, through the function. */
const storeSql = `SELECT held FROM hawser.store_messages($1, $2, $3, 1, '{1}', '{3}', '{0}', NULL, 'abc')`;

/** What looks enough, and is not: lock and write in one statement, whose snapshot is from before the wait. */
const naiveStoreSql = `
  INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number)
  SELECT $3::integer, 'abc', p.epoch, 1
  FROM (SELECT pg_advisory_xact_lock_shared(${fence}) OFFSET 0) AS locked, hawser.peers AS p
  WHERE p.name = $1 AND p.epoch = $2::bigint AND locked IS NOT NULL`;

const commitSql = "SELECT held, moved FROM hawser.commit_cursors($1, $2, ARRAY[$3::integer], '{1}', '{1}', NULL, NULL)";

describe("the fence of a name", () => {
  let w: World;
  let late: pg.Client;
  let taker: pg.Client;
  let connectionKey: number;
  let epoch: number;

  beforeAll(async () => {
    w = await world();
    late = await w.connect();
    taker = await w.connect();
    connectionKey = await w.channelOf({ name: "writer", sourceTopic: "source" }, "writer");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    await w.operator.query("DELETE FROM hawser.conn_messages");
    await w.operator.query("DELETE FROM hawser.conn_mess_number");
    epoch = (await w.operator.query("SELECT epoch FROM hawser.take_name('writer', 'twin')")).rows[0].epoch;
  });

  /** Sends a write of the old epoch that has to wait until the name has been taken; resolves with its rows. */
  async function writeLate(sql: string): Promise<Record<string, unknown>[]> {
    const { rows } = await late.query("SELECT pg_backend_pid() AS pid");
    await taker.query("BEGIN");
    await taker.query("SELECT hawser.take_name('writer', 'twin')");
    const answer = late.query(sql, ["writer", epoch, connectionKey]);
    await w.waitsForLock(rows[0].pid);
    await taker.query("COMMIT");
    return (await answer).rows;
  }

  async function storedRows(): Promise<number> {
    return Number((await w.operator.query("SELECT count(*) FROM hawser.conn_messages")).rows[0].count);
  }

  it("keeps out messages whose write waited while the name was taken", async () => {
    expect(await writeLate(storeSql)).toEqual([{ held: false }]);
    expect(await storedRows()).toBe(0);
  });

  it("keeps out cursors whose write waited while the name was taken", async () => {
    expect(await writeLate(commitSql)).toEqual([{ held: false, moved: null }]);
    expect((await w.operator.query("SELECT FROM hawser.conn_mess_number")).rowCount).toBe(0);
  });

  it("would let the late write through if lock and write were one statement", async () => {
    await writeLate(naiveStoreSql);
    expect(await storedRows()).toBe(1);
  });

  it("refuses to write in a transaction whose snapshot is older than the lock", async () => {
    const snapshot = await w.connect();
    await snapshot.query("SET default_transaction_isolation = 'repeatable read'");
    await expect(snapshot.query(storeSql, ["writer", epoch, connectionKey])).rejects.toThrow("needs READ COMMITTED");
    await expect(snapshot.query(commitSql, ["writer", epoch, connectionKey])).rejects.toThrow("needs READ COMMITTED");
    expect(await storedRows()).toBe(0);
  });

  it("makes whoever takes the name wait for writes under way", async () => {
    const { rows } = await taker.query("SELECT pg_backend_pid() AS pid");
    await late.query("BEGIN");
    expect((await late.query(storeSql, ["writer", epoch, connectionKey])).rows).toEqual([{ held: true }]);
    const taking = taker.query("SELECT hawser.take_name('writer', 'twin')");
    await w.waitsForLock(rows[0].pid);
    await late.query("COMMIT");
    await taking;
    expect(await storedRows()).toBe(1);
  });

  it("fences a transaction of several statements just the same", async () => {
    const lease = await w.take("listener");
    await w.operator.query("SELECT hawser.take_name('listener', 'twin')");
    const registration = { addr: "127.0.0.1:1", maxMessageBytes: 1, durable: false, topics: [] };
    await expect(w.store.registerListener(lease, registration)).rejects.toMatchObject({ code: "fenced" });
    expect(await w.store.countAttempt(lease, connectionKey)).toBe("fenced");
  });

  it("gives an epoch beyond the clock and beyond the last one", async () => {
    const now = Date.now();
    const [first, second] = [
      (await w.operator.query("SELECT epoch, was_clean FROM hawser.take_name('fresh', 'twin')")).rows[0],
      (await w.operator.query("SELECT epoch, was_clean FROM hawser.take_name('fresh', 'twin')")).rows[0],
    ];
    expect(first.was_clean).toBe(true);
    expect(second.was_clean).toBe(false);
    expect(Number(first.epoch)).toBeGreaterThanOrEqual(now - 1000);
    expect(Number(second.epoch)).toBeGreaterThan(Number(first.epoch));

    const future = 9_000_000_000_000;
    await w.operator.query("UPDATE hawser.peers SET epoch = $1 WHERE name = 'fresh'", [future]);
    const third = (await w.operator.query("SELECT epoch FROM hawser.take_name('fresh', 'twin')")).rows[0];
    expect(Number(third.epoch)).toBe(future + 1);
  });
});
