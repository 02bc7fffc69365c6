/** Corrected dead letters: who may correct which, what stays of the original payload, and until when. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { deadLetters, listActs, type WholeDeadLetter, withCommandDatabase } from "../../src/operating/operate/index.js";
import { login } from "../installation/support/logins.js";
import { type Taken, TestWorker } from "../queue/support/test-worker.js";
import { type World, world } from "../store/support/world.js";

let w: World;
let client: pg.Client;
let work: pg.Client;
let app: Session;
let viewer: Session;
const sessions: Session[] = [];

interface Session {
  readonly of: Awaited<ReturnType<typeof login>>;
  readonly client: pg.Client;
}

async function sessionIn(role: string): Promise<Session> {
  const of = await login(w.url, `IN ROLE ${role}`);
  const session = new pg.Client({ connectionString: of.url });
  await session.connect();
  sessions.push({ of, client: session });
  return sessions.at(-1)!;
}

beforeAll(async () => {
  w = await world();
  client = w.operator;
  work = await w.connect();
  app = await sessionIn("hawser_peer");
  viewer = await sessionIn("hawser_viewer");
});
afterAll(async () => {
  for (const { client: each } of sessions) await each.end();
  for (const { of } of sessions) await of[Symbol.asyncDispose]();
  await w?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  for (const each of [client, work, app.client]) await each.query("ROLLBACK");
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.dead_letters, hawser_data.original_payloads, hawser_data.audit_records",
  );
});

const deliver = async (worker: TestWorker): Promise<Taken> =>
  (await worker.take({ most: 1, looksBehind: true }))[0] as Taken;
/** Dead letter of the queue. */
async function die(payload: string, more = "", worker?: TestWorker): Promise<{ id: number; job: string }> {
  const { rows } = await app.client.query(`SELECT hawser.enqueue('t', $1::text${more}) AS job`, [payload]);
  const serving = worker ?? (await TestWorker.open(work));
  const id = Number(await serving.giveUp(await deliver(serving)));
  return { id, job: rows[0].job };
}
const edit = async (id: number, payload: string, anyFormat = false, on = app.client): Promise<boolean> =>
  (await on.query("SELECT hawser.edit_dead_letter($1, $2::text, $3) AS edited", [id, payload, anyFormat])).rows[0]
    .edited;
const retry = (id: number, on = app.client) => on.query("SELECT hawser.retry_dead_letters(ARRAY[$1::bigint])", [id]);
const expire = () => app.client.query("SELECT hawser.expire_dead_letters(1000)");
const letter = (id: number, url = w.url): Promise<WholeDeadLetter | undefined> =>
  withCommandDatabase(url, (database) => deadLetters(database).get(id));
const originals = async (): Promise<string[]> =>
  (await client.query("SELECT payload FROM hawser_data.original_payloads")).rows.map(({ payload }) => `${payload}`);
const refusal = (code: string, message: RegExp, hint = /./) => ({
  ...{ code, message: expect.stringMatching(message), hint: expect.stringMatching(hint) },
});

it("the handler gets the corrected payload, and the original stays until it has handled it", async () => {
  const worker = await TestWorker.open(work);
  const { id, job } = await die('{"amount": "17"}', "", worker);
  expect(await edit(id, '{"amount": 17}')).toBe(true);
  expect(await edit(id, '{"amount": 17}')).toBe(false);
  expect(`${(await letter(id))!.payload}`).toBe('{"amount": 17}');
  await retry(id);
  await expire();
  expect(await originals()).toEqual(['{"amount": "17"}']);
  const taken = await deliver(worker);
  expect([String(taken.id), `${taken.payload}`]).toEqual([job, '{"amount": 17}']);
  await expire();
  expect(await originals()).toHaveLength(1);
  await worker.done(taken);
  await expire();
  expect(await originals()).toEqual([]);
});

it("a letter that has failed again still has the first original, who has corrected it last, and how often", async () => {
  const worker = await TestWorker.open(work);
  const { id } = await die("first", "", worker);
  await edit(id, "second");
  await edit(id, "third", false, client);
  await retry(id);
  const again = Number(await worker.giveUp(await deliver(worker)));
  await expire();
  const whole = (await letter(again))!;
  expect(`${whole.payload}`).toBe("third");
  expect(whole.edit).toEqual({
    ...{ at: expect.stringMatching(/Z$/), by: "postgres", edits: 2, original: Buffer.from("first") },
  });
  await edit(again, "fourth");
  expect((await letter(again))!.edit).toMatchObject({ by: app.of.role, edits: 3, original: Buffer.from("first") });
  await client.query("SELECT hawser.discard_dead_letters(ARRAY[$1::bigint])", [again]);
  expect(await originals()).toEqual([]);
});

it("a worker that is killed with the message leaves the original, and the next one has the correction", async () => {
  const killed = await w.connect();
  const { id } = await die("bad");
  await edit(id, "good");
  await retry(id);
  const dead = await TestWorker.open(killed, { name: "killed" });
  expect(`${(await deliver(dead)).payload}`).toBe("good");
  await client.query("UPDATE hawser_data.workers SET gone_at = clock_timestamp() WHERE id = $1", [String(dead.id)]);
  await expire();
  expect(await originals()).toEqual(["bad"]);
  const heir = await TestWorker.open(work, { name: "heir" });
  expect(`${(await deliver(heir)).payload}`).toBe("good");
});

it("is recorded, with the job and without the payload", async () => {
  const { id, job } = await die("secret");
  await edit(id, "other secret");
  const [act] = await withCommandDatabase(w.url, (database) => listActs(database));
  expect(act).toMatchObject({
    ...{ action: "edit", object: "t", count: 1, login: app.of.role },
    details: { ids: [id], job: Number(job), bytes: 12 },
  });
});

it("one of a subscription keeps its original until it is gone, also while it is retried", async () => {
  const { rows } = await client.query(
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('subscription', 'f', 's.t', 'bad', 'x', 'x', 1) RETURNING id::int`,
  );
  const { id } = rows[0];
  await edit(id, "good", false, client);
  await expire();
  expect((await letter(id))!.edit).toMatchObject({ original: Buffer.from("bad") });
  const retried = { subject: "s.t", id: `dead-letter-${id}` };
  await client.query("DELETE FROM hawser_data.dead_letters");
  await client.query(
    "INSERT INTO hawser_data.queue (topic, rank, id, payload, headers) VALUES ('__#function#1', 1, 1, 'good', $1)",
    [JSON.stringify([["__#nats", JSON.stringify(retried)]])],
  );
  await expire();
  expect(await originals()).toHaveLength(1);
  await client.query("DELETE FROM hawser_data.queue");
  await expire();
  expect(await originals()).toEqual([]);
});

describe("refusals name the remedy:", () => {
  it("a letter that is gone", async () => {
    const { id } = await die("x");
    await retry(id);
    await expect(edit(id, "y")).rejects.toMatchObject(refusal("22023", /no dead letter \d+ \(any more\)/, /dead list/));
  });

  it("JSON that would not be JSON any more, unless that is wanted", async () => {
    const { id } = await die('{"a": 1}');
    await expect(edit(id, '{"a": 1')).rejects.toMatchObject(
      refusal("22023", /is JSON, and the new payload is not/, /any_format/),
    );
    expect(await edit(id, '{"a": 1', true)).toBe(true);
    const { id: named } = await die("17", `, headers => '{"Content-Type": "application/json"}'`);
    await expect(edit(named, "seventeen")).rejects.toMatchObject(refusal("22023", /is JSON/));
    const { id: text } = await die("17");
    expect(await edit(text, "seventeen")).toBe(true);
  });

  it("an empty payload, and one above the limit", async () => {
    const { id } = await die("x");
    await expect(edit(id, "")).rejects.toMatchObject({ code: "22023" });
    const long = "SELECT hawser.edit_dead_letter($1, convert_to(repeat('x', 67108865), 'UTF8'))";
    await expect(app.client.query(long, [id])).rejects.toMatchObject({ code: "22023" });
    expect(await originals()).toEqual([]);
  });

  it("the origin outbox", async () => {
    const { rows } = await client.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
       VALUES ('outbox', 's', 't', 'x', 'x', 'x', 1) RETURNING id::int`,
    );
    await expect(edit(rows[0].id, "y", false, client)).rejects.toMatchObject(
      refusal("22023", /only those of the queue and of subscriptions/, /another message/),
    );
  });

  it("another role's letter, also one of a dropped role of that name, and the viewer's call", async () => {
    const { id } = await die("x");
    const other = await sessionIn("hawser_peer");
    await expect(edit(id, "y", false, other.client)).rejects.toMatchObject(
      refusal("42501", /belongs to the role/, /GRANT/),
    );
    await client.query("UPDATE hawser_data.dead_letters SET role_id = 1");
    await expect(edit(id, "y")).rejects.toMatchObject({ code: "42501" });
    await expect(edit(id, "y", false, viewer.client)).rejects.toMatchObject({ code: "42501" });
    await expect(viewer.client.query("SELECT FROM hawser.original_payloads")).rejects.toMatchObject({ code: "42501" });
    for (const text of ["hawser.write_edit(1, '', true)", "hawser.expire_originals()", "hawser.is_json('')"])
      await expect(app.client.query(`SELECT ${text}`)).rejects.toMatchObject({ code: "42501" });
    expect(`${(await letter(id))!.payload}`).toBe("x");
  });
});

it("an edit and a retry at once: the later one meets what the earlier one left", async () => {
  const { id } = await die("x");
  const other = await w.connect();
  await app.client.query("BEGIN");
  await edit(id, "y");
  const { rows } = await other.query("SELECT pg_backend_pid() AS pid");
  const retrying = retry(id, other);
  await w.waitsForLock(rows[0].pid);
  await app.client.query("COMMIT");
  await retrying;
  expect(`${(await client.query("SELECT payload FROM hawser_data.queue")).rows[0].payload}`).toBe("y");

  const { id: next } = await die("x");
  await app.client.query("BEGIN");
  await retry(next);
  const editing = expect(edit(next, "y", false, other)).rejects.toMatchObject({ code: "22023" });
  await w.waitsForLock(rows[0].pid);
  await app.client.query("COMMIT");
  await editing;
});

it("an edit that has not ended delays nobody who has other letters", async () => {
  const [{ id }, { id: second }, { id: old }] = [await die("x"), await die("x"), await die("x")];
  await client.query("UPDATE hawser_data.dead_letters SET created_at = '2000-01-01' WHERE id = ANY ($1)", [[id, old]]);
  const other = await w.connect();
  await app.client.query("BEGIN");
  await edit(id, "y");
  await edit(second, "z", false, other);
  await retry(second, other);
  await other.query("SELECT hawser.expire_dead_letters(1000)");
  await app.client.query("COMMIT");
  const { rows } = await client.query("SELECT id::integer FROM hawser_data.dead_letters");
  expect(rows).toEqual([{ id }]);
  await other.end();
});
