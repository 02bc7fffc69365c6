/**
 * Peers on a schema that is newer than they are, as docs/compatibility.md says. Programs of two versions are
 * programs.slow.test.ts's.
 */
import { describe, expect, it } from "vitest";
import { migrations } from "../../src/jobs-and-peers/migrations/index.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { additions, next, recordLaterStep } from "./later-schema.js";

/** Everything that peers do with the tables, with peers that meet each other for the first time. */
async function exchange(world: PeerWorld, suffix: string): Promise<void> {
  const orders = await world.started(`orders-${suffix}`, { defaults: { retry: { attempts: 1 } } }, async (message) => {
    const text = Buffer.from(message.payload).toString();
    if (text === "poison") throw new Error("never");
    if (text === "answer me") await message.reply("yes");
  });
  const shop = await world.started(`shop${suffix}-1`);
  await eventually("the channel is live", async () => (await shop.send("orders", "hello")).outcome === "delivered");
  await shop.send("orders", "answer me");
  await eventually("the answer is there", () => shop.texts.includes("yes"));
  await shop.send("orders", "poison");
  await shop.recordTopic("news");
  await orders.send("news", "noon");
  await eventually("the news are there", () => shop.texts.includes("noon"));
  await shop.leave("news");
  await orders.stop();
  expect((await shop.send("orders", "while away")).outcome).toBe("stored");
  expect((await shop.pending()).count).toBe(1);
  await orders.record();
  await eventually("what was stored is handled", () => orders.texts.includes("while away"));
  await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
  await orders.stop();
  await shop.stop();
}

describe("a schema that is newer than the program", () => {
  it("is refused at the start, and nothing is left behind; peers that run already are not disturbed", async () => {
    await using world = await peerWorld({ keepsConnections: true });
    const orders = await world.started("orders-1");
    const shop = await world.started("shop-1");
    await recordLaterStep(world);
    expect((await shop.send("orders", "one")).outcome).toMatch(/delivered|stored/);
    await eventually("it arrives", () => orders.texts.includes("one"));
    await shop.stop();
    await expect(world.started("late-1")).rejects.toMatchObject({
      code: "schema_too_new",
      message: expect.stringContaining(
        `the database has migration ${next} (a later step), and this version knows only ${migrations.length}; upgrade the program`,
      ),
    });
    expect(await world.query("SELECT name FROM hawser_peer_data.peers WHERE name = 'late-1'")).toEqual([]);
    expect(await world.query("SELECT listener_name FROM hawser_peer_data.listeners")).toEqual([
      { listener_name: "orders-1" },
    ]);
  });
});

describe("columns that a program does not know", () => {
  it("are left to their defaults, whatever a peer does", async () => {
    await using world = await peerWorld({ keepsConnections: true });
    await exchange(world, "1");
    for (const addition of additions) await world.query(addition);
    await exchange(world, "2");
    const [added] = await world.query<{ added: number }>(
      `SELECT count(*) FILTER (WHERE added_later <> 7) AS added FROM hawser_peer_data.routes`,
    );
    expect(added).toEqual({ added: 0 });
    expect(await world.query("SELECT error_code FROM hawser_data.dead_letters")).toHaveLength(2);
  });

  it("do not keep an operator's short insert from working", async () => {
    await using world = await peerWorld({ keepsConnections: true });
    for (const addition of additions) await world.query(addition);
    const orders = await world.started("orders-1");
    await orders.stop();
    await orders.record();
    await world.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('rush', $1, 'orders-1')",
      [orders.localAddress],
    );
    const shop = await world.started("shop-1");
    await eventually("it is reached", async () => (await shop.send("orders", "one")).outcome === "delivered");
    expect((await shop.listenersOf("rush")).map(({ name }) => name)).toEqual(["orders-1"]);
  });
});
