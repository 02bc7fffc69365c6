/** What a role has left to be done later is done only while it is that role, and may still enqueue. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { schedulerFunctions } from "../../generated/ts/rows/queue.js";
import { runDueSchedules } from "../../src/jobs-and-peers/queue/schedules/schedules.js";
import { login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { enqueuedMessages } from "./support/enqueued.js";

let database: TestDatabase;
let admin: pg.Client;
beforeAll(async () => {
  database = await testDatabase();
  admin = new pg.Client(database.url);
  await admin.connect();
});
beforeEach(() =>
  admin.query("TRUNCATE hawser_data.outbox, hawser_data.queue, hawser_data.schedules, hawser_data.dead_letters"),
);
afterAll(async () => {
  await admin?.end();
  await database?.drop();
});

const rights = "hawser_nats, hawser_peer";

/** Runs statements as a login. */
async function as(url: string, ...statements: readonly string[]): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** One message for NATS and one for peers, each due later and by a schedule. */
const leavesAll = [
  `SELECT hawser.enqueue('a.b', 'later', stream => true, headers => '{"A": "1"}', deliver_at => now() + interval '1 hour')`,
  "SELECT hawser.enqueue('topic', 'later', deliver_at => now() + interval '1 hour')",
  "SELECT hawser.schedule('n', '* * * * * *', 'a.b', 'again', true)",
  "SELECT hawser.schedule('p', '* * * * * *', 'topic', 'again')",
];

/** All of it is due, and relays do their work. @returns what is enqueued */
async function runAll(): Promise<string[]> {
  await admin.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
  await admin.query(
    "UPDATE hawser_data.schedules SET since = date_trunc('second', clock_timestamp()) - interval '1 s', next_at = '-infinity'",
  );
  await admin.query("SELECT hawser.bring_later('nats', l.due_from) FROM hawser.least_due('nats', NULL) AS l");
  await admin.query("SELECT hawser.bring_due(NULL, NULL)");
  const functions = schedulerFunctions({ query: async ({ text, values }) => admin.query(text, values as unknown[]) });
  await runDueSchedules(
    functions,
    () => false,
    () => 0,
  );
  const { rows } = await admin.query(
    `SELECT DISTINCT destination || ' ' || convert_from(payload, 'UTF8') AS what FROM ${enqueuedMessages} AS m ORDER BY 1`,
  );
  return rows.map(({ what }) => what);
}

const all = ["a.b again", "a.b later", "topic again", "topic later"];

describe("messages that are due later, and schedules", () => {
  it("go on while their role may enqueue, also by a function of a role that may", async () => {
    await using ann = await login(database.url, `IN ROLE ${rights}`);
    await as(ann.url, ...leavesAll);
    expect(await runAll()).toEqual(all);
    await admin.query("TRUNCATE hawser_data.outbox, hawser_data.queue, hawser_data.schedules");

    await using guest = await login(database.url);
    const body = leavesAll.map((each) => each.replace("SELECT", "PERFORM")).join(";");
    await admin.query(
      `CREATE FUNCTION leave_all() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN ${body}; END $$`,
    );
    await admin.query(`GRANT USAGE ON SCHEMA public TO ${guest.role}`);
    await as(guest.url, "SELECT leave_all()");
    expect(await runAll()).toEqual(all);
  });

  it.each([
    [
      "was taken the right from",
      "may not enqueue",
      async (role: string) => onServer(database.url, `REVOKE ${rights} FROM ${role}`),
    ],
    ["was dropped", "there is no role", async (role: string) => onServer(database.url, `DROP ROLE ${role}`)],
    [
      "has given its name to another one",
      "is another one now",
      async (role: string) =>
        onServer(database.url, `DROP ROLE ${role}`, `CREATE ROLE ${role} LOGIN PASSWORD 'test' IN ROLE ${rights}`),
    ],
  ])("of a role that %s are not enqueued", async (_, why, change) => {
    const ann = await login(database.url, `IN ROLE ${rights}`);
    await as(ann.url, ...leavesAll);
    await change(ann.role);
    expect(await runAll()).toEqual([]);
    const { rows: dead } = await admin.query(
      "SELECT origin, source, topic, convert_from(payload, 'UTF8') AS text, headers, error_code, error_message, role FROM hawser_data.dead_letters ORDER BY origin",
    );
    const same = {
      text: "later",
      error_code: "not_permitted",
      error_message: expect.stringContaining(why),
      role: ann.role,
    };
    expect(dead).toEqual([
      { ...same, origin: "outbox", source: "", topic: "a.b", headers: [["A", "1"]] },
      {
        ...same,
        origin: "queue",
        source: "",
        topic: "topic",
        headers: [["message-origin", `::${ann.role}`]],
      },
    ]);
    const { rows: status } = await admin.query(
      "SELECT name, problem, next_at FROM hawser.schedule_status ORDER BY name",
    );
    const problem = expect.stringContaining(why);
    expect(status).toEqual([
      { name: "n", problem, next_at: null },
      { name: "p", problem, next_at: null },
    ]);
    const retry =
      "SELECT r.refused FROM hawser_data.dead_letters AS d, hawser.retry_dead_letters(ARRAY[d.id]) AS r ORDER BY d.origin";
    expect((await admin.query(retry)).rows).toEqual([{ refused: "role" }, { refused: "role" }]);
    // What the new role says itself is its own.
    await onServer(
      database.url,
      `DROP ROLE IF EXISTS ${ann.role}`,
      `CREATE ROLE ${ann.role} LOGIN PASSWORD 'test' IN ROLE ${rights}`,
    );
    await as(ann.url, ...leavesAll.slice(2));
    expect(await runAll()).toEqual(["a.b again", "topic again"]);
    await onServer(database.url, `DROP OWNED BY ${ann.role}`, `DROP ROLE ${ann.role}`);
  });

  it("go on in another cluster, where a role of that name has another number", async () => {
    await using ann = await login(database.url, `IN ROLE ${rights}`);
    await as(ann.url, ...leavesAll);
    for (const table of ["queue", "schedules"])
      await admin.query(`UPDATE hawser_data.${table} SET role_mark = '17/42/may' WHERE role_mark IS NOT NULL`);
    expect(await runAll()).toEqual(all);
  });

  it("of a schedule go on when the right is given back", async () => {
    await using ann = await login(database.url, `IN ROLE ${rights}`);
    await as(ann.url, ...leavesAll.slice(2));
    await onServer(database.url, `REVOKE ${rights} FROM ${ann.role}`);
    expect(await runAll()).toEqual([]);
    await onServer(database.url, `GRANT ${rights} TO ${ann.role}`);
    expect(await runAll()).toEqual(["a.b again", "topic again"]);
    expect((await admin.query("SELECT problem FROM hawser.schedule_status")).rows).toEqual([
      { problem: null },
      { problem: null },
    ]);
  });
});
