import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { listenersOf, terminateHolder, textMessages, type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";

const start = { epoch: 0, number: 0 };

describe("channels that are handed over", () => {
  let w: World;
  let sender: Lease;
  let lost: Lease;
  let names = 0;
  let from: string;
  let to: string;
  let channel: number;

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
    await w.store.storeMessages(sender, channel, 1, textMessages("1", "2", "3"));
    await w.store.commitCursors(lost, [{ channelId: channel, epoch: sender.epoch, number: 1 }]);
  });

  const ownerOf = async (key: number) => (await w.store.channel(key))?.owner;
  const free = () => lost.release({ clean: false });

  it("keep id, name, cursor and stored messages, and have a new owner", async () => {
    const before = await w.store.channel(channel);
    await free();
    const handed = await w.store.reassign({ from, to });
    expect(handed).toEqual([{ channelId: channel, channelName: `sender:source:${from}`, stored: 2 }]);
    expect(await w.store.channel(channel)).toEqual({ ...before, owner: to });
    const { rows } = await w.store.drain(channel, before!.cursor);
    expect(rows.map(({ payload }) => Buffer.from(payload).toString())).toEqual(["2", "3"]);
    expect(await w.store.channelsOwnedBy(from)).toEqual([]);
    expect(await w.store.channelsWithMessages(to)).toEqual([channel]);
    // A sender finds the same key under the old name, and the new owner beside it.
    const found = await w.store.openChannel({ name: "sender", sourceTopic: "source" }, from);
    expect(found).toEqual({ channelId: channel, owner: to });
  });

  describe("and given back", () => {
    const registration = (topics: readonly string[]) => ({
      addr: `10.0.0.1:${names}`,
      maxMessageBytes: 1000,
      durable: false,
      group: "workers",
      topics: topics.map((topic) => ({ topic, subscribed: false })),
    });

    /** The listener has lost its channel and is started again, as a member of a group that serves these topics. */
    const returned = async (topics: readonly string[], { isMember = true } = {}) => {
      await free();
      await w.store.reassign({ from, to });
      const heir = await w.take(to);
      const back = await w.take(from);
      await w.store.registerListener(back, { ...registration(topics), ...(!isMember && { group: undefined }) });
      return { heir, back };
    };

    const giveBack = (heir: Lease, keys: number[]) =>
      w.store.giveBack(heir, new Map(keys.map((key) => [key, undefined])));

    it("return to the listener that they were made for, and continue at the cursor", async () => {
      const { heir, back } = await returned(["topic"]);
      await w.operator.query("UPDATE hawser_peer_data.stored_messages SET topic_id = $1", [
        await w.store.idOfTopic("topic"),
      ]);
      expect(await w.store.channelsToGiveBack(to)).toEqual([channel]);
      expect(await w.store.commitCursors(heir, [{ channelId: channel, epoch: sender.epoch, number: 2 }])).toEqual({
        committed: [channel],
        notOwned: [],
      });
      expect(await giveBack(heir, [channel])).toEqual([channel]);
      expect(await w.store.channel(channel)).toMatchObject({ owner: from, cursor: { number: 2 } });
      // Once more, as after a lost answer, and late writes of the member that had it.
      expect(await giveBack(heir, [channel])).toEqual([]);
      const commit = [{ channelId: channel, epoch: sender.epoch, number: 3 }];
      expect(await w.store.commitCursors(heir, commit)).toEqual({ committed: [], notOwned: [channel] });
      expect(await w.store.commitCursors(back, commit)).toEqual({ committed: [channel], notOwned: [] });
      expect(await w.store.channelsToGiveBack(to)).toEqual([]);
    });

    it("return together with the retries of their dead letters", async () => {
      const { heir } = await returned(["topic"]);
      await w.operator.query(
        "INSERT INTO hawser_peer_data.channels (channel_name, channel_id, owner) VALUES ($1, $2, $3)",
        [`sender:source:__#retry#${channel}`, channel + 1_000_000, to],
      );
      await w.operator.query("UPDATE hawser_peer_data.stored_messages SET topic_id = $1", [
        await w.store.idOfTopic("topic"),
      ]);
      expect(await w.store.channelsToGiveBack(to)).toEqual([channel, channel + 1_000_000]);
      expect(await giveBack(heir, [channel, channel + 1_000_000])).toEqual([channel, channel + 1_000_000]);
      expect(await ownerOf(channel + 1_000_000)).toBe(from);
    });

    it("stay while their listener does not serve a topic of the stored messages", async () => {
      await w.operator.query("UPDATE hawser_peer_data.stored_messages SET topic_id = $1", [
        await w.store.idOfTopic("another"),
      ]);
      await returned(["topic"]);
      expect(await w.store.channelsToGiveBack(to)).toEqual([]);
    });

    it("stay if their listener has no group, was not started again, or does not run", async () => {
      const { heir, back } = await returned(["topic"], { isMember: false });
      expect(await w.store.channelsToGiveBack(to)).toEqual([]);
      expect(await giveBack(heir, [channel])).toEqual([]);
      await w.store.registerListener(back, registration(["topic"]));
      // Its rows in the directory are those of a start before.
      await w.operator.query("UPDATE hawser_peer_data.peers SET epoch = epoch + 1 WHERE name = $1", [from]);
      expect(await giveBack(heir, [channel])).toEqual([]);
      await w.operator.query("UPDATE hawser_peer_data.peers SET epoch = epoch - 1 WHERE name = $1", [from]);
      await w.operator.query("UPDATE hawser_peer_data.stored_messages SET topic_id = $1", [
        await w.store.idOfTopic("topic"),
      ]);
      expect(await w.store.channelsToGiveBack(to)).toEqual([channel]);
      await back.release({ clean: true });
      expect(await w.store.channelsToGiveBack(to)).toEqual([]);
    });

    it("stay if another process took the name of the member that has them", async () => {
      const { heir } = await returned(["topic"]);
      await w.operator.query("SELECT FROM hawser.end_ownership($1, true)", [to]);
      await expect(giveBack(heir, [channel])).rejects.toMatchObject({ code: "fenced" });
      expect(await ownerOf(channel)).toBe(to);
    });
  });

  describe("and needed by a topic that their new owner does not serve", () => {
    const newOwner = async (owner = to) => w.store.newOwnerOf(owner, channel, await w.store.idOfTopic("topic"));
    const register = (lease: Lease, port: number, topics: readonly string[]) => {
      const registration = { addr: `10.0.${names}.1:${port}`, maxMessageBytes: 1_000, durable: false };
      const served = topics.map((topic) => ({ topic, subscribed: false }));
      return w.store.registerListener(lease, { ...registration, topics: served });
    };
    const meet = () =>
      w.operator.query(
        `INSERT INTO hawser_peer_data.routes (sender_key, listener_topic, listener_name, addr, max_message_bytes)
         VALUES ('sender:source', 'topic', $1, '10.0.0.1:1', 1)`,
        [from],
      );
    beforeEach(() => w.operator.query("DELETE FROM hawser_peer_data.listeners"));

    it("go to a running listener of the topic, preferably the one that they were made for", async () => {
      await free();
      const owner = await w.take(to);
      await w.store.reassign({ from, to, channelIds: [channel] });
      expect(await newOwner()).toEqual({ owned: true, newOwner: undefined });
      await meet();
      expect(await newOwner()).toEqual({ owned: true, newOwner: from });
      const other = await w.take(`a-${names}`);
      await register(other, 1, ["topic"]);
      expect(await newOwner()).toEqual({ owned: true, newOwner: other.name });
      const back = await w.take(from);
      await register(back, 2, ["topic"]);
      expect(await newOwner()).toEqual({ owned: true, newOwner: from });
      // What it serves now counts, not what it served when the sender met it.
      await register(back, 2, ["another"]);
      expect(await newOwner()).toEqual({ owned: true, newOwner: other.name });
      await other.release({ clean: false });
      expect(await newOwner()).toEqual({ owned: true, newOwner: other.name });
      expect(await w.store.giveBack(owner, new Map([[channel, await w.store.idOfTopic("none")]]))).toEqual([]);
      const channels = new Map([[channel, await w.store.idOfTopic("topic")]]);
      expect(await w.store.giveBack(owner, channels)).toEqual([channel]);
      expect(await ownerOf(channel)).toBe(other.name);
      expect(await newOwner()).toEqual({ owned: false, newOwner: undefined });
    });

    it("do not wait for a listener whose channels were all handed over, until it registers again", async () => {
      await free();
      await w.store.reassign({ from, to });
      await meet();
      expect(await newOwner()).toEqual({ owned: true, newOwner: undefined });
      const back = await w.take(from);
      await register(back, 1, ["topic"]);
      expect(await newOwner()).toEqual({ owned: true, newOwner: from });
      await w.store.unregister(back, { keepDurable: false });
      await back.release({ clean: true });
      expect(await newOwner()).toEqual({ owned: true, newOwner: from });
    });

    it("stay with the listener that they were made for", async () => {
      const other = await w.take(`a-${names}`);
      await register(other, 1, ["topic"]);
      expect(await newOwner(from)).toEqual({ owned: true, newOwner: undefined });
    });
  });

  it("accept late messages of their sender, which only the new owner can commit", async () => {
    await free();
    await w.store.reassign({ from, to });
    expect(await w.store.storeMessages(sender, channel, 4, textMessages("4"))).toBe("stored");
    const commit = [{ channelId: channel, epoch: sender.epoch, number: 4 }];
    expect(await w.store.commitCursors(lost, commit)).toBe("fenced");
    const again = await w.take(from);
    expect(await w.store.commitCursors(again, commit)).toEqual({ committed: [], notOwned: [channel] });
    const heir = await w.take(to);
    expect(await w.store.commitCursors(heir, commit)).toEqual({ committed: [channel], notOwned: [] });
    expect(await w.store.backlogOf(channel, start)).toBe(0);
  });

  it("return unchanged", async () => {
    await free();
    const before = await w.operator.query("SELECT * FROM hawser_peer_data.channels WHERE channel_id = $1", [channel]);
    await w.store.reassign({ from, to });
    await w.store.reassign({ from: to, to: from, channelIds: [channel] });
    expect(await ownerOf(channel)).toBe(from);
    const after = await w.operator.query("SELECT * FROM hawser_peer_data.channels WHERE channel_id = $1", [channel]);
    expect(after.rows).toEqual(before.rows);
  });

  it("are exactly the named ones that the old listener owns", async () => {
    const other = await w.channelOf({ name: "sender", sourceTopic: "other" }, from);
    const foreign = await w.channelOf({ name: "sender", sourceTopic: "source" }, "somebody");
    await free();
    const handed = await w.store.reassign({ from, to, channelIds: [other, foreign] });
    expect(handed.map(({ channelId }) => channelId)).toEqual([other]);
    expect(await ownerOf(channel)).toBe(from);
    expect(await ownerOf(foreign)).toBe("somebody");
    expect(await w.store.reassign({ from, to, channelIds: [] })).toEqual([]);
  });

  it("are refused while their listener runs in any process, without a change", async () => {
    const refused = expect.objectContaining({ code: "name_in_use", message: expect.stringContaining(`"${from}"`) });
    await expect(w.store.reassign({ from, to })).rejects.toEqual(refused);
    await using other = await openStore({ databaseUrl: `${w.url}?application_name=other` });
    await expect(other.reassign({ from, to })).rejects.toEqual(refused);
    expect(await ownerOf(channel)).toBe(from);
    expect(await w.store.peerEpoch(from)).toBe(lost.epoch);
    expect(await w.store.listenerState(from)).toMatchObject({ running: true, seen: true });
  });

  slowIt("can be taken by force: later actions of the listener are fenced", async () => {
    await w.store.reassign({ from, to, force: true });
    expect(await ownerOf(channel)).toBe(to);
    expect(await w.store.peerEpoch(from)).toBeGreaterThan(lost.epoch);
    const commit = [{ channelId: channel, epoch: sender.epoch, number: 2 }];
    expect(await w.store.commitCursors(lost, commit)).toBe("fenced");
    // Its session comes back to another epoch.
    await terminateHolder(w.operator, from);
    await eventually("the name is lost, and the session is back", () => lost.state === "lost" && w.store.isUp);
  });

  it("wait for a running commit of the old listener, and have its cursor", async () => {
    await free();
    const [late, taker] = [await w.connect(), await w.connect()];
    const { rows } = await taker.query("SELECT pg_backend_pid() AS pid");
    await late.query("BEGIN");
    const commitSql =
      "SELECT moved FROM hawser.commit_cursors($1, $2, ARRAY[$3::integer], ARRAY[$4::bigint], '{2}', NULL, NULL)";
    await late.query(commitSql, [from, lost.epoch, channel, sender.epoch]);
    const reassigning = taker.query("SELECT stored FROM hawser.reassign_channels($1, $2, false, true, '{}')", [
      from,
      to,
    ]);
    await w.waitsForLock(rows[0].pid);
    await late.query("COMMIT");
    expect((await reassigning).rows).toEqual([{ stored: "1" }]);
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: sender.epoch, number: 2 });
  });

  it("keep out a commit that waited while they were handed over", async () => {
    await free();
    const [late, taker] = [await w.connect(), await w.connect()];
    const { rows } = await late.query("SELECT pg_backend_pid() AS pid");
    await taker.query("BEGIN");
    await taker.query("SELECT FROM hawser.reassign_channels($1, $2, false, true, '{}')", [from, to]);
    const commitSql =
      "SELECT held FROM hawser.commit_cursors($1, $2, ARRAY[$3::integer], ARRAY[$4::bigint], '{2}', NULL, NULL)";
    const committing = late.query(commitSql, [from, lost.epoch, channel, sender.epoch]);
    await w.waitsForLock(rows[0].pid);
    await taker.query("COMMIT");
    expect((await committing).rows).toEqual([{ held: false }]);
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: sender.epoch, number: 1 });
  });

  it("leave no effect of an interrupted transactional handler, and are handled once by the new owner", async () => {
    await w.operator.query("CREATE TABLE IF NOT EXISTS effects (effect text)");
    await w.operator.query("TRUNCATE effects");
    const message = { channelId: channel, epoch: sender.epoch, number: 2 };
    const heir = await w.take(to);
    const effect = (text: string) => async (client: pg.ClientBase) => {
      await client.query("INSERT INTO effects VALUES ($1)", [text]);
    };
    const first = w.store.handleInTransaction(lost, [message], async (client) => {
      await effect("lost")(client);
      await w.store.reassign({ from, to, force: true });
      // Nothing of the first one is in its way.
      expect(await w.store.handleInTransaction(heir, [message], effect("heir"))).toBe("committed");
    });
    expect(await first).toBe("duplicate");
    expect((await w.operator.query("SELECT effect FROM effects")).rows).toEqual([{ effect: "heir" }]);
  });

  it("go to one of two concurrent takers", async () => {
    await free();
    const outcomes = await Promise.all([
      w.store.reassign({ from, to }),
      w.store.reassign({ from, to: `rival-${names}` }),
      w.store.reassign({ from, to: `other-${names}`, channelIds: [channel] }),
    ]);
    expect(outcomes.map(({ length }) => length).sort()).toEqual([0, 0, 1]);
    const winner = [to, `rival-${names}`, `other-${names}`][outcomes.findIndex(({ length }) => length === 1)];
    expect(await ownerOf(channel)).toBe(winner);
  });

  it("pass through two listeners in either order without a loss", async () => {
    await free();
    const third = `third-${names}`;
    await Promise.all([w.store.reassign({ from, to }), w.store.reassign({ from: to, to: third })]);
    expect([to, third]).toContain(await ownerOf(channel));
    expect(await w.store.backlogOf(channel, { epoch: sender.epoch, number: 1 })).toBe(2);
  });

  it("prevent the old listener from starting until they are handed over", async () => {
    await free();
    const taker = await w.connect();
    await taker.query("BEGIN");
    await taker.query("SELECT FROM hawser.reassign_channels($1, $2, false, true, '{}')", [from, to]);
    await expect(w.take(from)).rejects.toMatchObject({ code: "name_in_use" });
    const starting = w.store.takeName(from, { waitMs: 20_000 });
    await taker.query("COMMIT");
    expect((await starting).epoch).toBeGreaterThan(lost.epoch);
    expect(await w.store.channelsOwnedBy(from)).toEqual([]);
  });

  it("may belong to a name that was never taken", async () => {
    const key = await w.channelOf({ name: "sender", sourceTopic: "source" }, `never-${names}`);
    await w.store.storeMessages(sender, key, 1, textMessages("1"));
    const handed = await w.store.reassign({ from: `never-${names}`, to });
    expect(handed).toMatchObject([{ channelId: key, stored: 1 }]);
    // Not seen by this either.
    expect(await w.store.listenerState(`never-${names}`)).toEqual({ running: false, seen: false, topics: [] });
  });

  it("remove their listener from the directory, but keep its durable rows when only some were named", async () => {
    const register = (durable: boolean) =>
      w.store.registerListener(lost, {
        addr: `127.0.0.1:${names}`,
        maxMessageBytes: 1,
        durable,
        topics: [{ topic: `topic ${names}`, subscribed: false }],
      });
    const listed = async () => (await listenersOf(w.store, `topic ${names}`)).map(({ name }) => name);
    await register(true);
    await w.operator.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ($1, '127.0.0.2:1', $2)",
      [`topic ${names}`, from],
    );
    await free();
    await w.store.reassign({ from, to, channelIds: [channel] });
    expect(await listed()).toEqual([from, from]);
    await w.store.reassign({ from, to });
    expect(await listed()).toEqual([]);
  });

  it("are announced to the new owner at once, and to their senders", async () => {
    await free();
    const heard: [string, number][] = [];
    await w.store.listenForMessages(to);
    await w.store.listenForMessages("sender");
    const stop = w.store.on("announced", (key, name) => heard.push([name, key]));
    await w.store.reassign({ from, to });
    await eventually("both have heard of it", () => heard.length === 2);
    stop();
    expect(heard).toEqual([
      [to, channel],
      ["sender", channel],
    ]);
  });

  it.each([
    ["", "must be 1 to 255 bytes", "22023"],
    ["a:b", "must not contain ':'", "22023"],
    ["__#retry#1", "which is reserved", "22023"],
  ])("cannot go to %j", async (name, message, code) => {
    await free();
    await expect(w.store.reassign({ from, to: name })).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(message),
    });
    // And the database refuses it, too.
    const direct = w.operator.query("SELECT FROM hawser.reassign_channels($1, $2, false, true, '{}')", [from, name]);
    await expect(direct).rejects.toMatchObject({ code });
    expect(await ownerOf(channel)).toBe(from);
  });

  it("cannot go from a reserved name, which is no listener that could be away", async () => {
    const reserved = "__#reserved";
    const { rows } = await w.operator.query(
      "INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ($1, 2147480000) RETURNING channel_id AS key",
      [`sender:source:${reserved}`],
    );
    try {
      for (const channelIds of [undefined, [rows[0].key]]) {
        await expect(w.store.reassign({ from: reserved, to, channelIds })).rejects.toMatchObject({
          code: "invalid_argument",
          message: expect.stringContaining(`the old listener "${reserved}" begins with __#, which is reserved`),
        });
      }
      expect(await w.store.absentListeners()).not.toContainEqual(expect.objectContaining({ name: reserved }));
      expect(await ownerOf(rows[0].key)).toBe(reserved);
    } finally {
      await w.operator.query("DELETE FROM hawser_peer_data.channels WHERE channel_id = $1", [rows[0].key]);
    }
  });

  it.each(["p_from", "p_to"])("are not handed over where %s is NULL", async (parameter) => {
    await free();
    const values = parameter === "p_from" ? [null, to] : [from, null];
    const direct = w.operator.query("SELECT FROM hawser.reassign_channels($1, $2, true, true, '{}')", values);
    const message = expect.stringContaining(`the argument ${parameter} is NULL`);
    await expect(direct).rejects.toMatchObject({ code: "22004", message });
    expect(await ownerOf(channel)).toBe(from);
  });

  it("cannot go where they are", async () => {
    await free();
    await expect(w.store.reassign({ from, to: from })).rejects.toMatchObject({ code: "invalid_argument" });
    const direct = w.operator.query("SELECT FROM hawser.reassign_channels($1, $1, false, true, '{}')", [from]);
    await expect(direct).rejects.toMatchObject({ code: "22023" });
  });
});
