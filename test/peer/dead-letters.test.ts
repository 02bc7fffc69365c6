import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { databaseSettingsDefaults, storeConstants } from "../../generated/ts/settings/peer.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { deadLetterFailureBytes, deadLetterFailures } from "../../src/jobs-and-peers/channel/handling.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { DeadLetterExpiry, deadLetterExpiryMs } from "../../src/jobs-and-peers/worker/dead-letter-expiry.js";
import { setRetention, withCommandDatabase } from "../../src/operating/operate/index.js";
import { world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";
import { failure } from "./support/errors.js";
import { type Handler, type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

describe("a dead letter that is retried", () => {
  let w: PeerWorld;
  let store: Store;
  let a: TestPeer;
  let b: TestPeer;
  let fails: (text: string) => boolean = () => true;
  const handler: Handler = async (message) => {
    const text = message.text();
    if (fails(text)) throw new Error(`cannot take ${text}`);
    await message.reply(`re ${text}`);
  };

  /** The dead letters, once there are that many. */
  const dead = async (count: number) => {
    await eventually(`${count} are dead`, async () => (await store.deadLetters.list()).length === count);
    return await store.deadLetters.list();
  };

  beforeAll(async () => {
    w = await peerWorld({ nats: false, keepsConnections: true });
    store = await openStore({ databaseUrl: w.url });
    a = await w.started("a-1");
    b = await w.started("b-1", { defaults: { retry: { attempts: 2, delayMs: 1 } } }, handler);
  });
  afterAll(async () => {
    await store.close();
    await w[Symbol.asyncDispose]();
  });

  it("is the same message to its handler, and the reply reaches its sender", async () => {
    fails = () => true;
    const receipt = await a.send("b", "one", { headers: { trace: "7" } });
    expect(receipt.outcome).toMatch(/delivered|stored/);
    await b.saw("dead_letter");
    const [letter] = await dead(1);
    expect(letter).toMatchObject({
      source: "@b-1",
      topic: "b",
      attempts: 2,
      errorMessage: "Error: cannot take one",
    });
    const before = b.received.all.at(-1);
    fails = () => false;
    await store.deadLetters.retry({ ids: [letter?.id as number] });
    await a.received.find(({ text }) => text === "re one");
    const headers = [
      ["message-origin", "a-1:a:"],
      ["trace", "7"],
      ["message-id", expect.stringMatching(/^a-1:a:b-1\/\d+\/\d+$/)],
    ];
    expect(b.received.all.at(-1)).toEqual({ ...before, attempt: 1 });
    expect(before).toMatchObject({ topic: "b", senderTopic: "a", sender: "a-1", headers });
    expect(a.received.all.at(-1)).toMatchObject({ sender: "b-1", senderTopic: "b" });
    await eventually("nothing is left of it", async () => (await w.storedMessages()) === 0);
    expect(await store.deadLetters.list()).toEqual([]);
  });

  it("has the stack of its last error and its last attempts with their times, and no password", async () => {
    const attempts = deadLetterFailures + 2;
    const other = w.peer("c-1");
    await other.handle("orders", { retry: { attempts, delayMs: 1, factor: 1 } }, function failing({ attempt }) {
      throw new RangeError(`${attempt}: postgres://me:secret@db/x ${"m".repeat(5_000)}`);
    });
    await other.start();
    const before = Date.now();
    await a.send("orders", "one");
    const [letter] = await dead(1);
    const { stack, failures } = (await store.deadLetters.get(letter!.id))!;
    expect(stack).toMatch(
      new RegExp(`^RangeError: ${attempts}: postgres://\\*\\*\\*@db/x m+\n.* (Object\\.)?failing .*dead-letters.test`),
    );
    expect(failures.map(({ attempt }) => attempt)).toEqual(Array.from({ length: attempts - 2 }, (_, n) => n + 3));
    const times = failures.map(({ at }) => Date.parse(at));
    const inOrder = [before, ...times, Date.now()];
    expect(inOrder).toEqual(inOrder.toSorted((one, other) => one - other));
    for (const { attempt, code, message } of failures) {
      expect(code).toBe("handler_failed");
      expect(message).toMatch(new RegExp(`^RangeError: ${attempt}: postgres://\\*\\*\\*@db/x m+\\.\\.\\.$`));
      expect(message.length).toBeLessThanOrEqual(deadLetterFailureBytes);
    }
    await store.deadLetters.discard({ all: true });
    await other.stop();
  });

  it("waits for its listener while that is away", async () => {
    fails = () => true;
    await a.send("b", "late");
    await dead(1);
    await b.stop();
    fails = () => false;
    const from = b.received.all.length;
    expect(await store.deadLetters.retry({ all: true })).toMatchObject([{ outcome: "enqueued" }]);
    await b.start();
    await b.stop();
    await b.record(handler);
    await b.received.length(from + 1);
    expect(b.texts.slice(from)).toEqual(["late"]);
  });

  it("cannot have its channel made or taken by a peer of a reserved name", async () => {
    for (const name of ["__#retry#1", "__#"]) {
      const error = await failure("invalid_argument", () => w.peer(name, { topic: "x" }));
      expect(error.message).toBe(`name "${name}" begins with __#, which is reserved; choose another`);
    }
    // A refusal ends the session, which the other tests share.
    await using other = await openStore({ databaseUrl: `${w.url}?application_name=refused` });
    await expect(other.takeName("__#retry#1", { waitMs: 0 })).rejects.toMatchObject({ code: "store_failed" });
    const insert =
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('b', '127.0.0.1:1', '__#retry#1')";
    await expect(w.query(insert)).rejects.toMatchObject({ code: "23514" });
  });
});

const insertSql = `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
  SELECT 'queue', '', 't', 'x', 'c', 'm', 1, now() - make_interval(days => $1) FROM generate_series(1, $2::integer)`;

describe("the retention of dead letters", () => {
  it("is kept when a peer starts, by the days of the database", async () => {
    await using w = await peerWorld({ nats: false, keepsConnections: true });
    await w.query(insertSql, [databaseSettingsDefaults.deadLetterRetentionDays + 1, 3]);
    await w.query(insertSql, [databaseSettingsDefaults.deadLetterRetentionDays - 1, 2]);
    const count = async () => (await w.query("SELECT FROM hawser_data.dead_letters")).length;
    await w.started("a-1");
    await eventually("the old ones are gone", async () => (await count()) === 2);
    await withCommandDatabase(w.url, (database) => setRetention(database, "dead letters", 1));
    await w.started("b-1");
    await eventually("all are gone", async () => (await count()) === 0);
  });

  it("is kept every hour from then on, all batches at once", async () => {
    await using w = await world();
    const clock = new ManualClock();
    const count = async () => (await w.operator.query("SELECT FROM hawser_data.dead_letters")).rowCount;
    const context = { store: w.store, logger: silentLogger };
    const expiry = new DeadLetterExpiry(context, clock);
    expiry.start();
    await eventually("it waits for the next hour", () => clock.timers === 1);
    await w.operator.query(insertSql, [31, 2 * storeConstants.deadLetterRows + 1]);
    clock.advance(deadLetterExpiryMs - 1);
    expect(await count()).toBe(2 * storeConstants.deadLetterRows + 1);
    clock.advance(1);
    await eventually("all are gone", async () => (await count()) === 0);
    // A failure is not the end of it.
    await eventually("it waits for the next hour", () => clock.timers === 1);
    await w.operator.query("ALTER FUNCTION hawser.expire_dead_letters RENAME TO gone");
    clock.advance(deadLetterExpiryMs);
    await eventually("it waits for the next hour", () => clock.timers === 1);
    await w.operator.query("ALTER FUNCTION hawser.gone RENAME TO expire_dead_letters");
    await w.operator.query(insertSql, [31, 1]);
    clock.advance(deadLetterExpiryMs);
    await eventually("it is gone", async () => (await count()) === 0);
    await eventually("it waits for the next hour", () => clock.timers === 1);
    expiry.stop();
    expect(clock.timers).toBe(0);
  });
});
