/** Settings of topics, which operators change: what the functions of workers do with them. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueFunctions } from "../../generated/ts/rows/queue.js";
import { listTopics, withCommandDatabase } from "../../src/operate/index.js";
import { type Login, login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, TestWorker, textsOf } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.queue, hawser_data.workers, hawser_data.listeners, hawser_data.topic_settings",
  );
});

const pause = (topic: string, on = client) => queueFunctions(on).pauseTopic({ topic });
const resume = async (topic: string, on = client) => (await queueFunctions(on).resumeTopic({ topic })).resumed;
async function connected({ url }: Login): Promise<pg.Client> {
  const session = new pg.Client({ connectionString: url });
  await session.connect();
  return session;
}

const pausedOf = async ({ id }: TestWorker) =>
  (await queueFunctions(client).extend({ worker: id, looks: false })).pausedTopics;

describe("a paused topic", () => {
  it("gives nothing, and is no burden for others", async () => {
    const worker = await TestWorker.open(client, { topics: ["t", "u"] });
    for (const topic of ["t", "u"]) await enqueue(client, topic, [`${topic} first`]);
    await enqueue(client, "t", ["t urgent"], { priority: 7 });
    expect(await pause("t")).toEqual({ pausedAt: expect.any(Date), pausedBy: "postgres", changed: true });
    expect(textsOf(await worker.take())).toEqual(["u first"]);
    expect(await pausedOf(worker)).toEqual(["t"]);
    expect(await resume("t")).toBe(true);
    expect(await pausedOf(worker)).toEqual([]);
    expect(textsOf(await worker.take())).toEqual(["t urgent", "t first"]);
    expect((await client.query("SELECT FROM hawser_data.topic_settings")).rowCount).toBe(0);
  });

  it("lets messages that are handled end, be put off and be given back", async () => {
    const worker = await TestWorker.open(client);
    await enqueue(client, "t", ["a", "b", "c"]);
    const [a, b, c] = await worker.take();
    await pause("t");
    await worker.done(a!);
    expect(await worker.retry(b!, 0)).toEqual([b!.id]);
    expect(await worker.giveBack(c!)).toEqual([c!.id]);
    expect(await worker.take({ looksBehind: true })).toEqual([]);
    await resume("t");
    expect(textsOf(await worker.take({ looksBehind: true }))).toEqual(["b", "c"]);
  });

  it("keeps since when and by whom when it is paused again, and is not resumed twice", async () => {
    await using carol = await login(w.url, "IN ROLE hawser_peer");
    const session = await connected(carol);
    const { pausedAt } = await pause("t", session);
    await session.end();
    expect(await pause("t")).toEqual({ pausedAt, pausedBy: carol.role, changed: false });
    expect([await resume("t"), await resume("t"), await resume("never")]).toEqual([true, false, false]);
  });

  it("begins and ends with the operator's transaction, which notifies the workers", async () => {
    const heard: string[] = [];
    other.on("notification", ({ channel, payload }) => heard.push(`${channel} ${payload}`));
    await other.query("LISTEN hawser_topic_settings");
    const worker = await TestWorker.open(other);
    await enqueue(client, "t", ["a"]);
    await client.query("BEGIN");
    await pause("t");
    expect(textsOf(await worker.take())).toEqual(["a"]);
    await client.query("ROLLBACK");
    expect(await pausedOf(worker)).toEqual([]);
    await pause("t");
    await pause("t");
    await resume("t");
    await other.query("UNLISTEN hawser_topic_settings");
    expect(heard).toEqual(["hawser_topic_settings t", "hawser_topic_settings t"]);
  });

  it("is listed with its listeners, or alone, and what waits for it has a state of its own", async () => {
    await client.query(
      "INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ('t', '127.0.0.1:1', 'l'), ('u', '127.0.0.1:1', 'l')",
    );
    const { pausedAt } = await pause("t");
    await pause("nobody's");
    await enqueue(client, "t", ["a"]);
    await enqueue(client, "u", ["b"]);
    const listed = await withCommandDatabase(w.url, (database) => listTopics(database));
    expect(listed.map(({ topic, name, running, pausedBy }) => [topic, name, running, pausedBy])).toEqual([
      ["nobody's", "", false, "postgres"],
      ["t", "l", false, "postgres"],
      ["u", "l", false, null],
    ]);
    expect(listed[1]).toMatchObject({ pausedAt });
    const { rows } = await client.query("SELECT topic, state FROM hawser.backlog(100) ORDER BY topic");
    expect(rows).toEqual([
      { topic: "t", state: "paused" },
      { topic: "u", state: "stopped" },
    ]);
  });

  it("is paused and resumed by members of hawser_peer alone", async () => {
    for (const role of ["hawser_nats", "hawser_viewer", "hawser_bridge"]) {
      await using stranger = await login(w.url, `IN ROLE ${role}`);
      const session = await connected(stranger);
      await expect(pause("t", session)).rejects.toMatchObject({ code: "42501" });
      await expect(resume("t", session)).rejects.toMatchObject({ code: "42501" });
      await session.end();
    }
  });
});
