/**
 * A `hawser serve` of migration 2 that goes on beside this version: it cannot lead any more, what it commits late does not count, and
 * it sees the new leader. A member of `hawser_peer` loses the rights that only functions need now.
 */
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { releasedMigrations } from "../../generated/ts/sql/migrations.js";
import { migrate } from "../../src/store/index.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";

/** As the program of migration 2 has them. */
const old = {
  take: `UPDATE hawser.bridge_lead SET epoch = epoch + 1 + floor(random() * 1048576)::bigint, owner = $3::text, beat = 0
    WHERE id = 1 AND epoch = $1::bigint AND beat = $2::bigint RETURNING epoch`,
  fence: "UPDATE hawser.bridge_fence SET epoch = $1::bigint WHERE id = 1 AND epoch < $1::bigint",
  heartbeat: `UPDATE hawser.bridge_lead SET beat = greatest(beat, 0) + 1, progress_at = to_timestamp($3::bigint / 1000.0)
    WHERE id = 1 AND epoch = $1::bigint AND owner = $2::text RETURNING epoch`,
  read: `SELECT epoch, owner, beat, (extract(epoch FROM progress_at) * 1000)::float8 AS progress_at,
      (extract(epoch FROM complete_since) * 1000)::float8 AS complete_since,
      (extract(epoch FROM complete_until) * 1000)::float8 AS complete_until, behind FROM hawser.bridge_lead`,
  batch: "SELECT held FROM hawser.fence_batch($1)",
} as const;

it("an old leader's batch under way is waited for, and nothing of it counts later", async () => {
  const database = await testDatabase({ migrated: false });
  onTestFinished(() => database.drop());
  await migrate({ databaseUrl: database.url }, releasedMigrations);
  const connected = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    onTestFinished(() => client.end());
    return client;
  };
  const [leader, batch, watcher] = await Promise.all([connected(), connected(), connected()]);
  await leader.query("CREATE TABLE effects (what text)");
  const [{ epoch }] = (await leader.query(old.take, ["0", "0", "old"])).rows;
  await leader.query(old.fence, [epoch]);
  expect((await leader.query(old.heartbeat, [epoch, "old", 1])).rowCount).toBe(1);
  const [{ pid }] = (await batch.query("SELECT pg_backend_pid() AS pid")).rows;
  await batch.query("BEGIN");
  expect((await batch.query(old.batch, [epoch])).rows).toEqual([{ held: true }]);
  await batch.query("INSERT INTO effects VALUES ('under way')");

  const migrating = migrate({ databaseUrl: database.url });
  await eventually("the step waits for the batch", async () => {
    const { rows } = await watcher.query(
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pg_blocking_pids(pid) && ARRAY[$1::int]",
      [pid],
    );
    return rows.length > 0;
  });
  await batch.query("COMMIT");
  await migrating;

  expect((await watcher.query("SELECT what FROM effects")).rows).toEqual([{ what: "under way" }]);
  // It is deposed only when another one leads: until then what it receives must wait, and by false it would not be kept.
  const waits = { code: "55000", message: "no hawser serve of this schema has led yet" };
  await expect(batch.query(old.batch, [epoch])).rejects.toMatchObject(waits);
  const refusal = { code: "55000", message: 'cannot update view "bridge_lead"' };
  await expect(leader.query(old.heartbeat, [epoch, "old", 1])).rejects.toMatchObject(refusal);
  await expect(leader.query(old.take, ["0", "0", "old"])).rejects.toMatchObject(refusal);
  // Nobody leads: what it has kept, it saves at its end.
  expect((await leader.query(old.read)).rows).toMatchObject([{ owner: null, beat: "0", progress_at: null }]);

  const [taken] = (await watcher.query("SELECT epoch FROM hawser.take_lead('new', 0, 0)")).rows;
  expect(BigInt(taken.epoch)).toBeGreaterThan(BigInt(epoch));
  expect((await watcher.query("SELECT * FROM hawser.raise_lead('new', $1)", [taken.epoch])).rows).toEqual([
    { held: true, raised: true },
  ]);
  expect((await batch.query(old.batch, [epoch])).rows).toEqual([{ held: false }]);
  const state = { progress_at: 2_000, complete_since: 1_000, behind: { 7: 500 } };
  await watcher.query("SELECT hawser.keep_lead('new', $1, $2, false)", [taken.epoch, state]);
  expect((await leader.query(old.read)).rows).toEqual([
    {
      ...{ epoch: taken.epoch, owner: "new", beat: "1", behind: '{"7": 500}' },
      ...{ progress_at: 2_000, complete_since: 1_000, complete_until: null },
    },
  ]);
  expect((await batch.query(old.batch, [taken.epoch])).rows).toEqual([{ held: true }]);
});

it("members of hawser_peer may write neither names of peers nor dead letters any more", async () => {
  const database = await testDatabase({ migrated: false });
  onTestFinished(() => database.drop());
  await migrate({ databaseUrl: database.url }, releasedMigrations);
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  onTestFinished(() => client.end());
  const rights = async (): Promise<string[]> => {
    const { rows } = await client.query<{ name: string }>(`
      SELECT t || ' ' || p AS name FROM unnest(ARRAY['hawser_data.peers', 'hawser_data.dead_letters']) AS t, unnest(ARRAY['INSERT', 'UPDATE']) AS p
       WHERE has_table_privilege('hawser_peer', t, p) ORDER BY name`);
    return rows.map(({ name }) => name);
  };
  // As the program of migration 2 does.
  await client.query(
    "GRANT SELECT, INSERT, UPDATE ON hawser_data.peers TO hawser_peer; GRANT SELECT, INSERT ON hawser_data.dead_letters TO hawser_peer",
  );
  expect(await rights()).toEqual([
    "hawser_data.dead_letters INSERT",
    "hawser_data.peers INSERT",
    "hawser_data.peers UPDATE",
  ]);

  await migrate({ databaseUrl: database.url });

  expect(await rights()).toEqual([]);
  expect(
    (await client.query("SELECT has_table_privilege('hawser_peer', 'hawser_data.peers', 'SELECT') AS may")).rows,
  ).toEqual([{ may: true }]);
});
