/**
 * docs/store-protocol.md says all that a peer may call, and a peer with no more rights than `hawser_peer` can do it.
 */
import { readFileSync } from "node:fs";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { migrations } from "../../src/store/index.js";
import { messageChannel as ownMessageChannel } from "../../src/store/notifications.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { ForeignPeer } from "./peer/foreign-peer.js";
import { NodeWire } from "./peer/node-wire.js";
import { statement, statements } from "./peer/statements.js";
import { messageChannel } from "./peer/store.js";

const page = readFileSync(new URL("../../docs/store-protocol.md", import.meta.url), "utf8");
const peerSources = ["store.ts", "statements.ts"].map((file) =>
  readFileSync(new URL(`./peer/${file}`, import.meta.url), "utf8"),
);

/** Statements that the foreign peer has no use for; they are run below. */
const runHere = ["keep-name", "server", "fence", "count-attempt"];

async function withRole<T>(world: PeerWorld, work: (databaseUrl: string) => Promise<T>): Promise<T> {
  const role = `hawser_test_foreign_${process.pid}`;
  await onServer(world.url, `CREATE ROLE ${role} LOGIN PASSWORD 'test' IN ROLE hawser_peer`);
  try {
    const url = new URL(world.url);
    url.username = role;
    url.password = "test";
    return await work(url.href);
  } finally {
    await onServer(world.url, `DROP ROLE ${role}`);
  }
}

describe("docs/store-protocol.md", () => {
  it("has no statement that nobody runs", () => {
    const unused = [...statements.keys()].filter(
      (name) => !runHere.includes(name) && !peerSources.some((source) => source.includes(`"${name}"`)),
    );
    expect(unused).toEqual([]);
    expect(statements.size).toBeGreaterThanOrEqual(27);
  });

  it("is of the schema's last step", () => {
    expect(page).toContain(`the schema with migration ${migrations.at(-1)?.id} as its last`);
  });

  it("names constants that exist", () => {
    const named = [...page.matchAll(/`(\w+(?:Ms|Rows|Bytes))`/g)].map(([, name]) => name!);
    const known = [...Object.keys(storeConstants), "ackTimeoutMs"];
    expect(named.filter((name) => !known.includes(name))).toEqual([]);
  });

  it("names a listener's notification channel as the peers do", () => {
    for (const name of ["orders-1", "請求書", "n".repeat(255)]) {
      expect(messageChannel(name)).toBe(ownMessageChannel(name));
    }
  });

  it("asks for no more rights than a peer has", async () => {
    await using world = await peerWorld();
    await using wire = new NodeWire();
    const orders = await world.started("orders-1");
    await withRole(world, async (databaseUrl) => {
      const guest = await ForeignPeer.start({ name: "guest-1", topic: "guest", databaseUrl, wire });
      const { sender, topicId } = await guest.channelTo("orders");
      expect(await sender.send(topicId, "one")).toBe("delivered");
      await eventually("a message comes back", async () => (await orders.send("guest", "two")).outcome === "delivered");
      await orders.stop();
      await eventually("the listener is gone", async () => sender.goodbye !== undefined);
      expect(await sender.send(topicId, "three")).toBe("stored");
      const session = new pg.Client({ connectionString: databaseUrl });
      await session.connect();
      try {
        const { rows: server } = await session.query(statement("server"));
        expect(server).toEqual([{ server: expect.stringMatching(/^\d+:[0-9A-F]{8}$/) }]);
        // Another session, while that of the peer is alive.
        const { rows: kept } = await session.query(statement("keep-name"), ["guest-1", guest.store.epoch, null, 17]);
        expect(kept).toEqual([{ epoch: String(guest.store.epoch), owned: true, in_use: true }]);
        const unsubscribed = await session.query(statement("leave-directory"), [
          "guest-1",
          guest.store.epoch,
          false,
          false,
          ["guest"],
        ]);
        expect(unsubscribed.rows).toEqual([{ held: true }]);
        expect(await guest.store.listenersOf("guest")).toEqual([]);
        await session.query("BEGIN ISOLATION LEVEL READ COMMITTED");
        const { rows: fence } = await session.query(statement("fence"), ["guest-1", guest.store.epoch]);
        expect(fence).toEqual([{ held: true }]);
        await session.query("COMMIT");
        const { channel_id } = await guest.store.openChannel("guest", "guest-1");
        for (const attempts of [1, 2]) {
          const counted = await session.query(statement("count-attempt"), [
            "guest-1",
            guest.store.epoch,
            channel_id,
            1,
          ]);
          expect(counted.rows).toEqual([{ held: true, attempts }]);
        }
      } finally {
        await session.end();
      }
      await guest.stop();
    });
  });
});
