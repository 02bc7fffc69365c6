/**
 * Schedules: what the functions refuse, what becomes of occurrences, that each is enqueued once, and what roles can do to each
 * other's.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { schedulerFunctions } from "../../generated/ts/rows/queue.js";
import { scheduleConstants } from "../../generated/ts/settings/queue.js";
import { pageSchedules, retryMs, runDueSchedules } from "../../src/jobs-and-peers/queue/schedules/schedules.js";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { slowIt } from "../support/slow-it.js";
import { enqueuedMessages } from "./support/enqueued.js";

let database: TestDatabase;
let client: pg.Client;
let ann: pg.Client;
let mal: pg.Client;
const logins: (Login & AsyncDisposable)[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  database = await testDatabase();
  client = await connected();
  for (const _ of ["ann", "mal"]) logins.push(await login(database.url, "IN ROLE hawser_nats, hawser_peer"));
  [ann, mal] = (await Promise.all(logins.map(({ url }) => connected(url)))) as [pg.Client, pg.Client];
});
beforeEach(async () => {
  await client.query("TRUNCATE hawser_data.outbox, hawser_data.queue, hawser_data.schedules");
});
afterAll(async () => {
  for (const one of clients) await one.end();
  for (const each of logins) await each[Symbol.asyncDispose]();
  await database?.drop();
});

async function connected(url = database.url): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: url, statement_timeout: 30_000 });
  await one.connect();
  clients.push(one);
  return one;
}

/** Does what processes with a peer do. No schedule takes any time. */
const run = (on = client): Promise<number> =>
  runDueSchedules(
    schedulerFunctions({ query: async ({ text, values }) => await on.query(text, values as unknown[]) }),
    () => false,
    () => 0,
  );

/** As if all schedules had last been run so long ago. */
const away = (seconds: number): Promise<unknown> =>
  client.query(
    "UPDATE hawser_data.schedules SET since = date_trunc('second', clock_timestamp()) - $1 * interval '1 s', next_at = '-infinity'",
    [seconds],
  );

interface Row {
  readonly name: string;
  readonly since: Date;
  readonly next_at: Date | number | null;
  readonly last_at: Date | null;
  readonly revision: string;
  readonly problem: string | null;
}

const row = async (name: string): Promise<Row> =>
  (await client.query("SELECT * FROM hawser_data.schedules WHERE name = $1", [name])).rows[0];

interface Enqueued {
  readonly destination: string;
  readonly text: string;
  readonly headers: unknown;
  readonly id: string;
  readonly time: string;
  readonly role: string;
}

/** Reads the enqueued messages in the order of their ids. */
async function enqueued(): Promise<Enqueued[]> {
  const { rows } = await client.query(
    `SELECT o.destination, convert_from(o.payload, 'UTF8') AS text, o.headers, o.role, h.id, h.time
       FROM ${enqueuedMessages} AS o CROSS JOIN LATERAL (
         SELECT o.message_id AS id, o.headers ->> 'schedule-time' AS time WHERE jsonb_typeof(o.headers) = 'object'
         UNION ALL
         SELECT max(p ->> 1) FILTER (WHERE p ->> 0 = 'message-id'), max(p ->> 1) FILTER (WHERE p ->> 0 = 'schedule-time')
           FROM jsonb_array_elements(CASE jsonb_typeof(o.headers) WHEN 'array' THEN o.headers END) AS p
         HAVING jsonb_typeof(o.headers) = 'array'
       ) AS h
      ORDER BY o.id`,
  );
  return rows;
}

const refusalOf = (text: string, values: unknown[] = [], on = client): Promise<unknown> =>
  on.query(text, values).then(
    () => "nothing is refused",
    (error: unknown) => error,
  );

describe("hawser.run_schedule", () => {
  /** As if the schedules were not due for a century. */
  const planned = () =>
    client.query("UPDATE hawser_data.schedules SET since = since - interval '1 min', next_at = '2100-01-01 00:00:00Z'");

  it("enqueues a message as the schedule does, and leaves its next occurrence", async () => {
    await client.query(
      `SELECT hawser.schedule('p', '0 0 1 1 *', 'topic', 'x'::text, headers => '{"A": "1"}', key => 'k')`,
    );
    await client.query("SELECT hawser.schedule('n', '0 0 1 1 *', 'a.b', 'x'::text, true)");
    await planned();
    const [p, n] = [
      (await client.query("SELECT hawser.run_schedule('p') AS id")).rows[0].id,
      (await client.query("SELECT hawser.run_schedule('n', of_role => 'postgres') AS id")).rows[0].id,
    ];
    expect((await client.query("SELECT id FROM hawser_data.queue")).rows).toEqual([{ id: p }]);
    expect((await client.query("SELECT id FROM hawser_data.outbox")).rows).toEqual([{ id: n }]);
    const [peer, nats] = await enqueued();
    expect(peer!.headers).toEqual([
      ["A", "1"],
      ["message-id", expect.stringMatching(/^p@/)],
      ["schedule-name", "p"],
      ["schedule-time", peer!.time],
    ]);
    expect(nats).toMatchObject({ destination: "a.b", role: "postgres" });
    const next = new Date("2100-01-01T00:00:00Z");
    expect(await row("p")).toMatchObject({ next_at: next, last_at: new Date(peer!.time), problem: null });
    const { rows } = await client.query(
      "SELECT object, details ->> 'id' AS id FROM hawser.audit_log WHERE action = 'run_schedule' ORDER BY 2::bigint",
    );
    expect(rows).toEqual([
      { object: "p", id: p },
      { object: "n", id: n },
    ]);
  });

  it("refuses one that is due, that has a problem, or that has run in this second, and finds none of other roles", async () => {
    const refusal = (on = client) => refusalOf("SELECT hawser.run_schedule('s')", [], on);
    await client.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'topic', 'x'::text)");
    expect(await refusal()).toMatchObject({ message: expect.stringContaining("it is due") });
    await planned();
    await client.query(
      "UPDATE hawser_data.schedules SET since = date_trunc('second', clock_timestamp()) + interval '1 min'",
    );
    expect(await refusal()).toMatchObject({ message: expect.stringContaining("has run in this second") });
    await client.query("UPDATE hawser_data.schedules SET problem = 'of a kind'");
    expect(await refusal()).toMatchObject({ message: expect.stringContaining("it does not run: of a kind") });
    expect((await ann.query("SELECT hawser.run_schedule('s') AS id")).rows).toEqual([{ id: null }]);
    expect(await enqueued()).toEqual([]);
  });

  it("runs the schedule of the caller, and asks whose it is if several other roles have one", async () => {
    await ann.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'anns', 'x'::text)");
    await mal.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'mals', 'x'::text)");
    await planned();
    expect(await refusalOf("SELECT hawser.run_schedule('s')")).toMatchObject({
      message: expect.stringContaining("several roles"),
      hint: expect.stringContaining("of_role"),
    });
    await client.query("SELECT hawser.run_schedule('s', $1)", [logins[1]!.role]);
    await ann.query("SELECT hawser.run_schedule('s')");
    expect((await enqueued()).map(({ destination }) => destination)).toEqual(["mals", "anns"]);
  });

  it("waits for no transaction of another role that has run its own one of this name", async () => {
    await client.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'own', 'x'::text)");
    await mal.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'mals', 'x'::text)");
    await planned();
    await mal.query("BEGIN");
    try {
      await mal.query("SELECT hawser.run_schedule('s')");
      expect(await refusalOf("SELECT hawser.run_schedule('s', $1)", [logins[1]!.role])).toMatchObject({
        message: expect.stringContaining("a transaction that has not ended"),
        hint: "Try again.",
      });
      await client.query("SELECT hawser.run_schedule('s')");
    } finally {
      await mal.query("ROLLBACK");
    }
    expect((await enqueued()).map(({ destination }) => destination)).toEqual(["own"]);
  });

  it("raises what keeps the message from being enqueued", async () => {
    await ann.query("SELECT hawser.schedule('s', '0 0 1 1 *', 'anns', 'x'::text)");
    await planned();
    await client.query("UPDATE hawser_data.schedules SET role_mark = regexp_replace(role_mark, '/([0-9]+)', '/1\\1')");
    expect(await refusalOf("SELECT hawser.run_schedule('s')", [], ann)).toMatchObject({
      message: expect.stringMatching(/was not run: the role .* is another one now/),
    });
    expect(await row("s")).toMatchObject({ problem: null });
  });
});

describe("hawser.schedule", () => {
  it.each([
    ["text", "'1'", "1"],
    ["json", `'{"a":1}'::json`, '{"a":1}'],
    ["jsonb", `'{"a":1}'::jsonb`, '{"a": 1}'],
    ["bytea", "'1'::bytea", "1"],
  ])("takes a payload of type %s, for peers and for NATS", async (_, payload, text) => {
    await client.query(`SELECT hawser.schedule('p', '* * * * * *', 'topic', ${payload}, missed => 'all',
      headers => '{"A": ["1", "2"]}', key => 'k', to_all => true)`);
    await client.query(`SELECT hawser.schedule('n', '* * * * * *', 'a.b', ${payload}, true, missed => 'all',
      headers => '{"A": ["1", "2"]}', key => 'k', domain => 'hub')`);
    await away(1);
    await run();
    const messages = await enqueued();
    const peer = messages.find(({ destination }) => destination === "topic")!;
    const nats = messages.find(({ destination }) => destination === "a.b")!;
    expect(peer).toMatchObject({
      text,
      role: "postgres",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    });
    expect(peer.headers).toEqual([
      ["A", "1"],
      ["A", "2"],
      ["message-id", peer.id],
      ["schedule-name", "p"],
      ["schedule-time", peer.time],
    ]);
    expect(nats).toMatchObject({ text, role: "postgres" });
    expect(nats.headers).toEqual({ A: ["1", "2"], "schedule-name": "n", "schedule-time": nats.time });
    expect(nats.id).toMatch(/^n@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.[0-9a-f]{32}$/);
    const { rows } = await client.query(
      `SELECT DISTINCT kind, destination, key, to_stream, domain, to_all FROM ${enqueuedMessages} AS m ORDER BY 1`,
    );
    expect(rows).toEqual([
      { kind: "nats", destination: "a.b", key: "k", to_stream: true, domain: "hub", to_all: false },
      { kind: "peer", destination: "topic", key: "k", to_stream: false, domain: null, to_all: true },
    ]);
  });

  it.each([
    ["('a b', '* * * * *', 't', 'x')", "22023", "the argument name", "white space"],
    ["('a', '* * * *', 't', 'x')", "22023", '"* * * *"', "five fields"],
    ["('a', '@daily', 't', 'x')", "22023", '"@daily"', "five fields"],
    ["('a', '0 0 * * * 2030 1', 't', 'x')", "22023", "2030", "five fields"],
    ["('a', '* * * * *', 't', 'x', 'Europe/Berln')", "22023", '"Europe/Berln"', "pg_timezone_names"],
    ["('a', '* * * * *', 't', 'x', '+02:00')", "22023", '"+02:00"', "name of a time zone"],
    ["('a', '* * * * *', 't', 'x', missed => 'some')", "22023", '"some"', "one"],
    ["('a', '* * * * *', 't', '')", "22023", "0 bytes", ""],
    ["('a', '* * * * *', '__#x', 'x')", "", "reserved", ""],
    ["('a', '* * * * *', 'a:b', 'x')", "22023", "a:b", ""],
    ["('a', '* * * * *', 't', repeat('x', 1048577))", "22023", "1048577", ""],
    [`('a', '* * * * *', 't', 'x', headers => '{"Schedule-Time": "1"}')`, "22023", "Schedule-Time", "set by Hawser"],
    [`('a', '* * * * *', 't', 'x', headers => '{"message-id": "1"}')`, "22023", "message-id", "set by Hawser"],
    [`('a', '* * * * *', 't', 'x', false, headers => '{"schedule-name": "1"}')`, "22023", "schedule-name", ""],
    [`('a', '* * * * *', 't', 'x', true, headers => '{"Nats-Msg-Id": "1"}')`, "22023", "Nats-Msg-Id", ""],
    ["('a', '* * * * *', 'a.*', 'x', true)", "22023", "a.*", ""],
    ["('a', '* * * * *', 'a', 'x', false, domain => 'hub')", "22023", '"hub"', "stream"],
    ["(NULL, '* * * * *', 't', 'x')", "22004", "name is NULL", ""],
    ["('a', '* * * * *', 't', NULL::text)", "22004", "payload is NULL", ""],
  ])("refuses %s", async (given, code, value, rule) => {
    const error = await refusalOf(`SELECT hawser.schedule${given}`);
    expect(error).toMatchObject({
      ...(code !== "" && { code }),
      message: expect.stringContaining(value),
      hint: expect.stringMatching(/\w/),
    });
    expect((error as Error).message).toContain(rule);
  });

  it("refuses schedules beyond the limit of a role, and no other role's", async () => {
    await client.query(
      `INSERT INTO hawser_data.schedules (role, name, cron, timezone, missed, kind, destination, payload, to_stream, to_all, since, next_at)
       SELECT $1, 's' || n, '0 0 1 1 *', 'UTC', 'one', 'peer', 't', 'x', false, false, now(), '2100-01-01'
         FROM generate_series(1, $2) AS n`,
      [logins[0]!.role, scheduleConstants.maxSchedules],
    );
    const text = "SELECT hawser.schedule('more', '* * * * *', 't', 'x')";
    expect(await refusalOf(text, [], ann)).toMatchObject({
      code: "22023",
      message: expect.stringContaining("10000 schedules"),
      hint: expect.stringContaining("hawser.unschedule"),
    });
    expect(await refusalOf(text, [], mal)).toBe("nothing is refused");
    expect(await refusalOf("SELECT hawser.schedule('s1', '* * * * *', 't', 'x')", [], ann)).toBe("nothing is refused");
  });

  it("does not change an identical schedule, and continues with another payload", async () => {
    const say = "SELECT hawser.schedule('s', '0 0 1 1 *', 't', $1::text, 'Europe/Berlin', headers => '{\"a\": \"b\"}')";
    await client.query(say, ["x"]);
    await run();
    const before = await row("s");
    expect(before.next_at).toBeInstanceOf(Date);
    await client.query(say, ["x"]);
    expect(await row("s")).toEqual(before);
    await client.query(say, ["y"]);
    const { revision, ...changed } = await row("s");
    expect(revision).not.toBe(before.revision);
    expect(changed).toMatchObject({ since: before.since, next_at: before.next_at });
  });

  it("gives its messages a priority, which is no reason to start again, and which one with a key has not", async () => {
    const schedule = (more: string) => client.query(`SELECT hawser.schedule('p', '* * * * * *', 'topic', 'x'${more})`);
    await schedule(", priority => 1");
    const before = await row("p");
    await schedule(", priority => -3");
    expect(await row("p")).toMatchObject({ since: before.since, next_at: before.next_at, priority: -3 });
    await away(1);
    await run();
    const { rows } = await client.query("SELECT recipient, -(rank >> 46) AS priority FROM hawser_data.queue");
    expect(rows[0]).toEqual({ recipient: "!", priority: "-3" });
    await expect(schedule(", priority => 1, key => 'k'")).rejects.toThrow("messages with a key have none");
  });

  it("starts again with another expression or time zone", async () => {
    for (const [cron, timezone] of [
      ["0 0 2 1 *", "UTC"],
      ["0 0 1 1 *", "Asia/Tokyo"],
    ]) {
      await client.query("SELECT hawser.schedule('s', '0 0 1 1 *', 't', 'x', missed => 'all')");
      await away(86_400 * 800);
      const { rows } = await client.query("SELECT date_trunc('second', now()) AS before");
      await client.query("SELECT hawser.schedule('s', $1, 't', 'x', $2, missed => 'all')", [cron, timezone]);
      const { since, next_at } = await row("s");
      expect(since.getTime()).toBeGreaterThanOrEqual(rows[0].before.getTime());
      expect(next_at).toBe(Number.NEGATIVE_INFINITY);
      await run();
      expect(await enqueued()).toEqual([]);
    }
  });

  it("is part of its transaction", async () => {
    await client.query("BEGIN; SELECT hawser.schedule('s', '* * * * *', 't', 'x'); ROLLBACK");
    expect(await row("s")).toBeUndefined();
  });

  it("notifies only of changes", async () => {
    const listener = await connected();
    const seen: string[] = [];
    listener.on("notification", ({ channel, payload }) => seen.push(`${channel} ${payload}`));
    await listener.query("LISTEN hawser_schedules; LISTEN done");
    const say = "SELECT hawser.schedule('s', '0 0 1 1 *', 't', 'x')";
    await client.query(say);
    await client.query(say);
    await client.query("NOTIFY done");
    // The answer comes behind the notifications that were sent before.
    await listener.query("SELECT 1");
    expect(seen).toEqual(["hawser_schedules ", "done "]);
  });
});

describe("hawser.unschedule", () => {
  it("ends schedules of the caller and of roles that it is a member of, and no others", async () => {
    const ended = async (on: pg.Client): Promise<boolean> =>
      (await on.query("SELECT hawser.unschedule('s') AS ended")).rows[0].ended;
    const left = async (): Promise<string[]> =>
      (await client.query("SELECT role FROM hawser_data.schedules ORDER BY role")).rows.map(({ role }) => role);
    const [annRole, malRole] = logins.map(({ role }) => role) as [string, string];
    for (const on of [client, ann, mal]) await on.query("SELECT hawser.schedule('s', '* * * * *', 't', 'x')");
    expect([await ended(mal), await ended(mal)]).toEqual([true, false]);
    expect(await left()).toEqual(["postgres", annRole].sort());
    await client.query(`GRANT ${annRole} TO ${malRole}`);
    expect([await ended(mal), await ended(mal)]).toEqual([true, false]);
    await client.query(`REVOKE ${annRole} FROM ${malRole}`);
    // The owner of the schema acts for all, and first for itself.
    await ann.query("SELECT hawser.schedule('s', '* * * * *', 't', 'x')");
    expect(await ended(client)).toBe(true);
    expect(await left()).toEqual([annRole]);
    expect([await ended(client), await ended(client)]).toEqual([true, false]);
    expect(await refusalOf("SELECT hawser.unschedule(NULL)")).toMatchObject({ code: "22004" });
  });
});

slowIt("waits while all due schedules are locked, however many", async () => {
  const many = pageSchedules + 1;
  const make = (payload: string) =>
    ann.query(
      "SELECT hawser.schedule('s' || i, '* * * * *', 'a.b', $1, false) FROM generate_series(1, $2::integer) AS i",
      [payload, many],
    );
  await make("x");
  await ann.query("BEGIN");
  await make("y");
  expect(await run()).toBeGreaterThanOrEqual(retryMs);
  await ann.query("COMMIT");
  expect(await run()).toBe(0);
});

it("refuses times that never occur", async () => {
  await ann.query("SELECT hawser.schedule('far', '* * * * *', 't', 'x')");
  const { since, revision } = await row("far");
  const role = (await client.query("SELECT role FROM hawser_data.schedules")).rows[0].role;
  const runs = [{ role, name: "far", revision, since, upto: since, next_at: "infinity", times: [] }];
  await expect(mal.query("SELECT hawser.run_schedules($1)", [JSON.stringify(runs)])).rejects.toMatchObject({
    code: "22023",
  });
});

describe("hawser.schedule_status", () => {
  it("shows the last and the next run of a schedule, and why one does not run", async () => {
    await ann.query("SELECT hawser.schedule('good', '* * * * * *', 't', 'secret')");
    await ann.query("SELECT hawser.schedule('wrong', '61 * * * *', 't', 'secret')");
    await ann.query("SELECT hawser.schedule('never', '0 0 30 2 *', 'a.b', 'secret', true)");
    await ann.query("SELECT hawser.schedule('nowhere', '* * * * *', 't', 'secret', 'CEST')");
    const status = async (): Promise<Record<string, Record<string, unknown>>> => {
      const { rows } = await mal.query("SELECT * FROM hawser.schedule_status");
      return Object.fromEntries(rows.map(({ name, ...rest }) => [name, rest]));
    };
    expect((await status())["good"]).toMatchObject({ next_at: null, last_at: null, problem: null });
    await away(1);
    await run();
    const { good, wrong, never, nowhere } = await status();
    const same = { role: logins[0]!.role, timezone: "UTC", missed: "one", kind: "peer", destination: "t" };
    expect(good).toEqual({
      ...same,
      cron: "* * * * * *",
      next_at: expect.any(Date),
      last_at: expect.any(Date),
      problem: null,
      priority: 0,
    });
    expect(wrong).toMatchObject({ next_at: null, problem: expect.stringContaining("61") });
    expect(never).toMatchObject({
      kind: "nats",
      destination: "a.b",
      problem: expect.stringContaining("has no further occurrence"),
    });
    expect(nowhere).toMatchObject({ next_at: null, problem: expect.stringContaining("CEST") });
  });

  it("shows a schedule that a relay has called one without occurrences, until another relay plans it again", async () => {
    await ann.query("SELECT hawser.schedule('good', '* * * * * *', 't', 'x')");
    const { since, revision } = await row("good");
    const lie = { name: "good", role: logins[0]!.role, since, upto: since, next_at: null, times: [], problem: "never" };
    await mal.query("SELECT hawser.run_schedules($1)", [JSON.stringify([{ ...lie, revision }])]);
    expect((await row("good")).problem).toBe(
      'the cron expression "* * * * * *" has no further occurrence. Call hawser.schedule again, with another one.',
    );
    await away(1);
    await run();
    expect(await row("good")).toMatchObject({ problem: null, last_at: expect.any(Date) });
  });

  it("retries a schedule with a problem when it is created again", async () => {
    await client.query("SELECT hawser.schedule('s', '61 * * * *', 't', 'x')");
    await run();
    await client.query("SELECT hawser.schedule('s', '61 * * * *', 't', 'x')");
    expect(await row("s")).toMatchObject({ problem: null, next_at: Number.NEGATIVE_INFINITY });
    await client.query("SELECT hawser.schedule('s', '1 * * * *', 't', 'x')");
    await run();
    expect(await row("s")).toMatchObject({ problem: null, next_at: expect.any(Date) });
  });
});

describe("occurrences", () => {
  it("are enqueued by the policy when they were missed, and always when they are on time", async () => {
    for (const missed of ["one", "all", "none"])
      await client.query("SELECT hawser.schedule($1::text, '* * * * * *', $1::text, 'x', missed => $1::text)", [
        missed,
      ]);
    await away(60);
    while ((await run()) === 0);
    const times = new Map<string, number[]>();
    for (const { destination, time } of await enqueued())
      times.set(destination, [...(times.get(destination) ?? []), Date.parse(time)]);
    const all = times.get("all")!;
    expect(all.length).toBeGreaterThanOrEqual(60);
    expect(all.map((time) => time - all[0]!)).toEqual(all.map((_, nth) => nth * 1_000));
    const none = times.get("none")!;
    expect(none.length).toBeGreaterThanOrEqual(10);
    expect(none.length).toBeLessThan(20);
    expect(times.get("one")).toEqual([none[0]! - 1_000, ...none]);
    expect((await row("all")).last_at?.getTime()).toBe(all.at(-1));
  });

  it("are enqueued in pages after many were missed, alternating between roles", async () => {
    await ann.query("SELECT hawser.schedule('many', '* * * * * *', 'many', 'x', missed => 'all')");
    await away(3_600);
    await mal.query("SELECT hawser.schedule('few', '* * * * * *', 'few', 'x', missed => 'all')");
    await client.query("UPDATE hawser_data.schedules SET since = since - interval '1 s' WHERE name = 'few'");
    expect(await run()).toBe(0);
    const counts = async (): Promise<unknown> =>
      (
        await client.query(
          `SELECT count(*) FILTER (WHERE destination = 'many')::integer AS many, count(*) FILTER (WHERE destination = 'few') > 0 AS few FROM ${enqueuedMessages} AS m`,
        )
      ).rows[0];
    expect(await counts()).toEqual({ many: scheduleConstants.pageOccurrences, few: true });
    expect(await run()).toBe(0);
    expect(await counts()).toEqual({ many: 2 * scheduleConstants.pageOccurrences, few: true });
  });

  it("of other roles come next, however many schedules a role has and whatever they cost", async () => {
    await mal.query("SELECT hawser.schedule('m0', '0 0 1 1 *', 'a.b', 'x', true)");
    await client.query(
      `INSERT INTO hawser_data.schedules (role, name, cron, timezone, missed, kind, destination, payload, to_stream, to_all, since, next_at)
       SELECT role, 'm' || i, i % 60 || ' 0 1 1 *', timezone, missed, kind, destination, payload, to_stream, to_all, since, next_at
         FROM hawser_data.schedules, generate_series(1, 2999) AS i`,
    );
    const order: string[] = [];
    const query = async ({ name, text, values }: { name?: string; text: string; values: unknown[] }) => {
      const result = await client.query(text, values);
      if (name !== "hawser.run_schedules") return result;
      if (order.length === 0) {
        await ann.query("SELECT hawser.schedule('one', '* * * * * *', 't', 'x')");
        await client.query("UPDATE hawser_data.schedules SET since = since - interval '1 s' WHERE name = 'one'");
      }
      order.push(...JSON.parse(String(values[0])).map((run: { readonly name: string }) => run.name));
      return result;
    };
    // Each schedule takes 10 ms.
    let ms = 0;
    const now = (): number => (ms += 10);
    while (!order.includes("one"))
      expect(await runDueSchedules(schedulerFunctions({ query }), () => false, now)).toBe(0);
    expect(order.indexOf("one")).toBeLessThan(20);
    expect(new Set((await enqueued()).map(({ destination }) => destination))).toEqual(new Set(["t"]));
  });

  it("have the same ids when they are enqueued again, as after a failover, and unpredictable ids", async () => {
    await client.query("SELECT hawser.schedule('s', '* * * * * *', 'a', 'x', true, missed => 'all')");
    await away(5);
    await run();
    const first = await enqueued();
    await client.query("TRUNCATE hawser_data.outbox");
    await away(5);
    await run();
    const ids = new Set((await enqueued()).map(({ id }) => id));
    expect(first.slice(-3).every(({ id }) => ids.has(id))).toBe(true);
    await mal.query("SELECT hawser.schedule('s', '* * * * * *', 'a', 'x', true, missed => 'all')");
    await away(5);
    await client.query("TRUNCATE hawser_data.outbox");
    await run();
    const all = await enqueued();
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    expect(new Set(all.map(({ time }) => time)).size).toBeLessThan(all.length);
  });

  it("of a schedule that is being changed are left for later, and block no others", async () => {
    await client.query("SELECT hawser.schedule('open', '* * * * * *', 'open', 'x', missed => 'all')");
    await client.query("SELECT hawser.schedule('other', '* * * * * *', 'other', 'x', missed => 'all')");
    await away(3);
    await ann.query("BEGIN");
    const other = await connected();
    await other.query("BEGIN; SELECT hawser.schedule('open', '* * * * * *', 'open', 'y', missed => 'all')");
    expect(await run()).toBeLessThanOrEqual(retryMs);
    expect(new Set((await enqueued()).map(({ destination }) => destination))).toEqual(new Set(["other"]));
    await other.query("COMMIT");
    await ann.query("COMMIT");
    await run();
    const opened = (await enqueued()).filter(({ destination }) => destination === "open");
    expect(opened.length).toBeGreaterThanOrEqual(3);
    expect(new Set(opened.map(({ text }) => text))).toEqual(new Set(["y"]));
  });

  it("are durable at their commit, whatever the database's default is", async () => {
    await client.query("SELECT hawser.schedule('s', '* * * * * *', 't', 'x')");
    await away(1);
    const other = await connected();
    await other.query("BEGIN; SET LOCAL synchronous_commit = off");
    await run(other);
    const { rows } = await other.query("SHOW synchronous_commit");
    expect(rows).toEqual([{ synchronous_commit: "on" }]);
    await other.query("COMMIT");
  });

  it("wake the sleeping relay", async () => {
    const listener = await connected();
    const seen: string[] = [];
    listener.on("notification", ({ channel }) => seen.push(channel));
    await listener.query("LISTEN hawser_outbox");
    await client.query("SELECT setval('hawser_data.outbox_state_asleep_seq', 2)");
    await client.query("SELECT hawser.schedule('s', '* * * * * *', 'a', 'x', true)");
    await away(1);
    await run();
    await listener.query("SELECT 1");
    expect(seen).toEqual(["hawser_outbox"]);
  });

  slowIt(
    "are each enqueued once by ten concurrent runners",
    async () => {
      await client.query(
        `SELECT hawser.schedule('s' || n, '* * * * * *', 's' || n, 'x', missed => 'all'), hawser.schedule('n' || n, '* * * * * *', 'n' || n, 'x', true, missed => 'all')
         FROM generate_series(1, 5) AS n`,
      );
      await away(200);
      const runners = await Promise.all(Array.from({ length: 10 }, () => connected()));
      const { rows: begun } = await client.query("SELECT clock_timestamp() AS now");
      // All go on until nothing is left that was missed by now.
      await Promise.all(
        runners.map(async (runner) => {
          for (let isBehind = true; isBehind; ) {
            await run(runner);
            const { rows } = await runner.query(
              "SELECT count(*)::integer AS behind FROM hawser_data.schedules WHERE since < $1::timestamptz - interval '1 s'",
              [begun[0].now],
            );
            isBehind = rows[0].behind > 0;
          }
        }),
      );
      const { rows } = await client.query(
        `WITH o AS (
         SELECT o.destination, coalesce(o.headers ->> 'schedule-time', (
           SELECT p ->> 1 FROM jsonb_array_elements(CASE jsonb_typeof(o.headers) WHEN 'array' THEN o.headers END) AS p WHERE p ->> 0 = 'schedule-time'
         ))::timestamptz AS time FROM ${enqueuedMessages} AS o
       ), s AS (
         SELECT destination, count(*) AS count, count(DISTINCT time) AS times, max(time) - min(time) AS span FROM o GROUP BY destination
       )
       SELECT count(*)::integer AS schedules, bool_and(count = times) AS once, bool_and(count = extract(epoch FROM span) + 1) AS gapless,
              min(count) >= 199 AS all FROM s`,
      );
      expect(rows).toEqual([{ schedules: 10, once: true, gapless: true, all: true }]);
    },
    60_000,
  );
});

describe("a member of hawser_peer that runs schedules", () => {
  const runSql = "SELECT ran, enqueued FROM hawser.run_schedules(jsonb_build_array($1::jsonb))";

  it("sees no payloads, and can write no row", async () => {
    await ann.query("SELECT hawser.schedule('s', '* * * * *', 't', 'secret')");
    expect(JSON.stringify((await mal.query("SELECT * FROM hawser.due_schedules(10)")).rows)).not.toContain("secret");
    for (const text of [
      "SELECT FROM hawser_data.schedules",
      "UPDATE hawser_data.schedules SET payload = 'x'",
      "DELETE FROM hawser_data.schedules",
      "SELECT hawser.write_schedule('peer', 'a', '* * * * *', NULL, NULL, 't', 'x', NULL, NULL, false, NULL, NULL, 0::smallint)",
    ])
      expect(await refusalOf(text, [], mal), text).toMatchObject({ code: "42501" });
  });

  it("can submit only past times after the last occurrence, in order", async () => {
    await ann.query("SELECT hawser.schedule('s', '* * * * *', 't', 'x')");
    await away(60);
    const { since, revision } = await row("s");
    const at = (seconds: number): string => new Date(since.getTime() + seconds * 1_000).toISOString();
    const good = {
      role: logins[0]!.role,
      name: "s",
      revision,
      since,
      upto: at(20),
      next_at: at(30),
      times: [at(10), at(20)],
    };
    for (const bad of [
      { times: [at(0)] },
      { times: [at(-10)] },
      { times: [at(20), at(10)] },
      { times: [at(10), at(10)] },
      { times: [at(10.5)] },
      { times: [null] },
      { times: [at(3_600)], upto: at(3_600), next_at: at(3_700) },
      { upto: at(3_600), next_at: at(3_700) },
      { upto: at(15) },
      { upto: at(-1), times: [] },
      { upto: null },
      { next_at: at(20) },
      { next_at: null },
      { next_at: at(30), problem: "never" },
      { next_at: null, problem: "a text of the caller" },
      { times: Array.from({ length: scheduleConstants.pageOccurrences + 1 }, () => at(10)) },
      { since: null },
    ])
      expect(await refusalOf(runSql, [JSON.stringify({ ...good, ...bad })], mal), JSON.stringify(bad)).toMatchObject({
        code: "22023",
      });
    // Of what is not there, or has changed, nothing happens.
    for (const other of [{ name: "other" }, { role: logins[1]!.role }, { revision: "0" }, { since: at(1) }])
      expect((await mal.query(runSql, [JSON.stringify({ ...good, ...other })])).rows).toEqual([
        { ran: 0, enqueued: 0 },
      ]);
    expect((await mal.query(runSql, [JSON.stringify(good)])).rows).toEqual([{ ran: 1, enqueued: 2 }]);
    expect((await mal.query(runSql, [JSON.stringify(good)])).rows).toEqual([{ ran: 0, enqueued: 0 }]);
    const messages = await enqueued();
    expect(messages.map(({ role, time }) => [role, Date.parse(time)])).toEqual([
      [logins[0]!.role, Date.parse(at(10))],
      [logins[0]!.role, Date.parse(at(20))],
    ]);
  });
});

describe("a schedule whose message cannot be enqueued", () => {
  it("keeps no other one from it, and says why", async () => {
    await client.query("ALTER TABLE hawser_data.queue ADD CONSTRAINT is_good CHECK (payload <> 'bad')");
    try {
      for (const [on, name, payload] of [
        [mal, "bad", "bad"],
        [mal, "own", "good"],
        [ann, "other", "good"],
      ] as const)
        await on.query("SELECT hawser.schedule($1, '* * * * * *', 't', $2)", [name, payload]);
      await away(2);
      await run();
      const { rows } = await client.query(
        `SELECT s.name, coalesce(s.problem, '') AS problem, s.next_at < now() + interval '1 min' AS is_soon,
                EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.role = s.role AND q.headers::text LIKE '%"' || s.name || '"%') AS has_run
           FROM hawser_data.schedules AS s ORDER BY 1`,
      );
      expect(rows).toEqual([
        {
          name: "bad",
          problem: expect.stringMatching(/cannot be enqueued: .*is_good/),
          is_soon: false,
          has_run: false,
        },
        { name: "other", problem: "", is_soon: true, has_run: true },
        { name: "own", problem: "", is_soon: true, has_run: true },
      ]);
    } finally {
      await client.query("ALTER TABLE hawser_data.queue DROP CONSTRAINT is_good");
    }
  });
});
