/** The worker in Python, in processes of its own: each message has its effect once, whoever is killed meanwhile. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { enqueue } from "../queue/support/test-worker.js";
import { projectDirectory } from "../support/built-programs.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { findPsycopg } from "../support/psycopg.js";
import { temporaryDirectory } from "../support/temporary.js";

const program = `${projectDirectory}examples/worker.py`;
const messages = 300;
const keys = 20;

it("has fewer than 75 lines", () => {
  expect(readFileSync(program, "utf8").trim().split("\n").length).toBeLessThan(75);
});

it("handles 300 messages with keys once and in order, though one of two workers is killed in the middle", {
  timeout: 300_000,
}, async () => {
  const { python, path } = await findPsycopg();
  await using database = await testDatabase({ nats: false });
  await using role = await login(database.url, "IN ROLE hawser_peer");
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(
    "CREATE TABLE effects (nth serial, text text, key text); GRANT ALL ON effects, effects_nth_seq TO PUBLIC",
  );
  const workers: ChildProcess[] = [];
  const start = () => {
    const env = { ...process.env, PYTHONPATH: path, HAWSER_DATABASE_URL: role.url, LEASE_MS: "2000" };
    const child = spawn(python, ["-B", program, "t"], { env, stdio: ["ignore", "ignore", "pipe"] });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => void errors.push(text));
    workers.push(child);
    return child;
  };
  const errors: string[] = [];
  const count = async () => (await client.query("SELECT count(*)::int AS count FROM effects")).rows[0].count;
  try {
    const [first] = [start(), start()];
    await eventually("both workers take messages", async () => {
      return (await client.query("SELECT FROM hawser_data.workers")).rows.length === 2;
    });
    for (let nth = 0; nth < messages; nth++) await enqueue(client, "t", [`${nth}`], { key: `k${nth % keys}` });
    await eventually("some are handled", async () => (await count()) > messages / 10);
    first.kill("SIGKILL");
    await eventually("all are handled", async () => (await count()) >= messages);
    const { rows } = await client.query<{ text: string; key: string }>("SELECT text, key FROM effects ORDER BY nth");
    expect(new Set(rows.map(({ text }) => text)).size).toBe(messages);
    expect(rows).toHaveLength(messages);
    for (let key = 0; key < keys; key++) {
      const ofKey = rows.filter((row) => row.key === `k${key}`).map(({ text }) => Number(text));
      expect(ofKey).toEqual(ofKey.toSorted((one, other) => one - other));
    }
    expect((await client.query("SELECT FROM hawser_data.queue")).rows).toEqual([]);
    // The other one ends in good order: nobody has to wait for its lease.
    const other = workers[1]!;
    const alive = async () => (await client.query("SELECT FROM hawser_data.workers WHERE gone_at IS NULL")).rows.length;
    const before = await alive();
    other.kill("SIGTERM");
    expect(await once(other, "exit")).toEqual([0, null]);
    // That of the killed one may not have passed.
    expect(await alive()).toBeLessThan(before);
    expect(errors).toEqual([]);
  } finally {
    for (const worker of workers) worker.kill("SIGKILL");
    await client.end();
  }
});

it("gives up a message that kills it, after as many starts as it allows, and none of the others", {
  timeout: 300_000,
}, async () => {
  const { python, path } = await findPsycopg();
  await using database = await testDatabase({ nats: false });
  await using role = await login(database.url, "IN ROLE hawser_peer");
  const directory = temporaryDirectory();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(
    `CREATE TABLE effects (nth serial, text text, key text); CREATE TABLE starts (text text);
     GRANT ALL ON effects, effects_nth_seq, starts TO PUBLIC`,
  );
  // Its handler, which writes down each start of the message that kills it.
  const killed = join(directory, "worker.py");
  const begins = "def handle(connection, message):\n";
  const source = readFileSync(program, "utf8");
  expect(source).toContain(begins);
  writeFileSync(
    killed,
    source.replace(
      begins,
      `${begins}    if message.payload == b"kills":
        with psycopg.connect(URL, autocommit=True) as other:
            other.execute("INSERT INTO starts VALUES ('kills')")
        os.kill(os.getpid(), signal.SIGKILL)
`,
    ),
  );
  let child: ChildProcess | undefined;
  let isOver = false;
  const start = () => {
    const env = { ...process.env, PYTHONPATH: path, HAWSER_DATABASE_URL: role.url, LEASE_MS: "500" };
    child = spawn(python, ["-B", killed, "t"], { env, stdio: "ignore" });
    child.on("exit", () => isOver || start());
  };
  try {
    await enqueue(client, "t", ["a", "b", "kills", "c", "d", "e"]);
    start();
    await eventually(
      "nothing is left",
      async () => (await client.query("SELECT FROM hawser_data.queue")).rows.length === 0,
    );
    const { rows } = await client.query<{ text: string }>("SELECT text FROM effects ORDER BY text");
    expect(rows.map(({ text }) => text)).toEqual(["a", "b", "c", "d", "e"]);
    expect((await client.query("SELECT FROM starts")).rows).toHaveLength(5);
    const dead = "SELECT convert_from(payload, 'UTF8') AS text, error_code, attempts FROM hawser_data.dead_letters";
    expect((await client.query(dead)).rows).toEqual([{ text: "kills", error_code: "handler_crashed", attempts: 5 }]);
  } finally {
    isOver = true;
    child?.kill("SIGKILL");
    await client.end();
  }
});
