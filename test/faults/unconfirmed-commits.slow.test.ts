/**
 * Commits whose wait for the synchronous standby is cancelled. Postgres keeps such a commit, and only warns: a failover loses
 * it. Nothing counts as written until the standby has it, also where a repetition finds nothing left to write.
 */
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { DatabaseAddress, OpenAttempts, PostgresSession } from "../../src/foundation/postgres/index.js";
import { silentLogger as logger } from "../../src/foundation/runtime/index.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease, LeftMessage } from "../../src/jobs-and-peers/store/index.js";
import { ExecutorPool } from "../../src/nats/bridge/executor/executor-pool.js";
import { inTransaction } from "../../src/nats/bridge/executor/transaction.js";
import { install } from "../../src/operating/installation/index.js";
import { TestPeer } from "../peer/support/world.js";
import { textMessages } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { type OwnPostgres, ownPostgres } from "./support/own-postgres.js";

let postgres: OwnPostgres;
/** Does not wait for standbys itself. */
let operator: pg.Client;
/** Waits for them. */
let writer: pg.Client;
let store: Store;
let sender: Lease;
let listener: Lease;
let channel: number;
let channels = 0;

beforeAll(async () => {
  postgres = await ownPostgres();
  await install({ databaseUrl: postgres.url, nats: false });
  operator = new pg.Client(postgres.url);
  await operator.connect();
  await operator.query("SET synchronous_commit = local");
  await operator.query("CREATE TABLE effects (effect text)");
  writer = new pg.Client({ connectionString: postgres.url, application_name: "writer" });
  await writer.connect();
  store = await openStore({ databaseUrl: postgres.url });
  sender = await store.takeName("sender", { waitMs: 0 });
  listener = await store.takeName("listener", { waitMs: 0 });
});
afterAll(async () => {
  await store?.close();
  await operator?.end();
  await writer?.end();
  await postgres?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  channels += 1;
  channel = await store.openChannel({ name: "sender", sourceTopic: `topic ${channels}` }, "listener");
  await waitForStandby("absent");
});
afterEach(() => waitForStandby(""));

/** Makes commits wait for a standby of this name; none if it is empty. Returns when they do. */
async function waitForStandby(name: string): Promise<void> {
  await operator.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
  await operator.query("SELECT pg_reload_conf()");
  // The setting counts when the checkpointer has read it, whatever a session shows.
  await eventually("the setting is in effect", async () => (await waitOfCommit()) === (name !== ""));
}

/** Whether a commit waits for a standby. Cancels that. */
async function waitOfCommit(): Promise<boolean> {
  let isDone = false;
  const commit = writer.query("INSERT INTO effects VALUES ('of the writer')").finally(() => {
    isDone = true;
  });
  let waited = false;
  while (!isDone) {
    const { rowCount } = await operator.query(
      "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'writer'",
    );
    waited ||= rowCount! > 0;
  }
  await commit;
  return waited;
}

/** Takes the jobs of a topic. */
async function jobs(topic: string) {
  await store.queue.openNow();
  const options = { name: "worker", group: undefined, topics: [topic], leaseMs: 60_000, concurrency: 1 };
  const worker = await store.queue.openWorker({ ...options, replaces: undefined });
  return (await store.queue.take(worker, { topics: [topic], most: 10, maxBytes: 1_000, after: {} })).messages;
}

/** Waits until a session waits for the standby, and cancels that. @param statement pattern of LIKE for its statement */
async function cancelWait(statement = "%"): Promise<void> {
  await eventually("the wait of a commit is cancelled", async () => {
    const { rowCount } = await operator.query(
      `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND backend_type = 'client backend' AND query LIKE $1`,
      [statement],
    );
    return rowCount! > 0;
  });
}

/** Cancels the wait of a write, of its repetition, and lets the third one through. */
async function expectConfirmed<T>(write: () => Promise<T>): Promise<T> {
  for (let time = 1; time <= 2; time += 1) {
    const [result] = await Promise.allSettled([write(), cancelWait()]);
    expect(result).toMatchObject({
      status: "rejected",
      reason: { code: "store_failed", outcome: "unknown", message: expect.stringContaining("standby") },
    });
  }
  await waitForStandby("");
  return write();
}

const message = (number: number) => ({ channelId: channel, epoch: sender.epoch, number });
const letter = (number: number): LeftMessage => ({
  ...{
    ...message(number),
    topicId: 0,
    listener: listener.name,
    lane: "",
    messageId: `m/${number}`,
    payload: Buffer.from("x"),
  },
  ...{ headers: [], attempts: 5, failures: [], delayMs: 0, isSuspect: false, worker: undefined },
  dead: { errorCode: "handler_failed", errorMessage: "given up" },
});

describe("a write of a peer counts only when the standby has it:", () => {
  it("a stored message", async () => {
    const stored = () => store.storeMessages(sender, channel, 1, textMessages("a", "b"));
    expect(await expectConfirmed(stored)).toBe("stored");
  });

  it("a cursor and a dead letter", async () => {
    const commit = () => store.commitCursors(listener, [{ ...message(1), left: [letter(1)] }]);
    expect(await expectConfirmed(commit)).toMatchObject({ committed: [channel], notOwned: [] });
  });

  it("the effects of a transactional handler, which ran once", async () => {
    await waitForStandby("");
    await operator.query("SELECT hawser.enqueue('of the standby', 'x'::text)");
    const [job] = await jobs("of the standby");
    await waitForStandby("absent");
    const handled = () =>
      store.handleInTransaction([job!], async (client) => {
        await client.query("SET client_min_messages = error; INSERT INTO effects VALUES ('one')");
      });
    const [result] = await Promise.allSettled([handled(), cancelWait()]);
    expect(result).toMatchObject({ status: "rejected", reason: { code: "store_failed", outcome: "unknown" } });
    await waitForStandby("");
    expect(await handled()).toBe("duplicate");
    const effects = await operator.query("SELECT effect FROM effects WHERE effect = 'one'");
    expect(effects.rows).toEqual([{ effect: "one" }]);
  });
});

it("a send is pending until the standby has the message", async () => {
  await waitForStandby("");
  await using peer = new TestPeer({ name: "a-1", topic: "a", databaseUrl: postgres.url });
  await using away = new TestPeer({ name: "b-1", topic: "b", databaseUrl: postgres.url });
  await away.record();
  await peer.record();
  await peer.send("b", "before");
  await away.stop();
  await waitForStandby("absent");
  const sent = peer.send("b", "x");
  let outcome: string | undefined;
  void sent.then((receipt) => {
    outcome = receipt.outcome;
  });
  await cancelWait("%store_messages%");
  const { message } = await peer.saw("sender_store_error");
  expect(message).toContain("the commit was not confirmed by a synchronous standby");
  expect(outcome).toBeUndefined();
  await cancelWait("%store_messages%");
  await waitForStandby("");
  expect((await sent).outcome).toBe("stored");
});

it("a statement of a session fails, with those that are under way behind it", async () => {
  const address = DatabaseAddress.of(postgres.url);
  const session = new PostgresSession({ address, logger, queryTimeoutMs: 20_000, onDown: () => undefined });
  const writing = [1, 2].map((n) => session.query(`INSERT INTO public.effects VALUES ('of a session: ${n}')`));
  const [first, second] = await Promise.allSettled([...writing, cancelWait()]);
  expect(first).toMatchObject({ status: "rejected", reason: { message: expect.stringContaining("not confirmed") } });
  expect(second).toMatchObject({ status: "rejected" });
  await session.close();
});

it("a transaction of functions is no success", async () => {
  const backend = { pid: 1, startedAt: "", serverStartedAt: "" };
  const login = {
    attempts: new OpenAttempts(),
    address: () => Promise.resolve(DatabaseAddress.of(postgres.url)),
    check: () => Promise.resolve(backend),
    reasonOfSilence: () => Promise.resolve("unknown" as const),
    endBackend: () => Promise.resolve(),
  };
  const pool = new ExecutorPool({ login, limit: 2, logger });
  const running = inTransaction(pool, logger, {
    runAs: "postgres",
    timeoutMs: 20_000,
    first: "SELECT 1",
    run: async (executor) => {
      await executor.query("INSERT INTO public.effects VALUES ('of a function')", []);
      return { value: "done", commit: true };
    },
  });
  await cancelWait();
  expect((await running).kind).not.toBe("committed");
  await pool.stop();
});
