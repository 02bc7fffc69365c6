import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
    await w.take("sender");
    const listener = await w.take("listener");
    for (let n = 0; n < 3; n++) await w.channelOf({ name: "sender", sourceTopic: `${n}` }, "listener");
    await w.operator.query("ALTER TABLE hawser.conn_messages SET (autovacuum_enabled = off)");
    await w.operator.query("VACUUM ANALYZE");
    await w.operator.query(
      `INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number)
       SELECT 1 + n % 3, 'x', 1, n FROM generate_series(1, 30000) AS n`,
    );
    client = await w.connect();
    client.on("notice", ({ message }) => plans.push(message ?? ""));
    await client.query(
      `LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_min_duration = 0;
       SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on`,
    );
    await client.query("SELECT set_config('test.epoch', $1, false)", [String(listener.epoch)]);
  });
  afterAll(() => w[Symbol.asyncDispose]());

  /** The plans of the statements within a function's call that touch the stored messages. */
  async function plansOf(call: string): Promise<string> {
    plans.length = 0;
    await client.query(`BEGIN; SELECT * FROM ${call}; ROLLBACK`);
    return plans.filter((plan) => plan.includes("conn_messages") && !plan.includes(call)).join("\n");
  }

  it("a drain walks along the primary key and stops after its page", async () => {
    const plan = await plansOf("hawser.drain_messages(1, 0, 0, 10, 1000000, 20)");
    expect(plan).toContain("using conn_messages_pkey");
    expect(plan).not.toMatch(/Seq Scan|Bitmap|Sort/);
    expect(mostRows(plan)).toBeLessThanOrEqual(30);
  });

  it("a count stops at its limit", async () => {
    const plan = await plansOf("hawser.count_messages(1, 0, 0, 20)");
    expect(plan).toContain("using conn_messages_pkey");
    expect(mostRows(plan)).toBeLessThanOrEqual(20);
  });

  it("a commit looks at nothing but what it deletes", async () => {
    const epoch = "current_setting('test.epoch')::bigint";
    const calls = [
      `hawser.commit_cursors('listener', ${epoch}, '{1}', '{1}', '{30}', NULL, NULL)`,
      `hawser.commit_cursors('listener', ${epoch}, '{1,2,3}', '{1,1,1}', '{30,30,30}', NULL, NULL)`,
    ];
    for (const call of calls) {
      const plan = await plansOf(call);
      expect(plan).toContain("conn_messages_pkey");
      expect(plan).not.toContain("Seq Scan on conn_messages");
      expect(mostRows(plan)).toBeLessThanOrEqual(30);
    }
  });

  /** The most rows that any step of the plans has made. */
  function mostRows(plan: string): number {
    const counts = [...plan.matchAll(/actual time=\S+ rows=([\d.]+) loops=(\d+)/g)];
    return Math.max(...counts.map(([, rows, loops]) => Number(rows) * Number(loops)));
  }
});
