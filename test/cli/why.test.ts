/** `hawser why`: what a job waits for, with a worker that runs. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { enqueue, Worker } from "../../src/jobs-and-peers/peer/index.js";
import { gate } from "../peer/support/gate.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { hawser, jsonLines } from "./support/hawser.js";

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

const run = (...args: string[]) => hawser(["why", ...args], { databaseUrl: database.url });

it("names what holds a job, and the remedy, until it is handled", async () => {
  await using worker = new Worker({ databaseUrl: database.url, name: "mail", concurrency: 1 });
  const held = gate();
  await worker.handle("mails", () => held.opened);
  await worker.start();
  const [running, next] = [await enqueue(client, "mails", "1"), await enqueue(client, "mails", "2")];
  await eventually("a beat tells what runs", async () => {
    const { stdout } = await run(String(running));
    return /^- The worker "mail:\d+" has it: .* It runs 1 of the topic, the oldest for \d+ s/m.test(stdout);
  });
  // Read ahead, or in the queue: both are held by the handler that runs.
  const [first] = jsonLines((await run(String(next), "--json")).stdout).filter(({ isMet }) => !isMet);
  expect(["free", "room"]).toContain(first!["condition"]);
  expect(first).toMatchObject({
    id: String(next),
    holder: expect.stringMatching(/^mail:/),
    remedy: expect.any(String),
  });
  held.open();
  await eventually("it is handled", async () => /^- It was handled/m.test((await run(String(next))).stdout));
});

it("finds the first job of a topic and a key, and sessions that are in the way", async () => {
  const id = await enqueue(client, "reprots", "x", { key: "k" });
  await client.query("BEGIN");
  await client.query("SELECT FROM hawser_data.queue WHERE id = $1 FOR UPDATE", [String(id)]);
  const { stdout } = await run("--topic", "reprots", "--key", "k");
  await client.query("ROLLBACK");
  expect(stdout.split("\n")).toEqual([
    `Job ${id}:`,
    '- No worker serves the topic "reprots"',
    '  Start a worker that handles "reprots"',
    expect.stringMatching(/^- The session \d+ of the role ".+" has locked it, .* \(for \d+ s\)$/),
    expect.stringMatching(/^ {2}Wait for its end, or SELECT pg_terminate_backend\(\d+\)$/),
    "",
  ]);
  expect((await run("--topic", "nothing")).stdout).toBe(
    '- No enqueued message of the topic "nothing" waits that you may see\n' +
      "  Messages that wait in their channels are not asked about: hawser pending --topic nothing has them\n",
  );
});

it.each([
  [[], "name one job by its id, or a --topic"],
  [["17", "--topic", "t"], "name one job by its id, or a --topic"],
  [["17", "--key", "k"], "--key goes with --topic"],
  [["x"], "x"],
])("refuses %j", async (args, why) => {
  const { status, stderr } = await run(...args);
  expect(status).toBe(64);
  expect(stderr).toContain(why);
});
