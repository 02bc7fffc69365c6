/**
 * Postgres crashes on a database whose `synchronous_commit` is off: all that Hawser has told anybody is there afterwards, as
 * its commits wait for the disk whatever the default is.
 *
 * The crash is certain to lose what no commit has waited for: nothing else writes the log of Postgres to disk. Each is
 * proved by a plain INSERT behind what is tried.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease, LeftMessage } from "../../src/jobs-and-peers/store/index.js";
import { textMessages } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import { type OwnPostgres, ownPostgres } from "./support/own-postgres.js";

let postgres: OwnPostgres;
let store: Store;
/** Names that tests have taken. */
let names = 0;

beforeAll(async () => {
  postgres = await ownPostgres();
  const first = await session();
  // Nothing of these writes to disk what a test has committed.
  for (const setting of ["autovacuum = off", "bgwriter_lru_maxpages = 0", "checkpoint_timeout = '1h'"]) {
    await first.query(`ALTER SYSTEM SET ${setting}`);
  }
  await first.query("SELECT pg_reload_conf()");
  const { database } = first;
  await first.query(`ALTER DATABASE ${pg.escapeIdentifier(database!)} SET synchronous_commit = off`);
  await first.end();
  store = await openStore({ databaseUrl: postgres.url });
  await store.migrate();
  const plain = await session();
  await plain.query("CREATE TABLE effects (effect text); CREATE TABLE unconfirmed (of text)");
  await plain.end();
}, patienceMs);
afterAll(async () => {
  await store?.close();
  await postgres?.[Symbol.asyncDispose]();
});

async function session(): Promise<pg.Client> {
  const client = new pg.Client(postgres.url);
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function rows(text: string): Promise<Record<string, unknown>[]> {
  const client = await session();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** Does something, and has Postgres crash as soon as it is done. Resolves when the store works again. */
async function crashBehind<T>(name: string, work: () => Promise<T>): Promise<T> {
  let hasNewSession = false;
  const unlisten = store.on("session", (state) => {
    hasNewSession ||= state === "up";
  });
  const client = await session();
  await client.query("CHECKPOINT");
  const { rows: found } = await client.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
  const walWriter: number = found[0].pid;
  process.kill(walWriter, "SIGSTOP");
  const result = await work();
  const ended = new Promise((resolve) => client.once("end", resolve));
  await client.query("INSERT INTO unconfirmed VALUES ($1)", [name]);
  // Postgres ends all its processes, as the memory that they share may be broken, and recovers from what is on disk.
  process.kill(walWriter, "SIGKILL");
  await ended;
  await eventually("the store has a new session", () => store.isUp && hasNewSession);
  unlisten();
  expect(await rows("SELECT * FROM unconfirmed"), "what only a default commit has written").toEqual([]);
  return result;
}

/** A sender, a listener and their channel, each of the test's own. */
async function aChannel(): Promise<{ sender: Lease; listener: Lease; channelId: number; owner: string }> {
  const suffix = ++names;
  const owner = `listener-${suffix}`;
  const sender = await store.takeName(`sender-${suffix}`, { waitMs: 0 });
  const listener = await store.takeName(owner, { waitMs: 0 });
  const channelId = await store.openChannel({ name: `sender-${suffix}`, sourceTopic: "s" }, owner);
  return { sender, listener, channelId, owner };
}

const letterOf = (channelId: number, position: { readonly epoch: number; readonly number: number }): LeftMessage => ({
  ...{ ...position, channelId, topicId: 0, listener: undefined, lane: "", messageId: `m/${position.number}` },
  ...{ payload: Buffer.from("x"), headers: [], attempts: 5, failures: [], delayMs: 0, isSuspect: false },
  worker: undefined,
  dead: { errorCode: "handler_failed", errorMessage: `no room ${position.epoch}` },
});

it("Postgres that crashes keeps names that were taken, with their epochs", { timeout: patienceMs }, async () => {
  const states: string[] = [];
  const lease = await crashBehind("name", () => store.takeName("taken", { waitMs: 0 }));
  lease.onChange((state) => states.push(state));
  await eventually("the lease is held again", () => lease.state === "held");
  expect(states).not.toContain("lost");
});

it("Postgres that crashes keeps the id of a channel, and that of a topic", { timeout: patienceMs }, async () => {
  const channelId = await crashBehind("channel", () =>
    store.openChannel({ name: "new", sourceTopic: "s" }, "listener"),
  );
  expect(await store.channel(channelId)).toMatchObject({ channelName: "new:s:listener" });
  const topic = await crashBehind("topic", () => store.idOfTopic("t"));
  expect(await store.topicOfId(topic)).toBe("t");
});

it("Postgres that crashes keeps messages that were stored", { timeout: patienceMs }, async () => {
  const { sender, channelId } = await aChannel();
  await crashBehind("stored", () => store.storeMessages(sender, channelId, 1, textMessages("a", "b", "c", "d")));
  expect(await store.backlogOf(channelId, { epoch: 0, number: 0 })).toBe(4);
});

it("Postgres that crashes keeps a cursor that was committed, and the dead letter", {
  timeout: patienceMs,
}, async () => {
  const { sender, listener, channelId } = await aChannel();
  const position = { epoch: sender.epoch, number: 1 };
  const commits = [{ channelId, ...position, left: [letterOf(channelId, position)] }];
  expect(await crashBehind("cursor", () => store.commitCursors(listener, commits))).toMatchObject({
    committed: [channelId],
  });
  expect((await store.channel(channelId))!.cursor).toEqual(position);
  expect(await rows("SELECT error_message FROM hawser_data.dead_letters")).toContainEqual({
    error_message: `no room ${position.epoch}`,
  });
});

it("Postgres that crashes keeps the rows that a cursor has passed", { timeout: patienceMs }, async () => {
  const { sender, listener, channelId } = await aChannel();
  const position = { epoch: sender.epoch, number: 1 };
  const left = [{ ...letterOf(channelId, position), dead: undefined }];
  await crashBehind("row", () => store.commitCursors(listener, [{ channelId, ...position, left }]));
  expect((await store.channel(channelId))!.cursor).toEqual(position);
  expect(await rows(`SELECT FROM hawser_data.queue WHERE channel_id = ${channelId}`)).toHaveLength(1);
});

it("Postgres that crashes keeps what a transactional handler has written, and its job deleted", {
  timeout: patienceMs,
}, async () => {
  await rows("SELECT hawser.enqueue('on disk', 'x'::text)");
  await store.queue.openNow();
  const options = { name: "worker", group: undefined, topics: ["on disk"], leaseMs: 60_000, concurrency: 1 };
  const worker = await store.queue.openWorker({ ...options, replaces: undefined });
  const take = { topics: ["on disk"], most: 1, maxBytes: 1_000, after: {} };
  const { messages } = await store.queue.take(worker, take);
  const outcome = await crashBehind("handler", () =>
    store.handleInTransaction(messages, async (client) => {
      // The handler cannot turn off the synchronous commit: its effects and the end of the job are one commit.
      await client.query("SET LOCAL synchronous_commit = off");
      await client.query("INSERT INTO effects VALUES ('two')");
    }),
  );
  expect(outcome).toBe("committed");
  expect(await rows("SELECT FROM hawser_data.queue WHERE topic = 'on disk'")).toEqual([]);
  expect(await rows("SELECT effect FROM effects")).toContainEqual({ effect: "two" });
});

it("Postgres that crashes keeps what the handler of a request has written", { timeout: patienceMs }, async () => {
  await crashBehind("request", () =>
    store.runInTransaction(async (client) => {
      await client.query("INSERT INTO effects VALUES ('request')");
    }),
  );
  expect(await rows("SELECT effect FROM effects")).toContainEqual({ effect: "request" });
});

it("Postgres that crashes keeps that a dead letter is retried", { timeout: patienceMs }, async () => {
  await store.idOfTopic("t");
  const { sender, listener, channelId } = await aChannel();
  const position = { epoch: sender.epoch, number: 1 };
  await store.commitCursors(listener, [{ channelId, ...position, left: [letterOf(channelId, position)] }]);
  const ids = async () =>
    (
      await rows(
        `SELECT id::integer AS id FROM hawser_data.dead_letters WHERE error_message = 'no room ${position.epoch}'`,
      )
    ).map(({ id }) => id as number);
  const [id] = await ids();
  const outcomes = await crashBehind("retry", () => store.deadLetters.retry({ ids: [id!] }));
  expect(outcomes).toMatchObject([{ id, outcome: "enqueued" }]);
  expect(await ids()).toEqual([]);
  expect(await rows(`SELECT FROM hawser_data.queue WHERE channel_id = ${channelId}`)).toHaveLength(1);
});

it("Postgres that crashes keeps that stored messages were released", { timeout: patienceMs }, async () => {
  const { sender, channelId, owner } = await aChannel();
  await store.storeMessages(sender, channelId, 1, textMessages("a"));
  await crashBehind("released", () => store.reassign({ from: owner, to: "other", force: true }));
  expect(await rows(`SELECT recipient FROM hawser_data.queue WHERE channel_id = ${channelId}`)).toEqual([
    { recipient: "@other" },
  ]);
});
