/** `hawser jobs`, and what `hawser outbox` says of jobs. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
beforeEach(() => client.query("TRUNCATE hawser_data.queue, hawser_data.outbox"));
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const run = (...args: string[]) => hawser(args, { databaseUrl: database.url });
const rows = async (sql: string) => (await client.query(sql)).rows;
const idOf = async (call: string): Promise<string> => (await rows(`SELECT hawser.${call}::text AS id`))[0].id;

const inAnHour = "deliver_at => now() + interval '1 hour'";

/** A job and messages for NATS with the same destination: one that is due later, and one that waits. */
async function bothKinds() {
  return {
    job: await idOf(`enqueue('same', 'job'::text, ${inAnHour})`),
    later: await idOf(`enqueue('same', 'nats'::text, stream => false, ${inAnHour})`),
    waiting: await idOf("enqueue('same', 'nats'::text, stream => true)"),
  };
}

describe("hawser jobs and hawser outbox", () => {
  it("list and count the messages of one kind each", async () => {
    const { job, later } = await bothKinds();
    const queued = await idOf("enqueue('same', 'job'::text)");
    for (const [command, ids] of [
      ["jobs", [queued, job]],
      ["outbox", [later]],
    ] as const) {
      expect(jsonLines((await run(command, "list", "--json")).stdout).map(({ id }) => id)).toEqual(ids);
      const [status] = jsonLines((await run(command, "status", "--json")).stdout);
      expect(status).toMatchObject({ waiting: 1, oldestWaitingFor: "same", later: 1 });
      expect(Object.hasOwn(status!, "segments"), command).toBe(command === "outbox");
    }
    expect((await run("jobs", "status")).stdout).toMatch(/^WAITING .*\n +1 /);
  });

  it("cancel the messages of one kind each", async () => {
    const left = () => rows("SELECT later AS kind FROM hawser_data.queue WHERE later IS NOT NULL ORDER BY 1");
    await bothKinds();
    expect(await run("jobs", "cancel", "--topic", "same")).toMatchObject({ stdout: "Cancelled 1 job.\n" });
    expect(await left()).toEqual([{ kind: "nats" }]);
    await rows("SELECT hawser.enqueue('same', 'job'::text)");
    expect(await run("outbox", "cancel", "--to", "same")).toMatchObject({ stdout: "Cancelled 1 message.\n" });
    expect(await left()).toEqual([]);
    expect(await rows("SELECT FROM hawser_data.queue")).toHaveLength(1);
  });

  it("refuse an id of the other kind before they cancel another one, and name the command for it", async () => {
    const { job, later, waiting } = await bothKinds();
    const queued = await idOf("enqueue('same', 'job'::text, priority => 5)");
    for (const [command, own, other, what] of [
      ["jobs", job, later, "for NATS; cancel it with `hawser outbox cancel`"],
      ["jobs", job, waiting, "for NATS; cancel it with `hawser outbox cancel`"],
      ["outbox", later, job, "a job; cancel it with `hawser jobs cancel`"],
      ["outbox", later, queued, "a job; cancel it with `hawser jobs cancel`"],
    ] as const)
      expect(await run(command, "cancel", "--", own, other)).toMatchObject({
        status: 64,
        stdout: "",
        stderr: expect.stringContaining(`the message ${other} is ${what}`),
      });
    expect(await rows("SELECT FROM hawser_data.queue WHERE later IS NOT NULL")).toHaveLength(2);
    expect(await run("jobs", "cancel", "--flow", later)).toMatchObject({ status: 64, stdout: "" });
    expect(await run("jobs", "cancel", "--", job, queued)).toMatchObject({ stdout: "Cancelled 2 jobs.\n" });
    // The relay may have read the one that waits.
    expect(await run("outbox", "cancel", later, waiting)).toMatchObject({
      stdout: "Cancelled 1 message. 1 message may be on the way to NATS.\n",
    });
  });
});

describe("hawser jobs list", () => {
  it("chooses by state, topic, key and header, in pages", async () => {
    const first = await idOf(`enqueue('page', '1'::text, ${inAnHour})`);
    const held = await idOf(`enqueue_after('book', '2'::text, ARRAY[${first}]::bigint[])`);
    const listed = async (...args: string[]) =>
      jsonLines((await run("jobs", "list", "--json", ...args)).stdout).map(({ id }) => id);
    expect(await listed("--state", "held")).toEqual([held]);
    expect(await listed("--state", "later")).toEqual([first]);
    expect(await listed("--topic", "book")).toEqual([held]);
    expect((await run("jobs", "list", "--topic", "none")).stderr).toBe("No job matches.\n");
    const keyed = await idOf("enqueue('page', '1'::text, key => 'k', headers => '{\"order\": \"a=17\"}')");
    expect(await listed("--key", "k")).toEqual([keyed]);
    expect(await listed("--topic", "page", "--header", "order=a=17")).toEqual([keyed]);
    expect(await listed("--header", "order=17")).toEqual([]);
    const { stderr } = await run("jobs", "list", "--limit", "2");
    const [, place] = /^There may be more: --after (\d+)$/m.exec(stderr)!;
    expect(await listed("--after", place!)).toEqual([first]);
  });
});

describe("hawser jobs cancel", () => {
  it("takes ids, and names those that do not wait after it has cancelled the others", async () => {
    const id = await idOf("enqueue('reports', '1'::text)");
    const { status, stdout, stderr } = await run("jobs", "cancel", "999999", id, "--json");
    expect(jsonLines(stdout)).toEqual([
      { id: "999999", outcome: "not_waiting" },
      { id, outcome: "cancelled" },
    ]);
    expect({ status, stderr }).toEqual({ status: 64, stderr: expect.stringContaining("no job 999999 waits") });
  });

  it("cancels a flow as a whole", async () => {
    const first = await idOf("enqueue('page', '1'::text)");
    await rows(`SELECT hawser.enqueue_after('book', '2'::text, ARRAY[${first}]::bigint[])`);
    expect(await run("jobs", "cancel", "--flow", first)).toMatchObject({ stdout: "Cancelled 2 jobs.\n" });
  });

  it("cancels what waits for a topic, and asks before", async () => {
    await rows(
      "SELECT hawser.enqueue_batch('reports', ARRAY['1', '2'], key => key) FROM unnest(ARRAY['a', 'b']) AS key",
    );
    await rows("SELECT hawser.enqueue('reports', '3', deliver_at => '2030-01-31T12:00:00Z')");
    const cancel = async (...args: string[]) => (await run("jobs", "cancel", "--topic", "reports", ...args)).stdout;
    expect(await cancel("--older-than", "1d")).toBe("Cancelled 0 jobs.\n");
    const asked = (input: string) =>
      hawser(["jobs", "cancel", "--topic", "reports", "--key", "a"], {
        databaseUrl: database.url,
        input,
        terminal: true,
      });
    const question =
      'The jobs of "reports" with the key "a" that wait will be deleted, with payload, and those that run are asked to end';
    expect(await asked("\n")).toMatchObject({ status: 1, stdout: "", stderr: expect.stringContaining(question) });
    expect(await asked("yes\n")).toMatchObject({ status: 0, stdout: "Cancelled 2 jobs.\n" });
    expect(jsonLines(await cancel("--json")).map(({ outcome }) => outcome)).toEqual(new Array(3).fill("cancelled"));
  });
});

describe("hawser jobs show", () => {
  it("tells what has become of a message, if something of it is kept", async () => {
    await client.query(
      `INSERT INTO hawser_data.results (segment, id, role, topic, state, attempts, enqueued_at, ended_at, result, expires_at)
       VALUES (0, 17, 'shop', 'pdfs', 'done', 1, now(), '2030-01-31T12:00:00Z', '{"pages": 12}', 'infinity')`,
    );
    expect((await run("jobs", "show", "17")).stdout).toMatch(
      /^state: done\ntopic: pdfs\nattempts: 1\n(.*\n)+result: {"pages":12}\n/,
    );
    expect(jsonLines((await run("jobs", "show", "17", "--json")).stdout)).toMatchObject([
      { id: "17", state: "done", enqueuedBy: "shop", endedAt: "2030-01-31T12:00:00.000Z", result: { pages: 12 } },
    ]);
    expect(jsonLines((await run("jobs", "show", "18", "--json")).stdout)).toMatchObject([
      { id: "18", state: "unknown" },
    ]);
    expect(await run("jobs", "show", "18")).toMatchObject({
      stdout: "",
      stderr:
        "No job 18 of this login waits, and no result of it was kept (--keep of `hawser enqueue`, `hawser topics keep`).\n",
    });
  });

  it("names the dead letter of a job, and how to retry it", async () => {
    const id = await idOf("enqueue('pdfs', 'x'::text)");
    const [{ letter }] = await rows(
      `WITH gone AS (DELETE FROM hawser_data.queue WHERE id = ${id} RETURNING role, role_id)
       INSERT INTO hawser_data.dead_letters (origin, source, topic, attempts, error_code, error_message, payload, headers, role, role_id, job_id)
       SELECT 'queue', '', 'pdfs', 5, 'handler_failed', 'no', 'x', '[]', role, role_id, ${id} FROM gone RETURNING id AS letter`,
    );
    const { stdout } = await run("jobs", "show", id);
    expect(stdout).toMatch(/^state: dead\n/);
    expect(stdout).toContain(`\nremedy: Mend the handler, then hawser dead retry ${letter}\n`);
  });
});

it.each([
  [["drop"], "It can list, show, cancel, status, import"],
  [["17"], 'cannot "17"'],
  [["list", "17"], "ids go with show and cancel"],
  [
    ["list", "--state", "asleep"],
    '--state "asleep" is not one of waiting, running, later, held, dead, done, cancelled',
  ],
  [["list", "--limit", "10001"], "--limit"],
  [["list", "--flow"], "--flow goes with cancel"],
  [["show"], "name one job by its id"],
  [["show", "17", "18"], "name one job by its id"],
  [["show", "x"], '"x" is not the id of a message'],
  [["show", "17", "--topic", "a"], "--topic goes with list and cancel"],
  [["cancel"], "name the jobs, or all with --topic"],
  [["cancel", "17", "--topic", "a"], "name the jobs, or all with --topic"],
  [["cancel", "17", "--key", "a"], "--key and --older-than go with --topic"],
  [["cancel", "17", "--yes"], "--yes goes with --topic"],
  [["cancel", "--topic", "a", "--flow"], "--flow goes with ids"],
  [["status", "--move"], "--move goes with import"],
])("hawser jobs refuses %j", async (args, message) => {
  expect(await run("jobs", ...args)).toMatchObject({ status: 64, stderr: expect.stringContaining(message) });
});
