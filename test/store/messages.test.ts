import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Compression } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease, MessageToStore, Position } from "../../src/jobs-and-peers/store/index.js";
import { backlogCountRows, insertRows } from "../../src/jobs-and-peers/store/stored-messages.js";
import { eventually } from "../support/eventually.js";
import { startProxy } from "./support/proxy.js";
import { textMessages, type World, world } from "./support/world.js";

const start: Position = { epoch: 0, number: 0 };

describe("stored messages", () => {
  let w: World;
  let lease: Lease;
  let channel: number;
  let channels = 0;

  beforeAll(async () => {
    w = await world();
    lease = await w.take("sender");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    channels += 1;
    channel = await w.channelOf({ name: "sender", sourceTopic: `source ${channels}` }, "listener");
  });

  async function numbersOf(after: Position, limits?: { maxRows?: number; maxBytes?: number }): Promise<number[]> {
    return (await w.store.drain(channel, after, limits)).rows.map(({ position }) => position.number);
  }

  it("are read as they were stored, in order", async () => {
    const messages: MessageToStore[] = [
      { topicId: 3, payload: Buffer.from("plain") },
      {
        topicId: 4,
        payload: new Uint8Array([0, 1, 255, 92, 39]),
        headers: [
          ["trace", "1"],
          ["trace", "ä\"\\'"],
        ],
      },
      { topicId: 3, payload: new Uint8Array(), codec: 1 },
    ];
    expect(await w.store.storeMessages(lease, channel, 7, messages)).toBe("stored");
    const { rows, remaining } = await w.store.drain(channel, start);
    expect(remaining).toBe(0);
    expect(rows.map((row) => ({ ...row, payload: [...row.payload] }))).toEqual(
      messages.map(({ payload, topicId, headers, codec }, index) => ({
        position: { epoch: lease.epoch, number: 7 + index },
        topicId,
        payload: [...payload],
        headers,
        encoding: codec === 1 ? { compression: Compression.GZIP, uncompressedBytes: 0 } : undefined,
        fromWire: false,
      })),
    );
  });

  it("are refused after the name was taken by another", async () => {
    const old = { name: lease.name, epoch: lease.epoch - 1 };
    expect(await w.store.storeMessages(old, channel, 1, textMessages("late"))).toBe("fenced");
    expect(await w.store.backlogOf(channel, start)).toBe(0);
  });

  it("are refused in a channel of another sender, and are certainly not stored", async () => {
    const foreign = await w.channelOf({ name: "other", sourceTopic: "source" }, "listener");
    const storing = w.store.storeMessages(lease, foreign, 1, textMessages("a"));
    await expect(storing).rejects.toMatchObject({ code: "store_failed", name: "HawserError", retryable: true });
    await expect(storing).rejects.not.toHaveProperty("outcome");
    await expect(storing).rejects.toThrow(`channel ${foreign} is not one of sender "sender"`);
  });

  it("are read in the order of epoch and number, not of their rows", async () => {
    const insert =
      "INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number) VALUES ($1, '', $2, $3)";
    for (const [epoch, number] of [
      [2, 1],
      [1, 3],
      [10, 1],
      [1, 1],
      [2, 2],
    ]) {
      await w.operator.query(insert, [channel, epoch, number]);
    }
    const { rows } = await w.store.drain(channel, start);
    expect(rows.map(({ position: { epoch, number } }) => [epoch, number])).toEqual([
      [1, 1],
      [1, 3],
      [2, 1],
      [2, 2],
      [10, 1],
    ]);
    const later = await w.store.drain(channel, { epoch: 1, number: 3 });
    expect(later.rows.map(({ position: { epoch, number } }) => [epoch, number])).toEqual([
      [2, 1],
      [2, 2],
      [10, 1],
    ]);
  });

  it("are read in pages limited by rows and bytes, at least one row each", async () => {
    const { epoch } = lease;
    for (const [index, letter] of ["a", "b", "c", "d"].entries()) {
      await w.store.storeMessages(lease, channel, index + 1, textMessages(letter.repeat(4)));
    }
    expect(await numbersOf(start, { maxRows: 3 })).toEqual([1, 2, 3]);
    expect(await numbersOf(start, { maxBytes: 8 })).toEqual([1, 2]);
    expect(await numbersOf(start, { maxBytes: 7 })).toEqual([1]);
    expect(await numbersOf(start, { maxBytes: 1 })).toEqual([1]);
    expect(await numbersOf({ epoch, number: 3 }, { maxBytes: 1 })).toEqual([4]);
    expect(await numbersOf({ epoch, number: 4 })).toEqual([]);
    await expect(w.store.drain(channel, start, { maxRows: 0 })).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("are counted behind the page, up to a limit", async () => {
    const cap = backlogCountRows;
    await w.operator.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number)
       SELECT $1, '', 1, n FROM generate_series(1, $2) AS n`,
      [channel, cap + 10],
    );
    expect((await w.store.drain(channel, start, { maxRows: 2 })).remaining).toBe(cap);
    expect((await w.store.drain(channel, { epoch: 1, number: 10 }, { maxRows: 2 })).remaining).toBe(cap - 2);
    expect((await w.store.drain(channel, { epoch: 1, number: cap }, { maxRows: 100 })).remaining).toBe(0);
    expect(await w.store.backlogOf(channel, start)).toBe(cap);
    expect(await w.store.backlogOf(channel, { epoch: 1, number: cap })).toBe(10);
    expect(await w.store.backlogOf(channel, { epoch: 2, number: 0 })).toBe(0);
  });

  it("accept a whole insert of the maximum size", async () => {
    const payload = Buffer.alloc(100, "x");
    await w.store.storeMessages(
      lease,
      channel,
      1,
      Array.from({ length: insertRows }, () => ({ topicId: 1, payload })),
    );
    expect(await w.store.backlogOf(channel, start)).toBe(Math.min(insertRows, backlogCountRows));
  });

  it("may be large, or empty, or look like SQL", async () => {
    const large = Buffer.alloc(10 * 1024 * 1024, "0123456789abcdef");
    const payloads = [
      large,
      Buffer.alloc(0),
      Buffer.from(`'); DROP TABLE hawser_peer_data.stored_messages; --\0\u{1F6A2}`),
    ];
    await w.store.storeMessages(
      lease,
      channel,
      1,
      payloads.map((payload) => ({ topicId: 1, payload })),
    );
    const { rows } = await w.store.drain(channel, start, { maxBytes: 64 * 1024 * 1024 });
    expect(rows.map(({ payload }) => Buffer.compare(payload, payloads.shift()!))).toEqual([0, 0, 0]);
  });

  describe("an insert whose commit was interrupted", () => {
    it("is reported unknown, was stored, and is stored once after the retry", async () => {
      await using proxy = await startProxy(w.url);
      await using store = await openStore({ databaseUrl: proxy.url });
      await store.drain(channel, start);
      proxy.keepAnswersBack();
      const storing = store.storeMessages(lease, channel, 1, textMessages("a", "b"));
      await eventually("the rows are there", async () => (await w.store.backlogOf(channel, start)) === 2);
      proxy.cut();
      await expect(storing).rejects.toMatchObject({ code: "store_failed", outcome: "unknown" });
      expect(await store.storeMessages(lease, channel, 1, textMessages("a", "b"))).toBe("stored");
      expect(await numbersOf(start)).toEqual([1, 2]);
    });

    it("is reported unknown if the server ends the session during the statement", async () => {
      const { rows } = await w.operator.query("SELECT pg_backend_pid() AS pid");
      const taker = await w.connect();
      await taker.query("BEGIN");
      await taker.query("SELECT FROM hawser_data.fences WHERE what = 'peer:sender' FOR UPDATE");
      const storing = w.store.storeMessages(lease, channel, 1, textMessages("a"));
      const outcome = expect(storing).rejects.toMatchObject({ code: "store_failed", outcome: "unknown" });
      await eventually("the statement waits", async () => {
        const { rowCount } = await w.operator.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE wait_event_type = 'Lock' AND datname = current_database() AND pid <> $1`,
          [rows[0].pid],
        );
        return rowCount === 1;
      });
      await outcome;
      await taker.query("ROLLBACK");
      expect(await w.store.storeMessages(lease, channel, 1, textMessages("a"))).toBe("stored");
    });

    it("is certainly not stored if the server could not be reached", async () => {
      const store = await openStore({ databaseUrl: "postgres://nobody@127.0.0.1:1/none", sessionUrl: w.url });
      const storing = store.storeMessages(lease, channel, 1, textMessages("a"));
      await expect(storing).rejects.toThrow(/could not store messages 1 to 1 of channel \d+: .*ECONNREFUSED/);
      await expect(storing).rejects.not.toHaveProperty("outcome");
      await store.close();
    });
  });
});
