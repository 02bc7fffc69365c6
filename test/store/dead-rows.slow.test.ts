/**
 * A transaction that stays open keeps all rows that are deleted or updated after its snapshot, for hours. What is read and written
 * for each message must not walk through them: it touches so few pages as if they were not there.
 */

import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { tableNamed } from "../support/tables.js";
import { type World, world } from "./support/world.js";

/** Number of dead rows of each kind: more than 100 pages of their table and of their index. */
const deadRows = 20_000;
/** A descent of an index has three; a statement makes some of them. */
const fewPages = 60;

/** Tables with dead rows. */
const tables = ["cursors", "stored_messages", "queue"];

let w: World;
let client: pg.Client;
let channel: number;
let second: number;
let epoch: number;
/** The tables of Hawser, for VACUUM. */
let everyTable: string;

beforeAll(async () => {
  w = await world();
  epoch = (await w.take("listener")).epoch;
  [channel, second] = (await Promise.all(
    ["shop", "store"].map((sourceTopic) => w.channelOf({ name: "shop", sourceTopic }, "listener")),
  )) as [number, number];
  client = await w.connect();
  await client.query(`
    INSERT INTO hawser_peer_data.topics (topic, id) VALUES ('jobs', 7);
    INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('jobs', '127.0.0.1:1', 'listener')`);
  for (const table of tables) await client.query(`ALTER TABLE ${tableNamed(table)} SET (autovacuum_enabled = off)`);
  const { rows } = await client.query(
    "SELECT string_agg(oid::regclass::text, ', ') AS names FROM pg_class WHERE relnamespace IN ('hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p')",
  );
  everyTable = rows[0].names;
  await client.query(`VACUUM ANALYZE ${everyTable}`);
  const open = await w.connect();
  await open.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
  for (const key of [channel, second]) {
    await client.query(`
      INSERT INTO hawser_data.queue (topic, recipient, rank, id, key, origin, payload, channel_id)
        SELECT 'jobs', '@listener', n.id, n.id, '${key}:', 'shop:shop', 'x', ${key} FROM (SELECT nextval('hawser_data.outbox_id_seq') AS id FROM generate_series(1, ${deadRows})) AS n;
      INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, payload, topic_id)
        SELECT ${key}, 1, n, 'x', 7 FROM generate_series(1, ${deadRows}) AS n;
      DO $$
      BEGIN
        INSERT INTO hawser_peer_data.cursors (channel_id, epoch) VALUES (${key}, 1);
        FOR v_to IN 1..${deadRows} LOOP
          UPDATE hawser_peer_data.cursors SET number = v_to WHERE channel_id = ${key} AND epoch = 1 AND number = v_to - 1;
        END LOOP;
      END
      $$`);
  }
  await client.query("DELETE FROM hawser_data.queue");
  await client.query("DELETE FROM hawser_peer_data.stored_messages");
});
afterAll(() => w[Symbol.asyncDispose]());

/** Number of pages of Hawser's tables that the client's transaction has touched, of all or of some. */
async function pagesSoFar(of?: readonly string[]): Promise<number> {
  const { rows } = await client.query(
    `SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::float8 AS pages FROM pg_class
      WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace)
        AND ($1::text[] IS NULL OR oid IN (
          SELECT to_regclass(t) FROM unnest($1::text[]) AS t
          UNION ALL SELECT i.indexrelid FROM unnest($1::text[]) AS t JOIN pg_index AS i ON i.indrelid = to_regclass(t)))`,
    [of?.map(tableNamed)],
  );
  return rows[0].pages;
}

/**
 * Number of pages that a statement touches, with those of the functions that it calls, when its plans exist. It is counted
 * by the session itself. Pages of the catalog do not count: work in other databases of the server can make a session
 * read them again at any time.
 */
async function pagesOf(statement: string | pg.QueryConfig, of?: readonly string[]): Promise<number> {
  let pages = 0;
  for (let run = 0; run < 2; run++) {
    await client.query("BEGIN");
    const before = await pagesSoFar(of);
    await client.query(statement);
    pages = (await pagesSoFar(of)) - before;
    await client.query("ROLLBACK");
  }
  return pages;
}

async function expectFew(statement: string, most: number): Promise<void> {
  const pages = await pagesOf(statement);
  expect(pages).toBeGreaterThan(0);
  expect(pages).toBeLessThan(most);
}

/** The statements that clients of this process send meanwhile. */
async function statementsOf(work: () => Promise<void>): Promise<pg.QueryConfig[]> {
  const statements: pg.QueryConfig[] = [];
  const query = pg.Client.prototype.query as (...given: unknown[]) => unknown;
  const spy = vi.spyOn(pg.Client.prototype, "query").mockImplementation(function (
    this: pg.Client,
    ...given: unknown[]
  ) {
    const [statement] = given as [pg.QueryConfig];
    if (/\bhawser(_data)?\./.test(statement.text ?? "")) statements.push({ ...statement });
    return query.apply(this, given) as never;
  });
  await work().finally(() => spy.mockRestore());
  return statements;
}

describe.each([
  ["statistics of before", false],
  ["statistics of a vacuum that could not remove them", true],
])("with rows that an open transaction keeps, and %s", (_, isVacuumed) => {
  beforeAll(async () => {
    if (isVacuumed) await client.query(`VACUUM ANALYZE ${everyTable}`);
  });

  it("it is asked of which lanes the queue has rows", async () => {
    const lanes = `ARRAY['', '=a', '=b']`;
    await expectFew(`SELECT hawser.lanes_left('listener', ${epoch}, ${channel}, ${lanes}, ARRAY['jobs'])`, fewPages);
  });

  it("cursors are moved", async () => {
    const to = deadRows + 5;
    const message = { channel_id: channel, epoch: 1, number: to, topic_id: 7, lane: "", message_id: "m", attempts: 0 };
    const left = JSON.stringify([{ ...message, payload_bytes: 1 }]);
    const calls = [
      `'{${channel}}', '{1}', '{${to}}', NULL, NULL`,
      `'{${channel},${second}}', '{1,1}', '{${to},${to}}', NULL, NULL`,
      `'{${channel}}', '{1}', '{${to}}', '${left}', 'x'`,
    ];
    for (const call of calls)
      await expectFew(`SELECT FROM hawser.commit_cursors('listener', ${epoch}, ${call})`, 3 * fewPages);
  });

  it("a listener reads its channels and what is stored", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=reader` });
    const statements = await statementsOf(async () => {
      expect(await store.channel(channel)).toMatchObject({ cursor: { epoch: 1, number: deadRows } });
      expect((await store.channelsOwnedBy("listener")).length).toBe(2);
      expect(await store.absentListeners()).toEqual([]);
      expect((await store.drain(channel, { epoch: 1, number: deadRows })).rows).toEqual([]);
    });
    expect(statements.length).toBeGreaterThanOrEqual(4);
    let touched = 0;
    for (const statement of statements) touched += await pagesOf(statement, tables);
    expect(touched).toBeGreaterThan(10);
    expect(touched).toBeLessThan(3 * fewPages);
  });
});
