/**
 * Rows of the store that hold many messages: what is stored in however many calls is read as if each had a row.
 */
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { storeFunctions } from "../../generated/ts/rows/peer.js";
import type { Lease, MessageToStore, Position } from "../../src/jobs-and-peers/store/index.js";
import { atDepth } from "../support/depth.js";
import { textMessages, type World, world } from "./support/world.js";

const start: Position = { epoch: 0, number: 0 };
const batchMessages = 1_024;
const batchBytes = 256 * 1024;

describe("batches in the store", () => {
  let w: World;
  let lease: Lease;
  let channel: number;
  let channels = 0;

  beforeAll(async () => {
    w = await world();
    lease = await w.take("sender");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(() => newChannel());

  async function newChannel(): Promise<void> {
    channels += 1;
    channel = await w.channelOf({ name: "sender", sourceTopic: `source ${channels}` }, "listener");
  }

  async function rowsOf(): Promise<{ number: number; messages: number; topic: number; lengths: number[] }[]> {
    const { rows } = await w.operator.query(
      `SELECT number::integer, messages, topic_id AS topic, lengths FROM hawser_peer_data.stored_messages
        WHERE channel_id = $1 ORDER BY number`,
      [channel],
    );
    return rows;
  }

  /** A call of the function, on a connection of the operator's. */
  function call(client: Pick<World["operator"], "query">, firstNumber: number, ...texts: string[]) {
    const payloads = texts.map((text) => Buffer.from(text));
    return storeFunctions(client).storeMessages({
      ...{ name: lease.name, epoch: BigInt(lease.epoch), channelId: channel, firstNumber: BigInt(firstNumber) },
      topicIds: texts.map(() => 1),
      lengths: payloads.map(({ length }) => length),
      codecs: texts.map(() => 0),
      headers: null,
      payloads: Buffer.concat(payloads),
    });
  }

  /** All that is stored after a position, page by page, each message with its number. */
  async function drained(after: Position, limits: { maxRows?: number; maxBytes?: number } = {}) {
    const found = [];
    for (let position = after; ; ) {
      const { rows, remaining } = await w.store.drain(channel, position, limits);
      for (const { position: own, topicId, encoding, headers = [], payload } of rows)
        found.push({ ...own, topicId, codec: encoding === undefined ? 0 : 1, headers, payload: Buffer.from(payload) });
      if (rows.length === 0) return found;
      position = found.at(-1)!;
      // Nothing is said to be behind the last one.
      expect(remaining === 0).toBe((await w.store.drain(channel, position, limits)).rows.length === 0);
    }
  }

  /** The same by the function for peers in other languages. */
  async function drainedByMessage(after: Position, maxRows: number, maxBytes: number) {
    const found = [];
    for (let position = after; ; ) {
      const rows = await storeFunctions(w.operator).drainMessages({
        ...{ channelId: channel, epoch: BigInt(position.epoch), number: BigInt(position.number) },
        ...{ maxRows, maxBytes: BigInt(maxBytes), countRows: 5 },
      });
      expect(rows.length).toBeLessThanOrEqual(maxRows);
      for (const { epoch, number, topicId, codec, headers, payload } of rows) {
        found.push({ epoch: Number(epoch), number: Number(number), topicId, codec, headers: headers ?? [], payload });
      }
      if (rows.length === 0) return found;
      position = found.at(-1)!;
    }
  }

  it("end where topic or codec changes, and at their maximum size", async () => {
    const of = (topicId: number, bytes: number, codec: 0 | 1 = 0): MessageToStore => ({
      ...{ topicId, codec },
      payload: Buffer.alloc(bytes),
    });
    await w.store.storeMessages(lease, channel, 1, [
      ...[of(1, 2), of(1, 0), of(2, 1), of(2, 1, 1), of(2, 3, 1), of(1, 1)],
      ...Array.from({ length: batchMessages + 1 }, () => of(3, 1)),
      ...[of(4, batchBytes), of(4, 1), of(4, batchBytes - 1), of(4, batchBytes + 1), of(4, 5), of(4, 6)],
    ]);
    expect((await rowsOf()).map(({ topic, messages, lengths }) => [topic, messages, lengths.slice(0, 2)])).toEqual([
      ...[
        [1, 2, [2, 0]],
        [2, 1, []],
        [2, 2, [1, 3]],
        [1, 1, []],
      ],
      ...[
        [3, batchMessages, [1, 1]],
        [3, 1, []],
      ],
      ...[
        [4, 1, []],
        [4, 2, [1, batchBytes - 1]],
        [4, 1, []],
        [4, 2, [5, 6]],
      ],
    ]);
  });

  it("are read as they were sent, after any repeated calls, from any position, in pages of any size", async () => {
    const message = fc.record({
      topicId: fc.integer({ min: 1, max: 2 }),
      codec: fc.constantFrom(0 as const, 0 as const, 1 as const),
      payload: fc.uint8Array({ maxLength: 12 }),
      headers: fc.array(fc.tuple(fc.stringMatching(/^[!-9;-~]{1,9}$/), fc.constantFrom("", "ä")), { maxLength: 2 }),
    });
    const history = fc.record({
      messages: fc.array(message, { minLength: 1, maxLength: 40, size: "max" }),
      // Where calls begin and end; each has all from its beginning on, as if nothing of it were known to be stored.
      calls: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }))),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      limits: fc.record({ maxRows: fc.integer({ min: 1, max: 50 }), maxBytes: fc.integer({ min: 1, max: 200 }) }),
    });
    await fc.assert(
      fc.asyncProperty(history, async ({ messages, calls, from, limits }) => {
        await newChannel();
        let stored = 0;
        for (const [beginning, end] of [...calls, [1, 1] as const]) {
          const first = Math.floor(beginning * stored);
          const last = Math.max(first + 1, Math.round(end * messages.length));
          await w.store.storeMessages(lease, channel, first + 1, messages.slice(first, last));
          stored = Math.max(stored, last);
        }
        const after = Math.floor(from * messages.length);
        const expected = messages.map((sent, index) => ({
          ...sent,
          ...{ epoch: lease.epoch, number: index + 1, payload: Buffer.from(sent.payload) },
        }));
        const position = { epoch: lease.epoch, number: after };
        expect(await drained(position, limits)).toEqual(expected.slice(after));
        expect(await drained(start)).toEqual(expected);
        expect(await drainedByMessage(position, limits.maxRows, limits.maxBytes)).toEqual(expected.slice(after));
        expect(await w.store.backlogOf(channel, position)).toBe(messages.length - after);
      }),
      { numRuns: atDepth(300) },
    );
  });

  it("of concurrent calls are read once", async () => {
    const [first, second] = [await w.connect(), await w.connect()];
    await first.query("BEGIN");
    expect(await call(first, 1, "a", "b", "c")).toEqual({ held: true, inserted: 3 });
    // The first one was not answered, and has not ended: the second begins at the same message, and has more.
    expect(await call(second, 1, "a", "b", "c", "d", "e")).toEqual({ held: true, inserted: 5 });
    await first.query("COMMIT");
    expect(await call(second, 2, "b", "c", "d")).toEqual({ held: true, inserted: 0 });
    expect(await rowsOf()).toHaveLength(2);
    const letters = ["a", "b", "c", "d", "e"];
    for (const [after, left] of [
      [0, letters],
      [2, letters.slice(2)],
      [3, letters.slice(3)],
      [4, letters.slice(4)],
    ] as const) {
      const position = { epoch: lease.epoch, number: after };
      expect((await drained(position)).map(({ payload }) => payload.toString())).toEqual(left);
      expect((await drainedByMessage(position, 2, 2)).map(({ payload }) => payload.toString())).toEqual(left);
    }
  });

  it("that are already stored are confirmed by a commit that writes, and so waits for a synchronous standby", async () => {
    await call(w.operator, 1, "a", "b", "c");
    const client = await w.connect();
    const isWriting = async () =>
      (await client.query("SELECT pg_current_xact_id_if_assigned() AS id")).rows[0].id !== null;
    await client.query("BEGIN");
    const before = (await client.query("SELECT pg_current_wal_insert_lsn() AS lsn")).rows[0].lsn;
    expect(await call(client, 1, "a", "b")).toEqual({ held: true, inserted: 0 });
    expect(await isWriting()).toBe(true);
    const { rows } = await client.query("SELECT pg_current_wal_insert_lsn() > $1 AS wrote", [before]);
    expect(rows).toEqual([{ wrote: true }]);
    await client.query("ROLLBACK");
  });

  it("are inserted correctly also when earlier numbers arrive later or were deleted manually", async () => {
    await call(w.operator, 6, "f", "g", "h", "i", "j");
    expect(await call(w.operator, 1, "a", "b", "c", "d", "e", "f", "g")).toMatchObject({ held: true });
    const letters = [..."abcdefghij"];
    expect((await drained(start)).map(({ payload }) => payload.toString())).toEqual(letters);
    expect((await drainedByMessage(start, 3, 100)).map(({ payload }) => payload.toString())).toEqual(letters);
  });

  it("whose first messages the cursor has passed are not written again", async () => {
    const listener = await w.take(`passing ${channels}`);
    channel = await w.channelOf({ name: "sender", sourceTopic: "passing" }, listener.name);
    await call(w.operator, 1, "a", "b");
    await call(w.operator, 3, "c", "d");
    await w.store.commitCursors(listener, [{ channelId: channel, epoch: lease.epoch, number: 2 }]);
    expect(await call(w.operator, 1, "a", "b", "c", "d", "e")).toEqual({ held: true, inserted: 1 });
    expect((await rowsOf()).map(({ number }) => number)).toEqual([4, 5]);
  });

  it("wait for a call with a row of the same last number, and then write nothing", async () => {
    const [first, second] = [await w.connect(), await w.connect()];
    await first.query("BEGIN");
    await call(first, 1, "a", "b");
    const { rows } = await second.query("SELECT pg_backend_pid() AS pid");
    const waiting = call(second, 1, "a", "b");
    await w.waitsForLock(rows[0].pid);
    await first.query("COMMIT");
    expect(await waiting).toEqual({ held: true, inserted: 0 });
    expect(await rowsOf()).toHaveLength(1);
  });

  it("count only the messages after a position within them", async () => {
    const listener = await w.take(`listener ${channels}`);
    channel = await w.channelOf({ name: "sender", sourceTopic: "middle" }, listener.name);
    const k = await w.store.idOfTopic("topic");
    await w.store.storeMessages(
      lease,
      channel,
      1,
      textMessages("a", "b", "c", "d").map((one) => ({ ...one, topicId: k })),
    );
    await w.store.commitCursors(listener, [{ channelId: channel, epoch: lease.epoch, number: 3 }]);
    const sender = { name: "sender", sourceTopic: "middle" };
    expect((await w.store.pending(sender)).count).toBe(1);
    expect((await w.store.pending(sender)).listeners).toMatchObject([{ topic: "topic", count: 1 }]);
    expect(await w.store.backlogsOf([listener.name])).toEqual(new Map([[listener.name, 1]]));
    expect(await w.store.channelsWithMessages(listener.name)).toEqual([channel]);
    await listener.release({ clean: true });
    expect(await w.store.reassign({ from: listener.name, to: "heir" })).toMatchObject([{ stored: 1 }]);
  });

  it("are refused if their lists differ in length, or if a length is negative", async () => {
    const bad = (topicIds: number[], lengths: number[], codecs: number[]) =>
      storeFunctions(w.operator).storeMessages({
        ...{ name: lease.name, epoch: BigInt(lease.epoch), channelId: channel, firstNumber: 1n },
        ...{ topicIds, lengths, codecs, headers: null, payloads: Buffer.from("ab") },
      });
    await expect(bad([1], [1, 1], [0, 0])).rejects.toThrow("there are 1 topic ids, 2 lengths and 2 codecs");
    await expect(bad([1, 1], [1, 1], [0])).rejects.toThrow("there are 2 topic ids, 2 lengths and 1 codecs");
    await expect(bad([1, 1], [-1, 3], [0, 0])).rejects.toThrow("do not add up to the 2 bytes given");
    await expect(bad([1], [1], [0])).rejects.toThrow("do not add up to the 2 bytes given");
    const row =
      "INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, number, messages, lengths) VALUES ($1, '', 9, $2, $3)";
    for (const [messages, lengths] of [
      [1_000_000, []],
      [3, [0, 0]],
      [1, [0]],
    ]) {
      await expect(w.operator.query(row, [channel, messages, lengths])).rejects.toThrow(
        "stored_messages_one_length_each",
      );
    }
    expect(await rowsOf()).toEqual([]);
  });
});
