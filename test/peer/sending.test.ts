import { EventEmitter } from "node:events";
import { beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import type { AnyReceipt } from "../../src/jobs-and-peers/handlers/message.js";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { type PeerStatus, StatusReporter } from "../../src/jobs-and-peers/handlers/status.js";
import { type PeerContext, type PeerLimits, SecretCache } from "../../src/jobs-and-peers/peer/core/context.js";
import { checkOptions } from "../../src/jobs-and-peers/peer/core/peer-options.js";
import { limitsOf } from "../../src/jobs-and-peers/peer/running-peer.js";
import type { CheckedMessage } from "../../src/jobs-and-peers/peer/sending/outgoing.js";
import { Sending } from "../../src/jobs-and-peers/peer/sending/sending.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";
import { PeerCounters } from "../../src/jobs-and-peers/worker/counters.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { withoutTimersAbove } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

describe("the sending side of a peer", () => {
  let store: Store;
  let sending: Sending;
  let epoch: number;
  let settings: { -readonly [Name in keyof PeerLimits]: PeerLimits[Name] };
  let counters: PeerCounters;
  let statuses: PeerStatus[];

  beforeEach(async () => {
    // Looks at the catalog when a test says so.
    const restoreTimers = withoutTimersAbove(polls.everyMs - 1);
    store = await openStore({ databaseUrl: world.url });
    const lease = await store.takeName("shop-1", { waitMs: 0 });
    epoch = lease.epoch;
    const secrets = new SecretCache(store);
    await secrets.refresh();
    const options = { name: "shop-1", topic: "shop", listen: "127.0.0.1:0", databaseUrl: world.url };
    const checked = checkOptions(options);
    settings = limitsOf(checked.settings, checked.tuning);
    counters = new PeerCounters();
    const emitter = new EventEmitter<{ status: [PeerStatus] }>();
    statuses = [];
    emitter.on("status", (status) => void statuses.push(status));
    const context: PeerContext = {
      sender: { name: "shop-1", sourceTopic: "shop" },
      settings,
      membership: checked.handling,
      store,
      workerName: "shop-1",
      idleBeatMs: undefined,
      lease,
      secrets,
      status: new StatusReporter(emitter),
      counters,
      logger: silentLogger,
      tls: undefined,
      checkEpoch: async () => undefined,
      nameLost: () => undefined,
    };
    sending = new Sending(context);
    return async () => {
      await sending.close();
      await lease.release({ clean: true });
      await store.close();
      restoreTimers();
    };
  });

  async function send(topic: string, given: Partial<CheckedMessage> = {}): Promise<AnyReceipt> {
    const message = {
      delivery: Delivery.AT_LEAST_ONCE,
      payload: new Uint8Array([1]),
      headers: undefined,
      key: undefined,
      ...given,
    } as const;
    return await (await sending.sendTo(topic, message)).promise;
  }

  describe("forgets links", () => {
    it("of listeners that have gone, once nobody has sent to them from one look to the next", async () => {
      for (let n = 1; n <= 20; n++) {
        await world.list(`books${n}`, `books${n}-1`);
        expect(await send(`books${n}`)).toEqual({ outcome: "stored", peer: `books${n}-1` });
      }
      await world.query("DELETE FROM hawser_peer_data.listeners");
      await sending.refresh();
      expect(sending.links.size).toBe(20);
      expect(await send("books7")).toEqual({ outcome: "stored", peer: "books7-1" });
      await sending.refresh();
      expect(sending.links.size).toBe(1);
      await sending.refresh();
      expect(sending.links.size).toBe(0);
    });

    it("and opens one again for the next message to whom it has met", async () => {
      await world.list("books", "books-1");
      await send("books");
      await world.query("DELETE FROM hawser_peer_data.listeners");
      await sending.refresh();
      await sending.refresh();
      expect(sending.links.size).toBe(0);
      expect(await send("books")).toEqual({ outcome: "stored", peer: "books-1" });
      expect(await world.query("SELECT number FROM hawser_peer_data.stored_messages ORDER BY 1")).toEqual([
        { number: 1 },
        { number: 2 },
      ]);
    });

    it("but not of a listener that the directory has, nor where messages wait", async () => {
      await world.list("books", "books-1");
      await world.list("toys", "toys-1");
      await send("books");
      await send("toys");
      await world.query("DELETE FROM hawser_peer_data.listeners WHERE topic = 'toys'");
      await sending.refresh();
      sending.links.setMayStore(false);
      const waits = send("toys");
      await eventually("the message waits", () => (sending.links.get("toys-1")?.isIdle() ?? true) === false);
      await sending.refresh();
      await sending.refresh();
      expect(sending.links.size).toBe(2);
      sending.links.setMayStore(true);
      expect(await waits).toEqual({ outcome: "stored", peer: "toys-1" });
      await sending.refresh();
      expect(sending.links.size).toBe(1);
    });
  });

  it("stores what waited for a move to another database under the keys that its topics have there", async () => {
    await world.list("books", "books-1");
    await sending.topics.refresh("books");
    sending.links.setMayStore(false);
    const waits = send("books");
    await eventually(
      "the message waits",
      () => [...(sending.links.get("books-1")?.waitingTopics() ?? [])].length === 1,
    );
    sending.links.restartNumbering(epoch + 1);
    const [{ id }] = (await world.query<{ id: number }>(
      "UPDATE hawser_peer_data.topics SET id = id + 1000 WHERE topic = 'books' RETURNING id",
    )) as [{ id: number }];
    await sending.rekey();
    sending.links.setMayStore(true);
    expect(await waits).toEqual({ outcome: "stored", peer: "books-1" });
    const rows = await world.query<{ topic_id: number }>("SELECT topic_id FROM hawser_peer_data.stored_messages");
    expect(rows).toEqual([{ topic_id: id }]);
  });

  it("writes no route once it is closed", async () => {
    await world.list("books", "books-1");
    const reading = sending.topics.refresh("books");
    await sending.close();
    await world.query("DELETE FROM hawser_peer_data.routes");
    await reading;
    expect(await world.query("SELECT listener_name FROM hawser_peer_data.routes")).toEqual([]);
  });

  describe("a sender that can reach no listener and has used none before", () => {
    async function backlog(listener: string, rows: number): Promise<void> {
      const channelId = await store.openChannel({ name: "other-1", sourceTopic: "other" }, listener);
      await world.query(
        `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number)
         SELECT $1, 'x', 1, n FROM generate_series(1, $2::integer) AS n`,
        [channelId, rows],
      );
    }

    /** Reads the topic and waits until every listener is known to be down. */
    async function findAllDown(topic: string, listeners: readonly string[]): Promise<void> {
      await sending.topics.refresh(topic);
      await eventually("all are down", () => listeners.every((name) => sending.links.get(name)?.isDown === true));
    }

    it("takes the durable listener with the least backlog, and stays with it", async () => {
      await world.list("books", "books-1");
      await world.list("books", "books-2", { addr: "127.0.0.1:2", durable: true });
      await world.list("books", "books-3", { addr: "127.0.0.1:3", durable: true });
      await backlog("books-2", 5);
      await backlog("books-3", 2);
      await findAllDown("books", ["books-1", "books-2", "books-3"]);
      for (let n = 0; n < 5; n++) expect(await send("books")).toEqual({ outcome: "stored", peer: "books-3" });
    });

    it("does not count what a durable listener has handled already", async () => {
      await world.list("books", "books-1", { addr: "127.0.0.1:1", durable: true });
      await world.list("books", "books-2", { addr: "127.0.0.1:2", durable: true });
      await backlog("books-1", 1);
      await backlog("books-2", 3);
      await world.query(
        `INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number)
         SELECT channel_id, 1, 3 FROM hawser_peer_data.channels WHERE listener_name = 'books-2'`,
      );
      await findAllDown("books", ["books-1", "books-2"]);
      expect(await send("books")).toEqual({ outcome: "stored", peer: "books-2" });
    });

    it("takes the first where none is durable", async () => {
      await world.list("books", "books-1");
      await world.list("books", "books-2", { addr: "127.0.0.1:2" });
      await backlog("books-1", 3);
      await findAllDown("books", ["books-1", "books-2"]);
      expect(await send("books")).toEqual({ outcome: "stored", peer: "books-1" });
    });
  });

  describe("a group without a member that has room", () => {
    const inQueue: AnyReceipt = { outcome: "stored", peer: "" };

    beforeEach(async () => {
      await world.query(
        "INSERT INTO hawser_peer_data.peers (name, epoch, group_name) VALUES ('books-1', 1, 'default')",
      );
      await world.list("books", "books-1");
      await sending.topics.refresh("books");
    });

    const enqueued = (): Promise<Record<string, unknown>[]> =>
      world.query(
        `SELECT topic, recipient, origin, key, to_all, convert_from(payload, 'UTF8') AS text, headers, xmin::text::integer AS writer
           FROM hawser_data.queue ORDER BY id`,
      );
    const stored = async (): Promise<number> => {
      const [row] = await world.query<{ sum: number }>(
        "SELECT coalesce(sum(messages), 0)::integer AS sum FROM hawser_peer_data.stored_messages",
      );
      return row!.sum;
    };

    /** Keeps every write of the queue waiting until `letGo`. */
    async function lockQueue(): Promise<{
      readonly letGo: () => Promise<unknown>;
      readonly waits: () => Promise<number>;
    }> {
      await world.query("BEGIN");
      await world.query("LOCK TABLE hawser_data.queue IN SHARE MODE");
      let pid = 0;
      const waits = async (): Promise<number> => {
        await eventually("a write waits", async () => {
          const waiting = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                              AND query LIKE '%enqueue_peer%'`;
          const [row] = await rowsOf(world.url, waiting);
          pid = Number(row?.["pid"] ?? 0);
          return pid !== 0;
        });
        return pid;
      };
      return { letGo: () => world.query("COMMIT"), waits };
    }

    it("has its messages enqueued, those of one turn by one statement, for any listener of the topic", async () => {
      const texts = Array.from({ length: 50 }, (_, n) => `${n}`);
      const sent = await Promise.all(
        texts.map((text) =>
          send("books", {
            payload: Buffer.from(text),
            headers: [
              ["message-id", `id ${text}`.replace(" ", "-")],
              ["x", "1"],
              ["x", text],
              ["__proto__", "ü"],
            ],
          }),
        ),
      );
      expect(sent).toEqual(texts.map(() => inQueue));
      const rows = await enqueued();
      expect(new Set(rows.map(({ writer }) => writer)).size).toBe(1);
      const byText = new Map(rows.map((row) => [row["text"], row]));
      expect(byText.size).toBe(50);
      for (const text of texts) {
        const { headers, ...row } = byText.get(text)!;
        expect(row).toMatchObject({ topic: "books", recipient: "", origin: "shop-1:shop", key: null, to_all: false });
        expect((headers as string[][]).sort()).toEqual(
          [
            ["__proto__", "ü"],
            ["message-id", `id-${text}`],
            ["x", "1"],
            ["x", text],
          ].sort(),
        );
      }
      expect(counters.sentTo("books").sends.stored).toBe(50);
      expect(await stored()).toBe(0);
    });

    it("has plain messages enqueued in their order, and those with a key stored for a member", async () => {
      const sent = ["a", "b", "c"].map((text) => send("books", { payload: Buffer.from(text) }));
      const keyed = send("books", { key: "k", headers: [["message-key", "k"]] });
      expect(await Promise.all(sent)).toEqual([inQueue, inQueue, inQueue]);
      expect(await keyed).toEqual({ outcome: "stored", peer: "books-1" });
      expect((await enqueued()).map(({ text, headers }) => [text, headers])).toEqual([
        ["a", null],
        ["b", null],
        ["c", null],
      ]);
      expect(await stored()).toBe(1);
    });

    it("takes no more messages than its limits permit, and as many as fit for one statement", async () => {
      Object.assign(settings, { maxSendQueueMessages: 5, insertRows: 2, insertBytes: 1_000 });
      const sent = Array.from({ length: 5 }, () => send("books"));
      const error = await failure("busy", send("books"));
      expect(error.message).toMatch(/^no member of "books" has room, and 5 messages already wait/);
      await failure("busy", send("books"));
      expect(statuses.filter(({ kind }) => kind === "sender_busy")).toMatchObject([{ topic: "books", peer: "" }]);
      await Promise.all(sent);
      expect(new Set((await enqueued()).map(({ writer }) => writer)).size).toBe(3);

      Object.assign(settings, { maxSendQueueMessages: 100, maxSendQueueBytes: 10_000 });
      const long = Buffer.alloc(6_000, "x");
      const fits = [send("books", { payload: long })];
      await failure("busy", send("books", { payload: long }));
      fits.push(send("books", { payload: Buffer.alloc(4_000, "x") }));
      expect(await Promise.all(fits)).toEqual([inQueue, inQueue]);
      expect(new Set((await enqueued()).map(({ writer }) => writer)).size).toBe(5);
      expect(await failure("invalid_argument", send("books", { payload: new Uint8Array(70_000_000) }))).toMatchObject({
        message: expect.stringContaining("70000000 bytes"),
      });
    });

    it("has what the queue refuses stored for a member", async () => {
      const refused = send("books", { headers: [["message-origin", "somebody"]] });
      const beside = send("books");
      const toMember = { outcome: "stored", peer: "books-1" };
      expect(await Promise.all([refused, beside])).toEqual([toMember, toMember]);
      expect(statuses.filter(({ kind }) => kind === "sender_store_error")).toMatchObject([
        { topic: "books", peer: "", message: expect.stringContaining("could not enqueue 2 messages") },
      ]);
      expect(await enqueued()).toEqual([]);
      expect(await stored()).toBe(2);
    });

    it("does not repeat a statement that may have been committed", async () => {
      const queue = await lockQueue();
      const sent = failure("store_failed", send("books"));
      const pid = await queue.waits();
      const behind = send("books");
      await world.query("SELECT pg_terminate_backend($1, 10000)", [pid]);
      expect(await sent).toMatchObject({ outcome: "unknown" });
      expect(await behind).toEqual({ outcome: "stored", peer: "books-1" });
      await queue.letGo();
      expect(await enqueued()).toEqual([]);
      expect(counters.sentTo("books").sends).toMatchObject({ unknown: 1, stored: 1, failed: 0 });
    });

    it("waits for Postgres as long as a send may take; then members get its messages", async () => {
      Object.assign(settings, { sendTimeoutMs: 300 });
      const queue = await lockQueue();
      const sent = failure("store_failed", send("books"));
      await queue.waits();
      const behind = send("books");
      expect(await sent).toMatchObject({ outcome: "unknown" });
      expect(await behind).toEqual({ outcome: "stored", peer: "books-1" });
      expect(await send("books")).toEqual({ outcome: "stored", peer: "books-1" });
      await queue.letGo();
      await eventually("the first one is enqueued", async () => (await enqueued()).length === 1);
      await eventually("the queue is used again", async () => (await send("books")).peer === "");
    });

    it("has its messages enqueued by a stop", async () => {
      const queue = await lockQueue();
      const sent = [send("books")];
      await queue.waits();
      sent.push(send("books"), send("books"));
      const stopped = sending.stop();
      await queue.letGo();
      await stopped;
      expect(await Promise.all(sent)).toEqual([inQueue, inQueue, inQueue]);
    });

    it.each([
      ["name_lost", "name_lost unknown", () => sending.fence()],
      ["not_running", "store_failed unknown", () => void sending.close()],
    ])("rejects what waits with %s once nothing can be sent", async (code, unknown, end) => {
      const queue = await lockQueue();
      const sent = [send("books")];
      await queue.waits();
      sent.push(send("books"));
      const results = Promise.allSettled(sent);
      end();
      const reasons = (await results).map((result) => result.status === "rejected" && result.reason);
      expect(reasons.map((reason) => `${reason.code} ${reason.outcome}`)).toEqual([unknown, `${code} undefined`]);
      await queue.letGo();
    });
  });
});
