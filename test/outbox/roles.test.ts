/**
 * Roles that share the outbox: none reaches messages of another, or waits for its keys, bursts and transactions.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { natsTurn, takeNats } from "./support/turns.js";

let database: TestDatabase;
let admin: pg.Client;
let ann: pg.Client;
let mal: pg.Client;
const logins: (Login & AsyncDisposable)[] = [];

beforeAll(async () => {
  database = await testDatabase();
  admin = await connected(database.url);
  for (const _ of ["ann", "mal"]) logins.push(await login(database.url, "IN ROLE hawser_nats, hawser_peer"));
  [ann, mal] = (await Promise.all(logins.map(({ url }) => connected(url)))) as [pg.Client, pg.Client];
});
afterAll(async () => {
  for (const client of [ann, mal, admin]) await client?.end();
  for (const each of logins) await each[Symbol.asyncDispose]();
  await database?.drop();
});

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, statement_timeout: 30_000 });
  await client.connect();
  return client;
}

describe("messages of another role", () => {
  it("cannot be cancelled by guessing their numbers, only by members of their role", async () => {
    const { rows } = await ann.query(
      "SELECT hawser.enqueue('a', 'x', stream => false, deliver_at => now() + interval '1 hour') AS id UNION ALL SELECT hawser.enqueue('a', 'x', deliver_at => now() + interval '1 hour')",
    );
    const ids = rows.map(({ id }) => id);
    const cancel = "SELECT hawser.cancel(id) AS cancelled FROM unnest($1::bigint[]) AS id";
    expect((await mal.query(cancel, [ids])).rows).toEqual([{ cancelled: "not_waiting" }, { cancelled: "not_waiting" }]);
    expect((await ann.query(cancel, [[ids[0]]])).rows).toEqual([{ cancelled: "cancelled" }]);
    // The owner of the schema acts for all.
    expect((await admin.query(cancel, [[ids[1]]])).rows).toEqual([{ cancelled: "cancelled" }]);
  });

  it("for NATS are deleted until the relay has passed them, but it may have read those of another transaction", async () => {
    const put = async (): Promise<string> =>
      (await ann.query("SELECT hawser.enqueue('withdrawn', 'x', stream => false) AS id")).rows[0].id;
    const cancel = async (client: pg.Client, id: string): Promise<string> =>
      (await client.query("SELECT hawser.cancel($1) AS state", [id])).rows[0].state;
    const id = await put();
    expect(await cancel(mal, id)).toBe("not_waiting");
    expect([await cancel(ann, id), await cancel(ann, id)]).toEqual(["cancelling", "not_waiting"]);
    await ann.query("BEGIN");
    expect(await cancel(ann, await put())).toBe("cancelled");
    await ann.query("COMMIT");
    const { rows } = await admin.query("SELECT FROM hawser_data.outbox WHERE destination = 'withdrawn'");
    expect(rows).toEqual([]);
  });

  it("are not published again by a role that replays all of its own", async () => {
    await ann.query("SELECT hawser.enqueue('replayed', 'of ann', stream => false)");
    await mal.query("SELECT hawser.enqueue('replayed', 'of mal', stream => false)");
    const replay = "SELECT hawser.outbox_replay('-infinity', 'replayed', core => true) AS count";
    expect((await mal.query(replay)).rows).toEqual([{ count: "1" }]);
    const { rows } = await admin.query(
      "SELECT convert_from(payload, 'UTF8') AS text, role FROM hawser_data.outbox WHERE copy_of IS NOT NULL",
    );
    expect(rows).toEqual([{ text: "of mal", role: logins[1]!.role }]);
    expect((await admin.query(replay)).rows).toEqual([{ count: "2" }]);
  });

  it("belong to the current role, whatever function enqueues them", async () => {
    await admin.query(`GRANT ${logins[0]!.role} TO ${logins[1]!.role}`);
    await mal.query(`BEGIN; SET LOCAL ROLE ${logins[0]!.role}`);
    await mal.query("SELECT hawser.enqueue('set', 'x', stream => false)");
    await mal.query("COMMIT");
    await admin.query(`REVOKE ${logins[0]!.role} FROM ${logins[1]!.role}`);
    const { rows } = await admin.query("SELECT role FROM hawser_data.outbox WHERE destination = 'set'");
    expect(rows).toEqual([{ role: logins[0]!.role }]);
  });
});

describe("a role", () => {
  it("does not wait for the keys of another role, however many that has locked", async () => {
    await mal.query("BEGIN");
    // More than there are locks: it has all of its own.
    await mal.query(
      "SELECT hawser.enqueue('k', 'x', stream => false, key => n::text), hawser.enqueue('k', 'x', key => n::text) FROM generate_series(1, 20000) AS n",
    );
    await ann.query("SET lock_timeout = '10s'");
    await ann.query(
      "SELECT hawser.enqueue('k', 'x', stream => false, key => n::text) FROM generate_series(1, 100) AS n",
    );
    await ann.query("SELECT hawser.enqueue('k', 'x', key => n::text) FROM generate_series(1, 100) AS n");
    await mal.query("ROLLBACK");
  });

  it("that may only use peers cannot relay for NATS", async () => {
    const peer = await login(database.url, "IN ROLE hawser_peer");
    const client = await connected(peer.url);
    await expect(takeNats(client, "mal")).rejects.toMatchObject({ code: "42501" });
    await client.end();
    await peer[Symbol.asyncDispose]();
  });
});

it("a turn does not save a position at which the next relay could not start", async () => {
  const { turn, position } = await takeNats(admin, "mine");
  for (const series of [null, {}, [{}], [{ role: "ann", from: "1:1:" }], [{ role: "ann", from: "x", after: 1 }]]) {
    const given = { ...position, series: series as never };
    await expect(
      natsTurn(admin, "mine", { turn: turn + 1n, position: given, mustSave: true }),
      JSON.stringify(series),
    ).rejects.toMatchObject({ code: expect.stringMatching(/^22/) });
  }
  expect(await takeNats(admin, "next")).toMatchObject({ turn: turn + 1n, position });
});
