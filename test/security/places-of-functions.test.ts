/** What waits in the queue for subscribed functions is for `hawser serve` alone, and it has nothing of what waits for workers. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

const ofFunction = "__#function#7";
let database: TestDatabase;
let admin: pg.Client;
const logins: (Login & AsyncDisposable)[] = [];
const sessions = {} as Record<"hawser_peer" | "hawser_bridge", pg.Client>;

beforeAll(async () => {
  database = await testDatabase();
  admin = new pg.Client(database.url);
  await admin.connect();
  for (const role of ["hawser_peer", "hawser_bridge"] as const) {
    const of = await login(database.url, `IN ROLE ${role}`);
    logins.push(of);
    sessions[role] = new pg.Client(of.url);
    await sessions[role].connect();
  }
});
afterAll(async () => {
  for (const session of [admin, ...Object.values(sessions)]) await session?.end();
  for (const each of logins) await each[Symbol.asyncDispose]();
  await database?.[Symbol.asyncDispose]();
});

it.each([
  { role: "hawser_peer", topic: ofFunction, own: "t" },
  { role: "hawser_bridge", topic: "t", own: ofFunction },
] as const)("a login in $role touches no message of $topic", async ({ role, topic, own }) => {
  const { rows } = await admin.query(
    "SELECT worker FROM hawser.open_worker('other:1', ARRAY[$1], NULL, 60000, 1, NULL)",
    [topic],
  );
  const { worker } = rows[0];
  await admin.query(
    "INSERT INTO hawser_data.queue (topic, rank, id, payload, headers, worker) VALUES ($1, 1, 1, 'x', $2, $3)",
    [topic, JSON.stringify([["__#nats", '{"subject":"s","id":"1"}']]), worker],
  );
  const client = sessions[role];
  const row = "$1::text, '', (SELECT current_user)::text, 1";
  const list = "ARRAY[$1::text], ARRAY[''], ARRAY['postgres'], ARRAY[1]::bigint[]";
  for (const call of [
    "open_worker('mine:1', ARRAY[$1::text], NULL, 60000, 1, NULL)",
    `take(${worker}, 10, 1000000, NULL, ARRAY[$1::text])`,
    `serve_topics(${worker}, ARRAY[$1::text], '{}')`,
    `resume_worker(${worker}, 4711, ${list})`,
    `extend(${worker}, true)`,
    `begin(${worker}, ${list})`,
    `retry(${worker}, ${row}, 0, NULL)`,
    `give_up(${worker}, ${row}, 'handler_failed', 'no', NULL, NULL)`,
    `give_back(${worker}, ${list}, NULL)`,
    `close_worker(${worker})`,
    ...(role === "hawser_peer"
      ? [`done(${row}, false)`, `done_batch(${list}, false)`, `set_progress(${worker}, ${row}, '1')`]
      : []),
  ])
    await expect(
      client.query(`SELECT FROM hawser.${call} WHERE $1::text IS NOT NULL`, [topic]),
      call,
    ).rejects.toMatchObject({
      code: errorTable.internal_topic.sqlstate,
    });
  const { rows: left } = await admin.query("SELECT worker FROM hawser_data.queue WHERE topic = $1", [topic]);
  expect(left).toEqual([{ worker }]);
  const { rows: mine } = await client.query(
    "SELECT worker FROM hawser.open_worker('mine:2', ARRAY[$1], NULL, 60000, 1, NULL)",
    [own],
  );
  expect(mine).toHaveLength(1);
  expect((await client.query("SELECT closed FROM hawser.close_worker($1)", [mine[0].worker])).rows).toEqual([
    { closed: true },
  ]);
  await expect(client.query("SELECT hawser.enqueue($1, 'x'::text)", [topic])).rejects.toMatchObject({
    code: role === "hawser_peer" ? errorTable.internal_topic.sqlstate : "42501",
  });
});

it("a login in hawser_peer that gives an id to the topic of a function puts no message there", async () => {
  const client = sessions.hawser_peer;
  await client.query("INSERT INTO hawser_peer_data.topics (topic, id) VALUES ($1, 1000)", [ofFunction]);
  const { rows } = await client.query("SELECT channel_id FROM hawser.open_channel('s', 't', 'mine')");
  const { channel_id: channel } = rows[0];
  const left = { channel_id: channel, epoch: 1, number: 1, topic_id: 1000, lane: "", attempts: 0, payload_bytes: 1 };
  const headers = [["__#nats", '{"subject":"s","id":"1"}']];
  await admin.query("SELECT FROM hawser.leave_channels('mine', $1, 'x')", [JSON.stringify([{ ...left, headers }])]);
  const { rows: put } = await admin.query("SELECT topic FROM hawser_data.queue WHERE channel_id = $1", [channel]);
  expect(put).toEqual([{ topic: "topic id 1000" }]);
});

it("a login in hawser_bridge ends no worker of jobs whose lease has ended, and a peer ends those of both", async () => {
  await admin.query("DELETE FROM hawser_data.workers");
  const open = async (client: pg.Client, name: string, topic: string): Promise<string> =>
    (await client.query("SELECT worker FROM hawser.open_worker($1, ARRAY[$2], NULL, 60000, 1, NULL)", [name, topic]))
      .rows[0].worker;
  const jobs = await open(admin, "jobs:1", "t");
  const functions = await open(admin, "functions:1", ofFunction);
  const silent = "UPDATE hawser_data.workers SET beat_at = now() - interval '1 day' WHERE id = ANY ($1)";
  const [bridge, peer] = [
    await open(sessions.hawser_bridge, "mine:1", ofFunction),
    await open(sessions.hawser_peer, "mine:2", "t"),
  ];
  await admin.query(silent, [[jobs, functions]]);
  const ended = async (client: pg.Client, worker: string): Promise<string[]> =>
    (await client.query("SELECT gone_workers FROM hawser.extend($1, false)", [worker])).rows[0].gone_workers;
  expect(await ended(sessions.hawser_bridge, bridge)).toEqual([functions]);
  expect(await ended(sessions.hawser_peer, peer)).toEqual([jobs]);
});
