/**
 * A transaction that stays open keeps all rows that are deleted or updated after its snapshot, for hours. What is read and written
 * for each message must not walk through them: it touches so few pages as if they were not there.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { openStore } from "../../src/store/index.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type World, world } from "./support/world.js";

/** Number of dead rows of each kind: more than 100 pages of their table and of their index. */
const deadRows = 20_000;
/** A descent of an index has three; a statement makes some of them. */
const fewPages = 60;

describe.each([
  ["statistics of before", false],
  ["statistics of a vacuum that could not remove them", true],
])("with rows that an open transaction keeps, and %s", (_, isVacuumed) => {
  let w: World;
  let client: pg.Client;
  let open: pg.Client;
  let channel: number;
  let second: number;
  let epoch: number;

  beforeAll(async () => {
    w = await world();
    epoch = (await w.take("listener")).epoch;
    // As the relay makes them.
    [channel, second] = (await Promise.all(
      ["listener", "listener-2"].map((name) => w.channelOf({ name: "__#outbox", sourceTopic: "__#outbox" }, name)),
    )) as [number, number];
    client = await w.connect();
    await client.query("UPDATE hawser_data.channels SET owner = 'listener' WHERE channel_id = $1", [second]);
    await client.query("INSERT INTO hawser_data.topics (topic, id) VALUES ('jobs', 7)");
    await client.query(
      "INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ('jobs', '127.0.0.1:1', 'listener')",
    );
    await client.query("VACUUM ANALYZE");
    open = await w.connect();
    await open.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    for (const key of [channel, second]) {
      await client.query(
        `INSERT INTO hawser_data.marks (channel_id, epoch, number) SELECT $1, 1, n FROM generate_series(1, $2::integer) AS n`,
        [key, deadRows],
      );
      await client.query(
        `INSERT INTO hawser_data.stored_messages (channel_id, epoch, number, payload, topic_id, key_hash)
         SELECT $1, 1, n, 'x', 7, hashtextextended('jobs k', 0) FROM generate_series(1, $2::integer) AS n`,
        [key, deadRows],
      );
      await client.query(
        `DO $$
         BEGIN
           INSERT INTO hawser_data.cursors (channel_id, epoch) VALUES (${key}, 1);
           FOR v_to IN 1..${deadRows} LOOP
             UPDATE hawser_data.cursors SET number = v_to WHERE channel_id = ${key} AND epoch = 1 AND number = v_to - 1;
           END LOOP;
         END
         $$`,
      );
    }
    await client.query("DELETE FROM hawser_data.marks");
    await client.query("DELETE FROM hawser_data.stored_messages");
    if (isVacuumed) await client.query("VACUUM ANALYZE");
  });
  afterAll(() => w[Symbol.asyncDispose]());

  /** Number of pages of Hawser's tables that the client's session has touched. */
  async function pagesSoFar(): Promise<number> {
    const { rows } = await client.query(
      `SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::float8 AS pages FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace)`,
    );
    return rows[0].pages;
  }

  /**
   * Number of pages that a statement touches, with those of the functions that it calls, when its plans exist. Pages of
   * the catalog do not count: work in other databases of the server can make a session read them again at any time.
   */
  async function pagesOf(statement: string): Promise<number> {
    let pages = 0;
    for (let run = 0; run < 2; run++) {
      await client.query("BEGIN");
      const before = await pagesSoFar();
      await client.query(statement);
      pages = (await pagesSoFar()) - before;
      expect(pages).toBeGreaterThan(0);
      await client.query("ROLLBACK");
    }
    return pages;
  }

  const numbers = (count: number): string => `'{${Array.from({ length: count }, (_, nth) => deadRows + 1 + nth)}}'`;
  const epochs = (count: number): string => `'{${Array.from({ length: count }, () => 1)}}'`;

  it("it is looked whether a message is done", async () => {
    for (const count of [1, 5])
      expect(
        await pagesOf(
          `SELECT hawser.handling_refusal('listener', ${epoch}, ${channel}, ${epochs(count)}, ${numbers(count)}, true)`,
        ),
      ).toBeLessThan(fewPages);
  });

  it("a message is marked", async () => {
    // As the transaction of a handler has it.
    await client.query("SELECT set_config($1, 'on', false)", [storeConstants.handlingSetting]);
    for (const count of [1, 5])
      expect(
        await pagesOf(`SELECT hawser.mark_done('listener', ${epoch}, ${channel}, ${epochs(count)}, ${numbers(count)})`),
      ).toBeLessThan(fewPages);
  });

  it("cursors are moved", async () => {
    const to = deadRows + 5;
    const calls = [
      `'{${channel}}', '{1}', '{${to}}', NULL, NULL`,
      `'{${channel},${second}}', '{1,1}', '{${to},${to}}', NULL, NULL`,
      `'{${channel}}', '{1}', '{${to}}', NULL, NULL, '[[${channel}, 1, ${to + 2}]]'`,
    ];
    for (const call of calls)
      expect(await pagesOf(`SELECT FROM hawser.commit_cursors('listener', ${epoch}, ${call})`)).toBeLessThan(
        3 * fewPages,
      );
  });

  it("a message is handed over that has a key", async () => {
    await client.query(
      `INSERT INTO hawser_data.outbox (segment, id, destination, payload, key, message_id, to_stream)
       VALUES (3, 1, 'jobs', 'x', 'k', '', false)`,
    );
    // As outbox_turn_peers has them, which calls it.
    await client.query(
      "SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan",
    );
    expect(await pagesOf("SELECT FROM hawser.store_enqueued('{1}', 2, 2)")).toBeLessThan(3 * fewPages);
  });

  it("a listener reads its channels and what is stored", async () => {
    const pages = async (): Promise<number> => {
      const [row] = await rowsOf(
        w.url,
        `SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::float8 AS pages FROM pg_statio_user_tables
          WHERE relname IN ('cursors', 'stored_messages', 'marks')`,
      );
      return row!["pages"] as number;
    };
    const before = await pages();
    const store = await openStore({ databaseUrl: `${w.url}?application_name=reader` });
    expect(await store.channel(channel)).toMatchObject({ cursor: { epoch: 1, number: deadRows }, done: [] });
    expect((await store.channelsOwnedBy("listener")).length).toBe(2);
    expect(await store.channelsWithMessages("listener")).toEqual({ channelIds: [], topics: [] });
    expect(await store.absentListeners()).toEqual([]);
    expect((await store.drain(channel, { epoch: 1, number: deadRows })).rows).toEqual([]);
    await store.close();
    // A session that ends tells what it has counted.
    await eventually("its sessions have ended", async () => {
      const sessions = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reader'`;
      return (await rowsOf(w.url, sessions)).length === 0;
    });
    const touched = (await pages()) - before;
    expect(touched).toBeGreaterThan(10);
    expect(touched).toBeLessThan(3 * fewPages);
  });
});
