/**
 * Forgetting a name: everything of it goes, unless something would be lost with it.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { forgetPeer, withCommandDatabase } from "../../src/operating/operate/index.js";
import { leave } from "../store/support/left-messages.js";
import { textMessages, type World, world } from "../store/support/world.js";

let w: World;
beforeEach(async () => {
  w = await world();
});
afterEach(() => w[Symbol.asyncDispose]());

const forget = (name: string, url = w.url) => withCommandDatabase(url, (database) => forgetPeer(database, name));

/** Every row that has the name in it, by table. */
async function rowsWith(name: string): Promise<Record<string, number>> {
  const { rows } = await w.operator.query(
    `SELECT 'peers' AS of, count(*) FROM hawser_peer_data.peers WHERE name = $1
     UNION ALL SELECT 'owners', count(*) FROM hawser_data.owners WHERE what = 'peer:' || $1
     UNION ALL SELECT 'fences', count(*) FROM hawser_data.fences WHERE what = 'peer:' || $1
     UNION ALL SELECT 'listeners', count(*) FROM hawser_peer_data.listeners WHERE listener_name = $1
     UNION ALL SELECT 'routes', count(*) FROM hawser_peer_data.routes WHERE listener_name = $1 OR sender_key LIKE $1 || ':%'
     UNION ALL SELECT 'channels', count(*) FROM hawser_peer_data.channels WHERE $1 IN (sender_name, listener_name)`,
    [name],
  );
  return Object.fromEntries(rows.filter(({ count }) => count > 0).map(({ of, count }) => [of, Number(count)]));
}

/** A name that was taken and given back. */
async function stopped(lease: Lease): Promise<void> {
  await lease.release({ clean: true });
}

describe("a listener that does not return", () => {
  let shop: Lease;
  let pod: Lease;
  let channel: number;
  const sender = { name: "shop", sourceTopic: "s" };
  const addr = "10.0.0.1:1";

  beforeEach(async () => {
    shop = await w.take("shop");
    pod = await w.take("pod");
    channel = await w.channelOf(sender, "pod");
    await w.store.registerListener(pod, {
      addr,
      maxMessageBytes: 1_000,
      durable: true,
      topics: [{ topic: "t", subscribed: false }],
    });
    await w.store.rememberRoute(sender, "t", { name: "pod", addr, maxMessageBytes: 1_000 } as never);
    await w.store.storeMessages(shop, channel, 1, textMessages("a"));
  });

  const handled = () => w.store.commitCursors(pod, [{ channelId: channel, epoch: shop.epoch, number: 1 }]);

  it("is refused while it runs, and while messages wait for it", async () => {
    await expect(forget("pod")).rejects.toMatchObject({
      code: "name_in_use",
      message: '"pod" is running; stop it first',
    });
    await stopped(pod);
    const before = await rowsWith("pod");
    await expect(forget("pod")).rejects.toMatchObject({
      code: "name_in_use",
      message: expect.stringMatching(
        /^"pod" cannot be forgotten: 1 stored messages .* hand them over with `hawser peers reassign`$/,
      ),
    });
    await stopped(shop);
    await expect(forget("shop")).rejects.toThrow(
      '"shop" cannot be forgotten: 1 of its stored messages wait for "pod"; start these listeners until they have handled them',
    );
    expect(await rowsWith("pod")).toEqual(before);
  });

  it("leaves nothing behind, and may return", async () => {
    await handled();
    const { epoch } = pod;
    await stopped(pod);
    await stopped(shop);
    expect(await forget("pod")).toEqual({ name: "pod", channels: 1, kept: [] });
    expect(await rowsWith("pod")).toEqual({});
    const { rows } = await w.operator.query("SELECT FROM hawser_peer_data.cursors");
    expect(rows).toEqual([]);
    expect((await w.take("pod")).epoch).toBeGreaterThan(epoch);
    await expect(forget("pod-2")).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(forget("__#outbox")).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("keeps the channel of a running sender that knows it, but no route to it", async () => {
    await handled();
    await stopped(pod);
    expect(await forget("pod")).toEqual({ name: "pod", channels: 0, kept: ["shop"] });
    expect(await rowsWith("pod")).toEqual({ channels: 1 });
    // Sent in this moment: it is stored where its channel says, and shown.
    await w.store.storeMessages(shop, channel, 2, textMessages("b"));
    await expect(forget("pod")).rejects.toThrow("1 stored messages");
    const again = await w.take("pod");
    await w.store.commitCursors(again, [{ channelId: channel, epoch: shop.epoch, number: 2 }]);
    await stopped(again);
    await stopped(shop);
    expect(await forget("pod")).toEqual({ name: "pod", channels: 1, kept: [] });
  });

  it("is refused with dead letters, and with messages in the queue that are for it alone", async () => {
    const own = { topic: "t", listener: "pod" };
    await leave(
      w.operator,
      pod,
      channel,
      [{ ...own, errorCode: "e", errorMessage: "m" }, own, { topic: "t" }],
      shop.epoch,
    );
    await stopped(pod);
    await expect(forget("pod")).rejects.toThrow("1 stored messages");
    await w.operator.query("DELETE FROM hawser_data.queue WHERE recipient = '@pod'");
    await expect(forget("pod")).rejects.toThrow("1 dead letters belong to its channels; retry or discard them");
    await w.store.deadLetters.discard({ all: true });
    await stopped(shop);
    expect(await forget("pod")).toMatchObject({ channels: 1, kept: [] });
    expect((await w.operator.query("DELETE FROM hawser_data.queue RETURNING recipient")).rows).toEqual([
      { recipient: "" },
    ]);
  });
});

it("deletes a sender while its listener runs, which commits nothing more for it", async () => {
  const pod = await w.take("pod");
  const orders = await w.take("orders");
  const channel = await w.channelOf({ name: "pod", sourceTopic: "s" }, "orders");
  await w.store.storeMessages(pod, channel, 1, textMessages("a"));
  await stopped(pod);
  const position = { channelId: channel, epoch: pod.epoch, number: 1 };
  await expect(forget("pod")).rejects.toThrow("1 of its stored messages wait");
  await w.store.commitCursors(orders, [position]);
  expect(await forget("pod")).toEqual({ name: "pod", channels: 1, kept: [] });
  expect(await rowsWith("pod")).toEqual({});
  const late = { ...position, number: 2 };
  expect(await w.store.commitCursors(orders, [late])).toMatchObject({ committed: [], notOwned: [channel] });
  expect((await w.operator.query("SELECT FROM hawser_peer_data.cursors")).rows).toEqual([]);
});

it("prevents the name from being taken until it has ended", async () => {
  const pod = await w.take("pod");
  await stopped(pod);
  await w.operator.query("BEGIN");
  expect((await w.operator.query("SELECT refusal FROM hawser.forget_peer('pod')")).rows).toEqual([{ refusal: null }]);
  await expect(w.take("pod")).rejects.toMatchObject({ code: "name_in_use" });
  await w.operator.query("COMMIT");
  expect((await w.take("pod")).epoch).toBeGreaterThan(pod.epoch);
});
