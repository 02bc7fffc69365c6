import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type World, world } from "./support/world.js";

/**
 * The table of stored messages goes from empty to full and back, and the planner's statistics come late. These tests
 * make the worst of it: the statistics say that the tables are empty, and they are not.
 */
describe("with statistics from when the tables were empty", () => {
  let w: World;
  let client: pg.Client;
  const plans: string[] = [];

  beforeAll(async () => {
    w = await world();
    const sender = await w.take("sender");
    const listener = await w.take("listener");
    for (let n = 0; n < 3; n++) await w.channelOf({ name: "sender", sourceTopic: `${n}` }, "listener");
    await w.operator.query("ALTER TABLE hawser_peer_data.stored_messages SET (autovacuum_enabled = off)");
    await w.operator.query("VACUUM ANALYZE");
    await w.operator.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number)
       SELECT 1 + n % 3, 'x', 1, n FROM generate_series(1, 30000) AS n`,
    );
    client = await w.connect();
    client.on("notice", ({ message }) => plans.push(message ?? ""));
    await client.query(
      `LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
       SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on`,
    );
    await client.query("SELECT set_config('test.epoch', $1, false)", [String(listener.epoch)]);
    await client.query("SELECT set_config('test.sender_epoch', $1, false)", [String(sender.epoch)]);
  });
  afterAll(() => w[Symbol.asyncDispose]());

  /** The plans of the statements within a function's call that touch the stored messages. */
  async function plansOf(call: string): Promise<string> {
    plans.length = 0;
    await client.query(`BEGIN; SELECT * FROM ${call}; ROLLBACK`);
    return plans.filter((plan) => plan.includes("stored_messages") && !plan.includes(call)).join("\n");
  }

  it("a drain walks along the primary key and stops after its page", async () => {
    const plan = await plansOf("hawser.drain_messages(1, 0, 0, 10, 1000000, 20)");
    expect(plan).toContain("using stored_messages_pkey");
    expect(plan).not.toMatch(/Seq Scan|Bitmap|Sort/);
    expect(mostRows(plan)).toBeLessThanOrEqual(30);
  });

  it("an insert finds stored messages along the primary key", async () => {
    const plan = await plansOf(
      "hawser.store_messages('sender', current_setting('test.sender_epoch')::bigint, 1, 5, '{1}', '{1}', '{0}', NULL, 'x')",
    );
    expect(plan).toContain("using stored_messages_pkey");
    expect(plan).not.toMatch(/Seq Scan on stored_messages|Bitmap/);
    expect(mostRows(plan)).toBeLessThanOrEqual(1);
  });

  it("a count stops at its limit", async () => {
    const plan = await plansOf("hawser.count_messages(1, 0, 0, 20)");
    expect(plan).toContain("using stored_messages_pkey");
    expect(mostRows(plan)).toBeLessThanOrEqual(20);
  });

  it("a commit reads only the rows that it deletes", async () => {
    const epoch = "current_setting('test.epoch')::bigint";
    const calls = [
      `hawser.commit_cursors('listener', ${epoch}, '{1}', '{1}', '{30}', NULL, NULL)`,
      `hawser.commit_cursors('listener', ${epoch}, '{1,2,3}', '{1,1,1}', '{30,30,30}', NULL, NULL)`,
    ];
    for (const call of calls) {
      const plan = await plansOf(call);
      expect(plan).toContain("stored_messages_pkey");
      expect(plan).not.toContain("Seq Scan on stored_messages");
      expect(mostRows(plan)).toBeLessThanOrEqual(30);
    }
  });

  it("a commit does not read rows that earlier ones have deleted, which are in the index until a vacuum", async () => {
    const epoch = "current_setting('test.epoch')::bigint";
    const calls = [
      `hawser.commit_cursors('listener', ${epoch}, '{1}', '{1}', '{27030}', NULL, NULL)`,
      `hawser.commit_cursors('listener', ${epoch}, '{1,2,3}', '{1,1,1}', '{27030,27030,27030}', NULL, NULL)`,
    ];
    for (const call of calls) {
      await client.query("BEGIN");
      const before = `hawser.commit_cursors('listener', ${epoch}, '{1,2,3}', '{1,1,1}', '{27000,27000,27000}', NULL, NULL)`;
      await client.query(`SELECT FROM ${before}`);
      plans.length = 0;
      await client.query("SET LOCAL auto_explain.log_buffers = on");
      await client.query(`SELECT FROM ${call}`);
      await client.query("ROLLBACK");
      const plan = plans.filter((each) => each.includes("stored_messages_pkey") && !each.includes(call)).join("\n");
      // The 9,000 rows of each channel that were deleted before are on many more pages.
      const scans = [...plan.matchAll(/stored_messages_pkey.*\n(?:\s+Index.*\n)+\s+Buffers: shared hit=(\d+)/g)];
      expect(scans.length).toBeGreaterThan(0);
      for (const [, pages] of scans) expect(Number(pages)).toBeLessThan(50);
    }
  });

  it("a commit that moves no cursor deletes everything up to it", async () => {
    const epoch = "current_setting('test.epoch')::bigint";
    for (const keys of ["{1}", "{1,2}"]) {
      const cursors = keys === "{1}" ? "'{1}', '{9}'" : "'{1,1}', '{9,9}'";
      const commit = `SELECT FROM hawser.commit_cursors('listener', ${epoch}, '${keys}', ${cursors}, NULL, NULL)`;
      await client.query(
        `BEGIN; ${commit}; INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number) VALUES (1, 'late', 1, 4)`,
      );
      const left = "SELECT FROM hawser_peer_data.stored_messages WHERE channel_id = 1 AND number <= 9";
      expect((await client.query(left)).rowCount).toBe(1);
      await client.query(commit);
      expect((await client.query(left)).rowCount).toBe(0);
      await client.query("ROLLBACK");
    }
  });

  it("a search for stored messages reads one row of each channel", async () => {
    const plan = await plansOf("hawser.channels_with_messages('listener')");
    expect(plan).toContain("using stored_messages_pkey");
    expect(plan).not.toMatch(/Seq Scan|Sort Key: s\./);
    expect(mostRows(plan)).toBeLessThanOrEqual(3);
  });

  /** The most rows that any step of the plans has made. */
  function mostRows(plan: string): number {
    const counts = [...plan.matchAll(/actual time=\S+ rows=([\d.]+) loops=(\d+)/g)];
    return Math.max(...counts.map(([, rows, loops]) => Number(rows) * Number(loops)));
  }
});

it("a search for absent listeners does not read all stored messages", async () => {
  await using w = await world();
  await w.take("sender");
  const key = await w.channelOf({ name: "sender", sourceTopic: "orders" }, "away");
  await w.operator.query(
    `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number)
     SELECT ${key}, 'x', 1, n FROM generate_series(1, 30000) AS n`,
  );
  await w.operator.query("VACUUM ANALYZE hawser_peer_data.stored_messages");
  const scans = async (): Promise<{ indexScans: number; readRows: number }> => {
    const { rows } = await w.operator.query(
      `SELECT s.idx_scan::float8 AS "indexScans", s.seq_tup_read::float8 AS "readRows"
         FROM pg_stat_user_tables AS s WHERE s.relid = 'hawser_peer_data.stored_messages'::regclass`,
    );
    return rows[0];
  };
  const before = await scans();
  expect(await w.store.absentListeners()).toMatchObject([{ name: "away" }]);
  // A session that ends tells at once what it has counted.
  await w.store.close();
  await eventually("it is counted", async () => (await scans()).indexScans > before.indexScans);
  expect((await scans()).readRows).toBe(before.readRows);
});
