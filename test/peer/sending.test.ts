import { beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import type { AnyReceipt } from "../../src/jobs-and-peers/handlers/message.js";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { StatusReporter } from "../../src/jobs-and-peers/handlers/status.js";
import { type PeerContext, SecretCache } from "../../src/jobs-and-peers/peer/core/context.js";
import { checkOptions } from "../../src/jobs-and-peers/peer/core/peer-options.js";
import { limitsOf } from "../../src/jobs-and-peers/peer/running-peer.js";
import { Sending } from "../../src/jobs-and-peers/peer/sending/sending.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";
import { PeerCounters } from "../../src/jobs-and-peers/worker/counters.js";
import { eventually } from "../support/eventually.js";
import { withoutTimersAbove } from "../support/timers.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

describe("the sending side of a peer", () => {
  let store: Store;
  let sending: Sending;
  let epoch: number;

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
    const context: PeerContext = {
      sender: { name: "shop-1", sourceTopic: "shop" },
      settings: limitsOf(checked.settings, checked.tuning),
      membership: checked.handling,
      store,
      workerName: "shop-1",
      idleBeatMs: undefined,
      lease,
      secrets,
      status: new StatusReporter(),
      counters: new PeerCounters(),
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

  async function send(topic: string): Promise<AnyReceipt> {
    const message = {
      delivery: Delivery.AT_LEAST_ONCE,
      payload: new Uint8Array([1]),
      headers: undefined,
      key: undefined,
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
      const { channelId } = await store.openChannel({ name: "other-1", sourceTopic: "other" }, listener);
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
});
