/**
 * A login without any right can take each advisory lock of the database, and keep it. Nothing that Hawser does waits for one
 * that others know.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { install } from "../../src/operating/installation/index.js";
import { executorSession, fenceHeld, leads, newLead, startInTurn } from "../bridge/leadership/support.js";
import { TestPeer } from "../peer/support/world.js";
import { leave } from "../store/support/left-messages.js";
import { textMessages, type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { LockHolder } from "../support/lock-holder.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { login } from "./support/logins.js";

const names = ["shop-1", "billing-1", "sender", "listener", "heir", "__#outbox"];

const handlers = [
  "responder",
  "responder:locked.",
  "responder:locked.answer",
  "subscription:locked.subject",
  "stream:locked",
];

describe("a login without privileges that holds every advisory lock", () => {
  let w: World;
  let holder: LockHolder;

  beforeAll(async () => {
    w = await world();
    holder = await LockHolder.take(w.url, names, handlers);
  });
  afterAll(async () => {
    await holder[Symbol.asyncDispose]();
    await w[Symbol.asyncDispose]();
  });

  it("does not prevent a peer from starting, sending, storing, committing, stopping and starting again", async () => {
    const settings = { listen: "127.0.0.1:0", databaseUrl: w.url };
    await using shop = new TestPeer({ ...settings, name: "shop-1", topic: "shop" });
    await shop.record();
    const first = new TestPeer({ ...settings, name: "billing-1", topic: "billing" });
    await first.record();
    expect((await shop.send("billing", "one")).outcome).toBe("delivered");
    await eventually("the cursor is committed", async () => {
      const [row] = await rowsOf(
        w.url,
        `SELECT max(number)::int AS cursor FROM hawser_peer_data.cursors JOIN hawser_peer_data.channels USING (channel_id)
          WHERE channel_name = 'shop-1:shop:billing-1'`,
      );
      return row?.["cursor"] === 1;
    });
    await first.stop();
    expect((await shop.send("billing", "two")).outcome).toBe("stored");
    await using second = new TestPeer({ ...settings, name: "billing-1", topic: "billing" });
    await second.record();
    await eventually("what was stored is handled", () => second.texts.includes("two"));
    await onServer(w.url, "SELECT hawser.enqueue('billing', 'three')");
    await eventually("what was enqueued is handled", () => second.texts.includes("three"));
  });

  it("does not prevent a process from leading, running batches, and taking over", async (test) => {
    const [first, other] = [newLead(test, w.url), newLead(test, w.url)];
    await startInTurn(first, other);
    const batches = await executorSession(test, w.url);
    expect(await fenceHeld(batches, first.lead.epoch!)).toBe(true);
    await first.lead.stop();
    await leads(other);
    expect(await fenceHeld(batches, other.lead.epoch!)).toBe(true);
  });

  it("does not prevent hand-overs, and retrying, discarding, expiring and clearing", async () => {
    const sender = await w.take("sender");
    const listener = await w.take("listener");
    const key = await w.channelOf({ name: "sender", sourceTopic: "source" }, "listener");
    await w.store.idOfTopic("topic");
    expect(await w.store.storeMessages(sender, key, 1, textMessages("1", "2", "3"))).toBe("stored");
    const letter = { listener: "listener", errorCode: "handler_failed" };
    await leave(w.operator, listener, key, [letter, letter], sender.epoch);
    const [one, two] = (await w.store.deadLetters.list()).map(({ id }) => id);
    expect(await w.store.deadLetters.retry({ ids: [one!] })).toMatchObject([{ id: one, outcome: "enqueued" }]);
    const discarded = await w.operator.query("SELECT id::int FROM hawser.discard_dead_letters(ARRAY[$1::bigint])", [
      two,
    ]);
    expect(discarded.rows).toEqual([{ id: two }]);
    const { rows: expired } = await w.operator.query("SELECT deleted FROM hawser.expire_dead_letters(10)");
    expect(expired).toEqual([{ deleted: 0 }]);
    await listener.release({ clean: true });
    expect(await w.store.reassign({ from: "listener", to: "heir" })).toHaveLength(1);
    await w.operator.query(
      "SELECT hawser.queue_messages('topic', '@listener', '{x}', NULL, NULL, 'postgres', NULL, false, 0::smallint)",
    );
    expect(await w.store.reassignEnqueued("listener", "heir")).toBe(2);
    const { rows: cancelled } = await w.operator.query("SELECT hawser.cancel(id) AS is FROM hawser_data.queue");
    expect(cancelled).toEqual([{ is: "cancelled" }, { is: "cancelled" }, { is: "cancelled" }]);
    await sender.release({ clean: true });
    await w.store.clearStoredMessages({ name: "sender", sourceTopic: "source" });
    await w.store.clearAddressesOfTopic({ name: "sender", sourceTopic: "source" });
    const { rows: left } = await w.operator.query(
      "SELECT FROM hawser_peer_data.stored_messages WHERE channel_id = $1",
      [key],
    );
    expect(left).toEqual([]);
  });

  it("does not prevent subscribing a function to a subject, and a responder to another", async () => {
    await onServer(
      w.url,
      "SET lock_timeout = '10s'",
      "CREATE FUNCTION locked_take(bytea) RETURNS void LANGUAGE sql AS ''",
      "CREATE FUNCTION locked_answer(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
      "SELECT nats_subscribe('locked.subject', 'locked_take')",
      "SELECT litmus_pgnats_register_responder('locked.answer', 'locked_answer')",
    );
    const bound = await rowsOf(w.url, "SELECT kind FROM hawser_bridge_data.nats_handlers ORDER BY kind");
    expect(bound).toEqual([{ kind: "responder" }, { kind: "subscription" }]);
  });

  it("does not prevent hawser init", async () => {
    const told: string[] = [];
    await install({ databaseUrl: w.url, onWait: (line) => told.push(line) });
    expect(told).toEqual([]);
  });
});

describe("a row lock", () => {
  let w: World;
  beforeAll(async () => {
    w = await world();
  });
  afterAll(() => w[Symbol.asyncDispose]());

  it("serialises changes of a subject, and leaves no row", async () => {
    await onServer(w.url, "CREATE FUNCTION one_at_a_time(bytea) RETURNS void LANGUAGE sql AS ''");
    const other = await w.connect();
    const { rows } = await other.query("SELECT pg_backend_pid() AS pid");
    const before = await rowsOf(w.url, "SELECT what FROM hawser_data.fences ORDER BY what");
    await w.operator.query("BEGIN");
    await w.operator.query("SELECT nats_subscribe('one.subject', 'one_at_a_time')");
    await other.query("SELECT nats_subscribe('another.subject', 'one_at_a_time')");
    const same = other.query("SELECT nats_subscribe('one.subject', 'one_at_a_time')");
    const watcher = await w.connect();
    await eventually("it waits", async () => {
      const { rowCount } = await watcher.query(
        "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
        [rows[0].pid],
      );
      return rowCount === 1;
    });
    await w.operator.query("COMMIT");
    await same;
    const subjects = await rowsOf(w.url, "SELECT subject FROM hawser_bridge_data.nats_handlers ORDER BY subject");
    expect(subjects.map(({ subject }) => subject)).toEqual(["another.subject", "one.subject"]);
    expect(await rowsOf(w.url, "SELECT what FROM hawser_data.fences ORDER BY what")).toEqual(before);
  });

  it.each([
    "",
    "IN ROLE hawser_peer",
    "IN ROLE hawser_nats",
    "IN ROLE hawser_executor",
    "IN ROLE hawser_bridge",
    "IN ROLE hawser_peer, hawser_nats, hawser_executor, hawser_bridge",
  ])("is neither locked nor written by a login %s, except by functions", async (options) => {
    await using stranger = await login(w.url, options);
    const client = new pg.Client({ connectionString: stranger.url });
    await client.connect();
    try {
      for (const relation of ["hawser_data.owners", "hawser_data.fences", "hawser.bridge_lead"]) {
        for (const statement of [
          ...["ROW SHARE", "ROW EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE"].map(
            (mode) => `LOCK TABLE ${relation} IN ${mode} MODE NOWAIT`,
          ),
          ...["KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE"].map(
            (mode) => `SELECT FROM ${relation} FOR ${mode} NOWAIT`,
          ),
          `UPDATE ${relation} SET epoch = 0`,
          `DELETE FROM ${relation}`,
          `INSERT INTO ${relation} (epoch) VALUES (0)`,
          `TRUNCATE ${relation}`,
        ]) {
          await client.query("BEGIN");
          // 42501: not permitted. 55000, 42809: a view, which nobody writes or truncates.
          const refused = { code: expect.stringMatching(/^(42501|55000|42809)$/) };
          await expect(client.query(statement), statement).rejects.toMatchObject(refused);
          await client.query("ROLLBACK");
        }
      }
    } finally {
      await client.end();
    }
  });

  it("cannot be read, written or locked by any role but the owner", async () => {
    const { rows } = await w.operator.query(
      `SELECT r.rolname, t.name, p.privilege FROM pg_roles AS r
        CROSS JOIN unnest('{hawser_data.owners,hawser_data.fences}'::text[]) AS t (name)
        CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
       WHERE r.rolname LIKE 'hawser%' AND NOT pg_has_role(r.oid, 'hawser_owner', 'MEMBER')
         AND has_table_privilege(r.oid, t.name, p.privilege)`,
    );
    expect(rows).toEqual([]);
    const { rows: peers } = await w.operator.query(
      "SELECT p.privilege FROM unnest('{INSERT,UPDATE,DELETE}'::text[]) AS p (privilege) WHERE has_table_privilege('hawser_peer', 'hawser_peer_data.peers', p.privilege)",
    );
    expect(peers).toEqual([]);
  });
});
