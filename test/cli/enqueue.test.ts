/** `hawser enqueue` and `hawser schedules add`: messages in a transaction of their own. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
beforeEach(() => client.query("TRUNCATE hawser_data.queue, hawser_data.schedules"));
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const run = (...args: string[]) => hawser(args, { databaseUrl: database.url });
const rows = async (sql: string) => (await client.query(sql)).rows;

describe("hawser enqueue", () => {
  it("writes the message, from an argument or the standard input, and prints its id", async () => {
    const first = await run("enqueue", "orders", '{"id": 17}', "--key", "k", "--header", "a=b", "--message-id", "o-17");
    const [row] = await rows(
      "SELECT id, topic, key, headers, convert_from(payload, 'UTF8') AS text FROM hawser_data.queue",
    );
    expect(first).toMatchObject({ status: 0, stdout: `Enqueued message ${row.id}.\n` });
    expect(row).toMatchObject({ topic: "orders", key: "k", text: '{"id": 17}' });
    expect(row.headers).toEqual(
      expect.arrayContaining([
        ["message-id", "o-17"],
        ["a", "b"],
      ]),
    );
    const second = await hawser(["enqueue", "orders", "--base64", "--all", "--json"], {
      databaseUrl: database.url,
      input: "cm9wZQ==",
    });
    const { id } = jsonLines(second.stdout)[0] as { id: string };
    expect(
      await rows(`SELECT to_all, convert_from(payload, 'UTF8') AS text FROM hawser_data.queue WHERE id = ${id}`),
    ).toEqual([{ to_all: true, text: "rope" }]);
  });

  it("gives it a priority, a time to live and a delay, and its id takes it back", async () => {
    const given = ["--priority", "-5", "--ttl", "1h", "--json"];
    const { id: low } = jsonLines((await run("enqueue", "orders", "x", ...given)).stdout)[0] as { id: string };
    const { id: high } = jsonLines(
      (await run("enqueue", "orders", "x", "--priority", "32767", "--json")).stdout,
    )[0] as {
      id: string;
    };
    await run("enqueue", "orders", "x", "--delay", "2h", "--priority", "7");
    expect(
      await rows("SELECT id, headers -> 0 ->> 0 AS header FROM hawser_data.queue WHERE later IS NULL ORDER BY rank"),
    ).toEqual([
      { id: high, header: null },
      { id: low, header: "message-expires" },
    ]);
    const [later] = await rows(
      "SELECT -(rank >> 46)::int AS priority, round(extract(epoch FROM due_at - now()) / 3600)::int AS hours FROM hawser_data.queue WHERE later IS NOT NULL",
    );
    expect(later).toEqual({ priority: 7, hours: 2 });
    expect((await run("jobs")).stdout).toMatch(/PRIORITY.*\n(.*\n)*.* 7 /);
    expect(await run("jobs", "cancel", "--", high, low)).toMatchObject({ status: 0 });
    expect(await rows("SELECT FROM hawser_data.queue WHERE later IS NULL")).toEqual([]);
  });

  it("lets it come after messages that wait, which the list shows", async () => {
    const idOf = async (...args: string[]) =>
      (jsonLines((await run("enqueue", "orders", ...args, "--json")).stdout)[0] as { id: string }).id;
    const ids = [await idOf("x", "--priority", "1"), await idOf("y", "--delay", "1h")];
    const behind = await idOf("z", `--after=${ids[0]}`, `--after=${ids[1]}`, "--after-dead", "cancel");
    expect((await run("jobs", "list")).stdout).toMatch(new RegExp(`HELD FOR.*\\n.* ${ids[0]}, ${ids[1]}\\n`));
    expect(jsonLines((await run("jobs", "list", "--json")).stdout)).toMatchObject([
      { id: behind, state: "held", waitsFor: ids.map((id) => ({ id, state: "waiting" })) },
      { id: ids[1], state: "later" },
      { id: ids[0], state: "waiting", priority: 1 },
    ]);
    await run("jobs", "cancel", "--", ids[0]!);
    expect((await run("enqueue", "orders", "z", "--after", "17")).stderr).toContain("the message 17 does not wait");
    expect((await run("enqueue", "orders", "z", "--after", "1x")).status).toBe(64);
    expect((await run("enqueue", "orders", "z", "--after-dead", "hold")).status).toBe(64);
  });

  it("keeps what becomes of it, for a time", async () => {
    await run("enqueue", "orders", "x", "--keep", "1h");
    await run("enqueue", "orders", "x", "--keep", "7d", "--delay", "1h");
    expect(await rows("SELECT keep_ms FROM hawser_data.queue ORDER BY id")).toEqual([
      { keep_ms: 3_600_000 },
      { keep_ms: 604_800_000 },
    ]);
  });

  it("is for a login that may only call the function", async () => {
    await using caller = await login(database.url);
    const refused = await hawser(["enqueue", "orders", "x"], { databaseUrl: caller.url });
    expect(refused.status).not.toBe(0);
    await onServer(
      database.url,
      `GRANT USAGE ON SCHEMA hawser TO ${caller.role};
       GRANT EXECUTE ON FUNCTION hawser.enqueue(text, bytea, jsonb, text, text, timestamptz, boolean, integer, integer) TO ${caller.role}`,
    );
    expect(await hawser(["enqueue", "orders", "x"], { databaseUrl: caller.url })).toMatchObject({ status: 0 });
    expect(await rows("SELECT role FROM hawser_data.queue")).toEqual([{ role: caller.role }]);
  });

  it.each([
    [["--core", "--stream"], "--core and --stream"],
    [["--domain", "hub"], "--domain goes with --stream"],
    [["--priority", "32768"], '--priority "32768" is not a whole number from -32768 to 32767'],
    [["--priority", "1", "--core"], "priority 1: applies to topics only"],
    [["--priority", "1", "--key", "k"], "priority 1: a message with a key"],
    [["--delay", "10"], '--delay "10" is not a duration'],
    [["--keep", "8d"], '--keep "8d" is not a duration from 1s to 7d'],
    [["--keep", "1h", "--all"], "keepMs 3600000: does not go with all"],
    [["--header", "x"], "NAME=VALUE"],
  ])("refuses %j", async (args, part) => {
    const { status, stderr } = await run("enqueue", "orders", "x", ...args);
    expect(stderr).toContain(part);
    expect(status).toBe(64);
  });
});

describe("hawser schedules add", () => {
  it("makes and changes a schedule of the login, with a priority", async () => {
    const add = (...args: string[]) =>
      run("schedules", "add", "nightly", "--cron", "0 3 * * *", "--to", "reports", ...args);
    expect(await add("--timezone", "Europe/Berlin", "--priority", "-3")).toMatchObject({
      status: 0,
      stdout: 'Added the schedule "nightly".\n',
    });
    expect(await add("--payload", "x", "--missed", "all", "--priority", "3", "--json")).toMatchObject({
      stdout: '{"name":"nightly","outcome":"added"}\n',
    });
    expect(jsonLines((await run("schedules", "--json")).stdout)).toMatchObject([
      {
        name: "nightly",
        kind: "peer",
        destination: "reports",
        cron: "0 3 * * *",
        timezone: "UTC",
        missed: "all",
        priority: 3,
      },
    ]);
    await run("schedules", "add", "tick", "--cron", "* * * * *", "--to", "clock.tick", "--stream");
    expect(await rows("SELECT kind, to_stream FROM hawser_data.schedules WHERE name = 'tick'")).toEqual([
      { kind: "nats", to_stream: true },
    ]);
  });

  it.each([
    [["add", "nightly"], "give a name, --cron and --to"],
    [["list", "--cron", "* * * * *"], "--cron goes with add"],
    [["add", "a", "--cron", "61 * * * *", "--to", "b"], "61"],
    [
      ["add", "a", "--cron", "* * * * *", "--to", "b", "--missed", "some"],
      '--missed "some" is not one of one, all, none',
    ],
    [["add", "a", "--cron", "* * * * *", "--to", "b", "--priority", "1", "--key", "k"], "a message with a key"],
  ])("refuses %j", async (args, part) => {
    const { status, stderr } = await run("schedules", ...args);
    expect(stderr).toContain(part);
    expect(status).toBe(64);
  });
});
