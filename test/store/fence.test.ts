import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { own, takeOver, type World, world } from "./support/world.js";

/** Stores one message, through the function. */
const storeSql = `SELECT held FROM hawser.store_messages($1, $2, $3, 1, '{1}', '{3}', '{0}', NULL, 'abc')`;

/**
 * Statement that looks sufficient, and is not: lock and write in one statement, whose snapshot is from before the wait.
 */
const naiveStoreSql = `
  INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number)
  SELECT $3::integer, 'abc', o.epoch, 1
  FROM (SELECT f.what FROM hawser_data.fences AS f WHERE f.what = 'peer:' || $1 FOR SHARE OFFSET 0) AS locked, hawser_data.owners AS o
  WHERE o.what = locked.what AND o.epoch = $2::bigint`;

const commitSql = "SELECT held, moved FROM hawser.commit_cursors($1, $2, ARRAY[$3::integer], '{1}', '{1}', NULL, NULL)";

describe("the fence of a name", () => {
  let w: World;
  let late: pg.Client;
  let taker: pg.Client;
  let channelId: number;
  let epoch: number;

  beforeAll(async () => {
    w = await world();
    late = await w.connect();
    taker = await w.connect();
    channelId = await w.channelOf({ name: "writer", sourceTopic: "source" }, "writer");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    await w.operator.query("DELETE FROM hawser_peer_data.stored_messages");
    await w.operator.query("DELETE FROM hawser_peer_data.cursors");
    epoch = Number(await takeOver(w.operator, "writer"));
  });

  /** Sends a write of the old epoch that has to wait until the name has been taken; resolves with its rows. */
  async function writeLate(sql: string): Promise<Record<string, unknown>[]> {
    const { rows } = await late.query("SELECT pg_backend_pid() AS pid");
    await taker.query("BEGIN");
    await takeOver(taker, "writer");
    const answer = late.query(sql, ["writer", epoch, channelId]);
    await w.waitsForLock(rows[0].pid);
    await taker.query("COMMIT");
    return (await answer).rows;
  }

  async function storedRows(): Promise<number> {
    return Number((await w.operator.query("SELECT count(*) FROM hawser_peer_data.stored_messages")).rows[0].count);
  }

  it("rejects messages whose write waited while the name was taken", async () => {
    expect(await writeLate(storeSql)).toEqual([{ held: false }]);
    expect(await storedRows()).toBe(0);
  });

  it("rejects cursors whose write waited while the name was taken", async () => {
    expect(await writeLate(commitSql)).toEqual([{ held: false, moved: null }]);
    expect((await w.operator.query("SELECT FROM hawser_peer_data.cursors")).rowCount).toBe(0);
  });

  it("would accept the late write if lock and write were one statement", async () => {
    await writeLate(naiveStoreSql);
    expect(await storedRows()).toBe(1);
  });

  it("rejects a write in a transaction whose snapshot is older than the lock", async () => {
    const snapshot = await w.connect();
    await snapshot.query("SET default_transaction_isolation = 'repeatable read'");
    await expect(snapshot.query(storeSql, ["writer", epoch, channelId])).rejects.toThrow("needs READ COMMITTED");
    await expect(snapshot.query(commitSql, ["writer", epoch, channelId])).rejects.toThrow("needs READ COMMITTED");
    expect(await storedRows()).toBe(0);
  });

  it("is refused in other isolation levels by each function that waits for a lock and then reads", async () => {
    const { rows } = await w.operator.query<{ name: string; call: string }>(
      `SELECT p.proname AS name,
              format('SELECT hawser.%I(%s)', p.proname,
                     (SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(p.proargtypes) AS t)) AS call
         FROM pg_proc AS p
        WHERE p.pronamespace = 'hawser'::regnamespace AND p.prosrc ~ ' needs READ COMMITTED'`,
    );
    expect(rows.length).toBeGreaterThanOrEqual(17);
    for (const { name, call } of rows) {
      await w.operator.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
      await expect(w.operator.query(call), name).rejects.toThrow(
        `hawser.${name} needs READ COMMITTED, not repeatable read`,
      );
      await w.operator.query("ROLLBACK");
    }
  });

  it("makes a new owner wait for running writes", async () => {
    const { rows } = await taker.query("SELECT pg_backend_pid() AS pid");
    await late.query("BEGIN");
    expect((await late.query(storeSql, ["writer", epoch, channelId])).rows).toEqual([{ held: true }]);
    const taking = takeOver(taker, "writer");
    await w.waitsForLock(rows[0].pid);
    await late.query("COMMIT");
    await taking;
    expect(await storedRows()).toBe(1);
  });

  it("lets no further write start while a new owner waits", async () => {
    const { rows } = await taker.query("SELECT pg_backend_pid() AS pid");
    await late.query("BEGIN");
    expect((await late.query(storeSql, ["writer", epoch, channelId])).rows).toEqual([{ held: true }]);
    const taking = takeOver(taker, "writer");
    await w.waitsForLock(rows[0].pid);
    const refused = await w.operator.query(storeSql, ["writer", epoch, channelId]);
    expect(refused.rows).toEqual([{ held: false }]);
    await late.query("COMMIT");
    // Nor does one of the new epoch before all older ones have ended.
    const next = await taking;
    expect((await taker.query(storeSql, ["writer", next, channelId])).rows).toEqual([{ held: true }]);
  });

  it("rejects an epoch that was taken but not raised at the fence", async () => {
    await w.operator.query("SELECT FROM hawser.end_ownership('writer', true)");
    const next = await own(taker, "writer");
    expect((await taker.query(storeSql, ["writer", next, channelId])).rows).toEqual([{ held: false }]);
    expect((await late.query(storeSql, ["writer", epoch, channelId])).rows).toEqual([{ held: false }]);
  });

  it("rejects all writes of a name that was never taken", async () => {
    await w.operator.query("SELECT FROM hawser.end_ownership('unborn', false)");
    await w.operator.query("SELECT FROM hawser.share_fences('{unborn}')");
    expect((await late.query("SELECT held FROM hawser.fenced('unborn', 0)")).rows).toEqual([{ held: false }]);
  });

  it("fences a transaction of several statements the same way", async () => {
    const lease = await w.take("listener");
    await takeOver(w.operator, "listener");
    const registration = { addr: "127.0.0.1:1", maxMessageBytes: 1, durable: false, topics: [] };
    await expect(w.store.registerListener(lease, registration)).rejects.toMatchObject({ code: "fenced" });
    expect(await w.store.lanesLeft(lease, channelId, [], ["topic"])).toBe("fenced");
  });

  it("assigns an epoch greater than the clock and the last one", async () => {
    const now = Date.now();
    const take = async () =>
      (await w.operator.query("SELECT epoch, was_clean FROM hawser.own_name('fresh', 'twin', 1)")).rows[0];
    const [first, second] = [await take(), await take()];
    expect(first.was_clean).toBe(true);
    expect(second.was_clean).toBe(false);
    expect(Number(first.epoch)).toBeGreaterThanOrEqual(now - 1000);
    expect(Number(second.epoch)).toBeGreaterThan(Number(first.epoch));

    const future = 9_000_000_000_000;
    await w.operator.query("UPDATE hawser_peer_data.peers SET epoch = $1 WHERE name = 'fresh'", [future]);
    const third = await take();
    expect(Number(third.epoch)).toBe(future + 1);
  });
});
