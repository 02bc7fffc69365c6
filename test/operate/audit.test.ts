/** Records of what operators have done: each act leaves one, with whoever did it, in its transaction. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueFunctions } from "../../generated/ts/rows/queue.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type Act, type ActFilter, listActs, withCommandDatabase } from "../../src/operating/operate/index.js";
import { login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";

let w: World;
let client: pg.Client;
let app: Session;
let operator: Session;
const sessions: Session[] = [];

interface Session {
  readonly of: Awaited<ReturnType<typeof login>>;
  readonly client: pg.Client;
}

/** A session of a login with a role. */
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
  app = await sessionIn("hawser_peer");
  operator = await sessionIn("hawser_peer");
  await client.query(`GRANT ${app.of.role} TO ${operator.of.role}`);
});
afterAll(async () => {
  for (const { client: each } of sessions) await each.end();
  for (const { of } of sessions) await of[Symbol.asyncDispose]();
  await w?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  for (const each of [client, app.client, operator.client]) await each.query("ROLLBACK");
  await client.query(
    "TRUNCATE hawser_data.audit_records, hawser_data.queue, hawser_data.dead_letters, hawser_data.topic_settings, hawser_data.schedules",
  );
});

const acts = (filter: ActFilter = {}, url = w.url): Promise<Act[]> =>
  withCommandDatabase(url, (database) => listActs(database, filter));
/** Action, object and count of each, the oldest first. */
const done = async (): Promise<string[]> =>
  (await acts()).reverse().map(({ action, object, count }) => [action, object ?? "-", count ?? "-"].join(" "));
const put = async (topic = "t", on = app.client): Promise<string> =>
  (await on.query("SELECT hawser.enqueue($1, 'x'::text) AS id", [topic])).rows[0].id;
/** Dead letters of the application. @returns their ids */
const die = async (...topics: string[]): Promise<number[]> =>
  (
    await client.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, role, role_id, job_id)
       SELECT 'queue', '', t.topic, 'x', 'handler_failed', 'no', 1, $2::text, $2::text::regrole::oid::bigint, nextval('hawser_data.outbox_id_seq')
         FROM unnest($1::text[]) AS t (topic) RETURNING id::int`,
      [topics, app.of.role],
    )
  ).rows.map(({ id }) => id);

it("names the login, the role that was set and the application, and what was done to what", async () => {
  await operator.client.query(`SET application_name = 'on call'; SET ROLE ${app.of.role}`);
  await operator.client.query("SELECT hawser.pause_topic('mail')");
  await operator.client.query("RESET ROLE");
  expect(await acts()).toEqual([
    {
      ...{ id: expect.any(Number), at: expect.any(Date), login: operator.of.role, role: app.of.role },
      ...{ application: "on call", action: "pause", object: "mail", count: null, details: null },
    },
  ]);
});

describe("each act is recorded once, and none that changes nothing:", () => {
  const call = (text: string, ...values: unknown[]) => operator.client.query(text, values);

  it("settings of topics", async () => {
    for (let times = 0; times < 2; times += 1) await call("SELECT hawser.pause_topic('t')");
    for (let times = 0; times < 2; times += 1) await call("SELECT hawser.resume_topic('t')");
    for (let times = 0; times < 2; times += 1)
      await queueFunctions(operator.client).limitTopic({
        ...{ topic: "t", rate: "5/s", burst: null, running: 2, runningPerKey: null, keyHeader: null },
      });
    for (let times = 0; times < 2; times += 1) await call("SELECT hawser.keep_results('t', 5000)");
    expect(await done()).toEqual(["pause t -", "resume t -", "limit t -", "keep_results t -"]);
    expect((await acts({ action: "limit" }))[0]!.details).toEqual({ rate: "5/s", burst: 6, running: 2 });
  });

  it("schedules", async () => {
    for (let times = 0; times < 2; times += 1)
      await call("SELECT hawser.schedule('nightly', '0 3 * * *', 'reports', '{}'::text)");
    for (let times = 0; times < 2; times += 1) await call("SELECT hawser.unschedule('nightly')");
    expect(await done()).toEqual(["schedule nightly -", "unschedule nightly -"]);
    expect((await acts({ action: "schedule" }))[0]!.details).toEqual({
      ...{ destination: "reports", cron: "0 3 * * *", timezone: "UTC" },
    });
  });

  it("retries and discards, with ids and topics", async () => {
    const ids = await die("a", "a", "b");
    await call("SELECT hawser.retry_dead_letters($1)", ids.slice(0, 2));
    await call("SELECT hawser.retry_dead_letters($1)", ids.slice(0, 2));
    await call("SELECT hawser.discard_dead_letters($1)", ids);
    await call("SELECT hawser.discard_dead_letters($1)", ids);
    const more = await die("a", "b");
    await call("SELECT hawser.discard_dead_letters($1)", more);
    expect(await done()).toEqual(["retry a 2", "discard b 1", "discard - 2"]);
    const [both] = await acts({ object: "b" });
    expect(both!.details).toEqual({ ids: more, topics: ["a", "b"] });
    expect(await acts({ object: "b" })).toHaveLength(2);
  });

  it("what is refused is not recorded", async () => {
    const ids = await die("a");
    await client.query("UPDATE hawser_data.dead_letters SET role = 'nobody'");
    await call("SELECT hawser.retry_dead_letters($1)", ids);
    await call("SELECT hawser.discard_dead_letters($1)", ids);
    expect(await done()).toEqual([]);
  });

  it("mass cancels, and cancels of messages of another role", async () => {
    const ids = [await put(), await put(), await put()];
    await app.client.query("SELECT hawser.cancel($1)", [ids[0]]);
    expect(await done()).toEqual([]);
    await call("SELECT hawser.cancel($1)", ids[1]);
    await call("SELECT hawser.cancel($1)", ids[1]);
    await app.client.query("SELECT hawser.cancel_messages('peer', 't', NULL, NULL, 0, 10)");
    await app.client.query("SELECT hawser.cancel_messages('peer', 't', NULL, NULL, 0, 10)");
    const first = await put();
    const { rows } = await app.client.query("SELECT hawser.enqueue_after('t', 'x'::text, $1::bigint[]) AS id", [
      [first],
    ]);
    await call("SELECT hawser.cancel_flow($1)", first);
    await call("SELECT hawser.cancel_flow($1)", first);
    expect(await done()).toEqual(["cancel t 1", "cancel t 1", "cancel_flow - 2"]);
    const [flow, mass, single] = await acts();
    expect(flow!.details).toEqual({ of: Number(first), ids: [Number(first), Number(rows[0].id)] });
    expect(mass).toMatchObject({ login: app.of.role, details: { ids: [Number(ids[2])], kind: "peer" } });
    expect(single).toMatchObject({ login: operator.of.role, details: { ids: [Number(ids[1])] } });
  });
});

it("a transaction that is rolled back leaves nothing", async () => {
  await operator.client.query("BEGIN");
  await operator.client.query("SELECT hawser.pause_topic('t')");
  await operator.client.query("ROLLBACK");
  expect(await acts()).toEqual([]);
});

it("names at most a hundred ids, and ten topics and one", async () => {
  const ids = await die(...Array.from({ length: 200 }, (_, nth) => `topic ${100 + nth}`));
  await operator.client.query("SELECT hawser.discard_dead_letters($1)", [ids]);
  const [act] = await acts();
  expect(act).toMatchObject({ count: 200, object: null });
  expect(act!.details).toEqual({
    ids: ids.slice(0, 100),
    topics: Array.from({ length: 11 }, (_, nth) => `topic ${100 + nth}`),
  });
});

it("is filtered by login, action, object and time, page by page", async () => {
  for (const topic of ["a", "b", "c"]) await operator.client.query("SELECT hawser.pause_topic($1)", [topic]);
  await app.client.query("SELECT hawser.resume_topic('a')");
  const objects = async (filter: ActFilter) => (await acts(filter)).map(({ object }) => object);
  expect(await objects({ login: operator.of.role })).toEqual(["c", "b", "a"]);
  expect(await objects({ action: "resume" })).toEqual(["a"]);
  const [, newest] = await acts({ limit: 2 });
  expect(newest!.object).toBe("c");
  expect(await objects({ beforeId: newest!.id, limit: 1 })).toEqual(["b"]);
  expect(await objects({ since: new Date(Date.now() + 3_600_000) })).toEqual([]);
  expect(await objects({ object: "a", since: new Date(Date.now() - 3_600_000) })).toEqual(["a", "a"]);
  await expect(acts({ action: "polish" })).rejects.toMatchObject({ code: "invalid_argument" });
});

describe("rights", () => {
  it("a viewer sees names and counts, no ids and keys; nobody else than the owner writes", async () => {
    const { client: session } = await sessionIn("hawser_viewer");
    await put();
    await app.client.query("SELECT hawser.cancel_messages('peer', 't', NULL, NULL, 0, 10)");
    expect(await acts({}, app.of.url)).toMatchObject([{ action: "cancel", count: 1, details: { kind: "peer" } }]);
    const { rows } = await session.query("SELECT login, action, object, count, details FROM hawser.audit_log");
    expect(rows).toEqual([{ login: app.of.role, action: "cancel", object: "t", count: "1", details: null }]);
    for (const each of [session, app.client])
      for (const text of [
        "DELETE FROM hawser.audit_log",
        "UPDATE hawser.audit_log SET login = 'x'",
        "TRUNCATE hawser_data.audit_records",
        "SELECT hawser.record_act('pause', 'x', NULL, NULL)",
        "SELECT hawser.expire_audit()",
      ])
        await expect(each.query(text)).rejects.toMatchObject({ code: expect.stringMatching(/^(42501|55000)$/) });
    const { client: nats } = await sessionIn("hawser_nats");
    await expect(nats.query("SELECT FROM hawser.audit_log")).rejects.toMatchObject({ code: "42501" });
  });
});

describe("retention", () => {
  const expire = () => app.client.query("SELECT hawser.expire_dead_letters(1000)");

  it("records go after 90 days, or as many as the database says", async () => {
    await client.query(
      "INSERT INTO hawser_data.audit_records (action, object, at) SELECT 'pause', d::text, now() - make_interval(days => d) FROM unnest(ARRAY[91, 89, 11, 9]) AS d",
    );
    const days = async () => (await acts()).map(({ object }) => Number(object)).reverse();
    await expire();
    expect(await days()).toEqual([89, 11, 9]);
    await client.query("INSERT INTO hawser_peer_data.database_settings (audit_retention_days) VALUES (10)");
    await expire();
    expect(await days()).toEqual([9]);
    await client.query("DELETE FROM hawser_peer_data.database_settings");
  });

  it("a login with too many loses its own oldest, which is recorded, and pushes out nobody else's", async () => {
    const { auditRowsPerLogin: most } = storeConstants;
    await client.query(
      `INSERT INTO hawser_data.audit_records (action, object, login) SELECT 'pause', 'mine', 'victim'
        UNION ALL SELECT 'pause', 'n' || n, 'flood' FROM generate_series(1, $1) AS n`,
      [most + 3],
    );
    await expire();
    expect(await acts({ login: "victim" })).toHaveLength(1);
    expect(await acts({ object: "n3" })).toEqual([]);
    expect(await acts({ object: "n4" })).toHaveLength(1);
    expect(await acts({ action: "expire_audit" })).toMatchObject([
      { object: "flood", count: 3, details: { since: expect.any(String), until: expect.any(String) } },
    ]);
    await expire();
    expect(await acts({ action: "expire_audit" })).toHaveLength(1);
  });
});
