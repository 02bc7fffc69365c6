import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { listenersOf, textMessages, type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";

describe("stored messages that are released", () => {
  let w: World;
  let sender: Lease;
  let lost: Lease;
  let names = 0;
  let from: string;
  let to: string;
  let channel: number;
  let topicId: number;

  beforeAll(async () => {
    w = await world();
    sender = await w.take("sender");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    names += 1;
    from = `lost-${names}`;
    to = `heir-${names}`;
    lost = await w.take(from);
    channel = await w.channelOf({ name: "sender", sourceTopic: "source" }, from);
    topicId = await w.store.idOfTopic("topic");
    await store(1, "1", "2", "3");
    await w.store.commitCursors(lost, [{ channelId: channel, epoch: sender.epoch, number: 1 }]);
  });

  const store = (first: number, ...texts: string[]) =>
    w.store.storeMessages(
      sender,
      channel,
      first,
      textMessages(...texts).map((message) => ({ ...message, topicId })),
    );
  const free = () => lost.release({ clean: false });
  const queued = () =>
    rowsOf(
      w.url,
      `SELECT recipient, key, message_id, encode(payload, 'escape') AS payload FROM hawser_data.queue WHERE channel_id = ${channel} ORDER BY rank`,
    );
  const row = (number: number, recipient = "", payload = `${number}`) => ({
    ...{ recipient, key: `${channel}:`, payload },
    message_id: `sender:source:${from}/${sender.epoch}/${number}`,
  });

  it("are rows of the queue for any listener of the topic, in their order, and the cursor passes them", async () => {
    await free();
    expect(await w.store.reassign({ from })).toEqual([
      { channelId: channel, channelName: `sender:source:${from}`, stored: 2 },
    ]);
    expect(await queued()).toEqual([row(2), row(3)]);
    expect(await w.store.channel(channel)).toMatchObject({ cursor: { number: 3 }, hasRows: true });
    expect(await w.store.channelsWithMessages(from)).toEqual([]);
    // Once more, as after a lost answer.
    expect(await w.store.reassign({ from })).toEqual([]);
    expect(await queued()).toHaveLength(2);
  });

  it("are for one listener, if it is named", async () => {
    await free();
    await w.store.reassign({ from, to });
    expect(await queued()).toEqual([row(2, `@${to}`), row(3, `@${to}`)]);
    const [record] = await rowsOf(
      w.url,
      `SELECT details FROM hawser_data.audit_records WHERE object = '${from}' ORDER BY id DESC LIMIT 1`,
    );
    expect(record).toMatchObject({ details: { to, force: false } });
  });

  it("stay behind what waits of their lane", async () => {
    await w.operator.query(
      `INSERT INTO hawser_data.queue (topic, recipient, rank, id, key, origin, payload, channel_id)
       SELECT 'topic', '@' || $1, n.id, n.id, $2 || ':', 'sender:source', 'x', $2::integer FROM nextval('hawser_data.outbox_id_seq') AS n (id)`,
      [from, channel],
    );
    await w.operator.query(
      `UPDATE hawser_peer_data.cursors AS c SET has_rows = true FROM hawser.lock_cursors(ARRAY[${channel}]) AS l WHERE c.channel_id = l.channel_id`,
    );
    await free();
    await w.store.reassign({ from });
    expect((await queued()).slice(1)).toEqual([row(2, `@${from}`), row(3, `@${from}`)]);
  });

  it("are uncompressed, and what cannot be is a dead letter", async () => {
    const payload = gzipSync("a rope, a rope, a rope");
    await w.store.storeMessages(sender, channel, 4, [
      { topicId, payload, codec: 1 },
      { topicId, payload: payload.subarray(0, 12), codec: 1 },
    ]);
    await free();
    expect(await w.store.reassign({ from })).toMatchObject([{ stored: 4 }]);
    expect((await queued()).slice(2)).toEqual([row(4, "", "a rope, a rope, a rope")]);
    expect(
      await rowsOf(
        w.url,
        `SELECT origin, source, message_id FROM hawser_data.dead_letters WHERE channel_id = ${channel}`,
      ),
    ).toEqual([{ origin: "queue", source: "", message_id: `sender:source:${from}/${sender.epoch}/5` }]);
  });

  it("are those of the named channels alone, as far as they are the listener's", async () => {
    const foreign = await w.channelOf({ name: "sender", sourceTopic: "source" }, `other-${names}`);
    const other = await w.channelOf({ name: "sender", sourceTopic: "other" }, from);
    for (const channelId of [foreign, other])
      await w.store.storeMessages(sender, channelId, 1, [{ topicId, payload: Buffer.from("o") }]);
    await free();
    expect(await w.store.reassign({ from, channelIds: [other, foreign] })).toMatchObject([{ channelId: other }]);
    expect(await queued()).toEqual([]);
    expect(await w.store.reassign({ from, channelIds: [] })).toEqual([]);
  });

  it("are not released while their listener runs, unless it is forced to end", async () => {
    const refused = expect.objectContaining({ code: "name_in_use", message: expect.stringContaining("is running") });
    await expect(w.store.reassign({ from, to })).rejects.toEqual(refused);
    expect(await queued()).toEqual([]);
    await w.store.reassign({ from, to, force: true });
    expect(await queued()).toHaveLength(2);
    const late = [{ channelId: channel, epoch: sender.epoch, number: 2 }];
    expect(await w.store.commitCursors(lost, late)).toBe("fenced");
  });

  it("wait for a running commit of their listener, whose cursor counts", async () => {
    const writer = await w.connect();
    await writer.query("BEGIN");
    await writer.query("SELECT FROM hawser.commit_cursors($1, $2, $3, $4, $5)", [
      ...[from, lost.epoch, [channel], [sender.epoch], [2]],
    ]);
    const releasing = w.store.reassign({ from, force: true });
    await eventually("it waits", async () => {
      const found = await rowsOf(w.url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
      return found.length > 0;
    });
    await writer.query("COMMIT");
    await releasing;
    expect(await queued()).toEqual([row(3)]);
  });

  it("are released once by two who do it at the same time", async () => {
    await free();
    await Promise.all([w.store.reassign({ from, to }), w.store.reassign({ from, to }), w.store.reassign({ from })]);
    expect((await queued()).map(({ payload }) => payload)).toEqual(["2", "3"]);
  });

  it("are followed by what a sender stores later, when that is released in turn", async () => {
    await free();
    await w.store.reassign({ from });
    await store(4, "4");
    expect(await queued()).toHaveLength(2);
    await w.store.reassign({ from });
    expect(await queued()).toEqual([row(2), row(3), row(4)]);
  });

  it("end the registration of their listener, but only for good that of a durable one", async () => {
    const registration = { addr: `10.0.0.1:${names}`, maxMessageBytes: 1_000, group: undefined };
    const topics = [{ topic: `t-${names}`, subscribed: false }];
    await w.store.registerListener(lost, { ...registration, durable: true, topics });
    await free();
    await w.store.reassign({ from, channelIds: [channel] });
    expect(await listenersOf(w.store, `t-${names}`)).toHaveLength(1);
    await w.store.reassign({ from });
    expect(await listenersOf(w.store, `t-${names}`)).toEqual([]);
  });

  it("may be those of a name that was never taken", async () => {
    expect(await w.store.reassign({ from: `never-${names}`, to })).toEqual([]);
    expect(await w.store.listenerState(`never-${names}`)).toEqual({ running: false, seen: false, topics: [] });
  });

  it("cannot go from or to a reserved name, to no name, nor to where they are", async () => {
    for (const options of [
      { from: "__#x", to },
      { from, to: "__#x" },
      { from, to: "a:b" },
      { from, to: from },
    ])
      await expect(w.store.reassign(options)).rejects.toMatchObject({ code: "invalid_argument" });
    const direct = w.operator.query(
      "SELECT FROM hawser.release_stored('__#x', false, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    await expect(direct).rejects.toMatchObject({ code: "22023" });
  });

  it("are not released if the cursor is before what was read, as on another server after a failover", async () => {
    await free();
    const message = {
      channel_id: channel,
      epoch: sender.epoch,
      topic_id: topicId,
      lane: "",
      message_id: "m",
      headers: null,
    };
    const left = JSON.stringify([{ ...message, number: 3, attempts: 0, payload_bytes: 1 }]);
    const release = async (after: number) => {
      const text = "SELECT released FROM hawser.release_stored($1, false, false, NULL, $2, $3, $4, $3, 3, $5, 'x')";
      return (await w.operator.query(text, [from, channel, sender.epoch, after, left])).rows[0].released;
    };
    expect([await release(2), await queued()]).toEqual([false, []]);
    expect(await w.store.channel(channel)).toMatchObject({ cursor: { number: 1 } });
    expect([await release(1), (await queued()).length]).toEqual([true, 1]);
    expect(await release(1)).toBe(false);
  });

  it("are refused as a whole if a message breaks a rule, and nothing changes", async () => {
    await free();
    const left = JSON.stringify([
      { channel_id: channel, epoch: sender.epoch, number: 2, topic_id: topicId, lane: "", payload_bytes: 2 },
    ]);
    const direct = w.operator.query(
      "SELECT FROM hawser.release_stored($1, false, false, NULL, $2, $3, 1, $3, 2, $4, $5)",
      [...[from, channel, sender.epoch, left, Buffer.from("x")]],
    );
    await expect(direct).rejects.toMatchObject({ code: "22023", message: expect.stringContaining("do not add up") });
    expect(await queued()).toEqual([]);
    expect(await w.store.channel(channel)).toMatchObject({ cursor: { number: 1 } });
  });
});
