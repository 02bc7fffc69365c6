/** A role that is made with the name of one that was dropped is another one: it has no right to what that one has enqueued. */
import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { type World, world } from "../store/support/world.js";
import { type Taken, TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;
const role = `later role ${process.pid}`;
const quoted = `"${role}"`;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
const makes = `CREATE ROLE ${quoted} LOGIN IN ROLE hawser_peer, hawser_nats`;
beforeEach(() => client.query(makes));
afterEach(async () => {
  await client.query(`RESET SESSION AUTHORIZATION; DROP ROLE IF EXISTS ${quoted}`);
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.outbox, hawser_data.results, hawser_data.dead_letters, hawser_data.unique_keys, hawser_data.unique_locks, hawser_data.flow_edges, hawser_data.workers",
  );
});

async function as<T>(work: () => Promise<T>): Promise<T> {
  await client.query(`SET SESSION AUTHORIZATION ${quoted}`);
  try {
    return await work();
  } finally {
    await client.query("RESET SESSION AUTHORIZATION");
  }
}
const value = async (sql: string, ...values: unknown[]): Promise<unknown> =>
  Object.values((await client.query(sql, values)).rows[0])[0];

/** Enqueues, as the role, one of each kind that it can read, cancel or retry later. */
async function leaveAll() {
  const worker = await TestWorker.open(other);
  const left = await as(async () => {
    const enqueues = "SELECT e.id, hawser.keep_result(e.id, 60000) FROM hawser.enqueue('t', 'kept'::text) AS e (id)";
    const kept = (await value(enqueues)) as string;
    return { kept, dead: (await value("SELECT hawser.enqueue('t', 'dead'::text)")) as string };
  });
  const [done, dead] = (await worker.take()) as [Taken, Taken];
  await other.query("SELECT hawser.done($1, $2, $3, $4, false, 1, '17')", [
    done.topic,
    done.recipient,
    done.role,
    done.id,
  ]);
  const letter = Number(await worker.giveUp(dead));
  await worker.close();
  const put = (rest: string) => as(() => value(`SELECT hawser.${rest}`)) as Promise<string>;
  const waiting = await put("enqueue('t', 'waiting'::text, priority => 3)");
  return {
    ...{ ...left, letter, waiting },
    later: await put("enqueue('t', 'later'::text, deliver_at => now() + interval '1 hour')"),
    held: await put(`enqueue_after('t', 'held'::text, ARRAY[${waiting}::bigint])`),
    unique: await put("enqueue_unique('t', 'unique'::text, 'k')"),
    nats: await put("enqueue('a.b', 'nats'::text, stream => true)"),
  };
}

/** States and outcomes of all of these for the role. */
async function rightsOn(ids: Awaited<ReturnType<typeof leaveAll>>) {
  return await as(async () => {
    const jobs = [ids.kept, ids.dead, ids.waiting, ids.later, ids.held, ids.unique];
    const states = [];
    for (const id of jobs) states.push(await value("SELECT state FROM hawser.job($1)", id));
    const found = await client.query("SELECT FROM hawser.queue_find($1, NULL, 10)", [ids.waiting]);
    const sent = await client.query("SELECT FROM hawser.outbox_find($1, NULL, 10)", [ids.nats]);
    return { states, found: found.rows.length, sent: sent.rows.length };
  });
}

const all = { states: ["done", "dead", "waiting", "later", "held", "waiting"], found: 1, sent: 1 };
const none = { states: Array.from({ length: 6 }, () => "unknown"), found: 0, sent: 0 };

it("reads, cancels, retries and replaces nothing of the one before it", async () => {
  const ids = await leaveAll();
  expect(await rightsOn(ids)).toEqual(all);
  await client.query(`DROP ROLE ${quoted}; ${makes}`);
  expect(await rightsOn(ids)).toEqual(none);
  await as(async () => {
    for (const id of [ids.waiting, ids.later, ids.held, ids.unique, ids.nats])
      expect(await value("SELECT hawser.cancel($1)", id)).toBe("not_waiting");
    const rows = (sql: string, ...values: unknown[]) => client.query(sql, values).then((result) => result.rows);
    expect(await rows("SELECT id FROM hawser.cancel_flow($1)", ids.waiting)).toEqual([]);
    expect(await rows("SELECT id FROM hawser.cancel_messages('peer', 't', NULL, NULL, $1, 10)", -(2n ** 62n))).toEqual(
      [],
    );
    const refused = [{ id: String(ids.letter), refused: "owner" }];
    expect(await rows("SELECT id, refused FROM hawser.retry_dead_letters($1)", [ids.letter])).toEqual(refused);
    expect(await rows("SELECT id, refused FROM hawser.discard_dead_letters($1)", [ids.letter])).toEqual(refused);
    expect(await value("SELECT hawser.keep_result($1, 1000)", ids.later)).toBe(false);
    await expect(
      client.query("SELECT hawser.enqueue_after('t', 'x'::text, $1)", [[ids.waiting]]),
    ).rejects.toMatchObject({ code: "NA010" });
    // Its unique keys are its own.
    const own = await value("SELECT hawser.enqueue_unique('t', 'own'::text, 'k', replaces => true)");
    expect(own).not.toBe(ids.unique);
    expect(await value("SELECT hawser.cancel($1)", own)).toBe("cancelled");
  });
  await client.query("UPDATE hawser_data.dead_letters SET created_at = now() - interval '1 year'");
  expect(await as(() => value("SELECT deleted FROM hawser.expire_dead_letters(10)"))).toBe(0);
  // The owner of the schema has all rights, and the messages are still handled.
  expect(await value("SELECT state FROM hawser.job($1)", ids.kept)).toBe("done");
  const texts = (await (await TestWorker.open(other)).take()).map(({ payload }) => payload.toString());
  expect(texts.toSorted()).toEqual(["unique", "waiting"]);
});

it("is the same role after a dump is restored, where roles have other ids, once hawser init has run", async () => {
  const ids = await leaveAll();
  // As in another cluster: the role has another id, and so has the queue's table.
  await client.query(`DROP ROLE ${quoted}; ${makes}`);
  await client.query("UPDATE hawser_data.outbox_state SET roles_at = '17/' || split_part(roles_at, '/', 2)");
  expect(await rightsOn(ids)).toEqual(none);
  const lines: string[] = [];
  await install({ databaseUrl: w.url, nats: false, onWait: (line) => void lines.push(line) });
  expect(lines).toContainEqual(expect.stringMatching(/^\d+ rows have come by a dump or from another cluster/));
  expect(await rightsOn(ids)).toEqual(all);
  // Once: the next role of the name is another one again.
  await client.query(`DROP ROLE ${quoted}; ${makes}`);
  await install({ databaseUrl: w.url, nats: false });
  expect(await rightsOn(ids)).toEqual(none);
});
