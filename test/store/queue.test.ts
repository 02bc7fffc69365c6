/** The queue as a peer's process uses it. What its SQL functions do is shown in `test/queue`. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Lease, QueuedMessage } from "../../src/jobs-and-peers/store/index.js";
import { eventually } from "../support/eventually.js";
import { leave } from "./support/left-messages.js";
import { type World, world } from "./support/world.js";

describe("a process's queue", () => {
  let w: World;
  let listener: Lease;
  let worker: bigint;

  beforeAll(async () => {
    w = await world();
    listener = await w.take("listener");
    w.store.queue.open();
    await eventually("the session is open", () => w.store.queue.isUp);
  });
  afterAll(() => w?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    await w.operator.query("TRUNCATE hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks");
    worker = await w.store.queue.openWorker({
      ...{ name: "w", group: undefined, topics: ["t"], leaseMs: 60_000, concurrency: 9, replaces: undefined },
    });
  });

  const enqueue = async (): Promise<unknown> => await w.operator.query("SELECT hawser.enqueue('t', 'x'::text)");
  const take = async (): Promise<QueuedMessage[]> =>
    (await w.store.queue.take(worker, { topics: [], most: 9, maxBytes: 1_000_000, after: {} })).messages;
  const waiting = async (): Promise<number> => (await w.operator.query("SELECT FROM hawser_data.queue")).rowCount!;

  it("takes a sent message with as many headers as one may have", async () => {
    const channel = await w.channelOf({ name: "shop", sourceTopic: "shop" }, "listener");
    const headers = Array.from({ length: 256 }, (_, nth) => [`h${nth}`, "v"] as const);
    await leave(w.operator, listener, channel, [{ topic: "t", headers }]);
    const [row] = await take();
    expect([row!.fault, row!.sender]).toEqual([undefined, { name: "shop", topic: "shop" }]);
    expect(row!.headers!.slice(1)).toEqual(headers);
  });

  it("says that some of what it has handled was gone, and deletes the others", async () => {
    for (const _ of [1, 2, 3]) await enqueue();
    const rows = await take();
    await w.operator.query("DELETE FROM hawser_data.queue WHERE id = $1", [rows[1]!.id]);
    await expect(w.store.queue.done(rows)).rejects.toMatchObject({ code: "message_gone" });
    expect(await waiting()).toBe(0);
    await enqueue();
    await w.store.queue.done(await take());
    expect(await waiting()).toBe(0);
  });

  it("begins a message with a unique key, with what replaced it, or says when it is due", async () => {
    const unique = (payload: string, on = w.operator) =>
      on.query("SELECT hawser.enqueue_unique('t', $1, 'k', replaces => true)", [payload]);
    const begin = async () => await w.store.queue.beginUnique(worker, (await take())[0]!);
    await unique("1");
    const [row] = await take();
    const other = await w.connect();
    await other.query("BEGIN");
    await unique("2", other);
    const held = await w.store.queue.beginUnique(worker, row!);
    expect(held).toEqual({ begins: false, dueInMs: expect.any(Number), replacement: undefined });
    await other.query("COMMIT");
    await w.operator.query("UPDATE hawser_data.queue SET due_at = NULL");
    const { begins, dueInMs, replacement } = await begin();
    expect([begins, dueInMs, String(replacement?.payload)]).toEqual([true, undefined, "2"]);
    await unique("3");
    expect(await begin()).toEqual({ begins: true, dueInMs: undefined, replacement: undefined });
  });

  it("handles no message in a transaction on another server than the one it was taken from", async () => {
    await enqueue();
    const [row] = await take();
    const { server } = w.store.queue;
    const handle = (of: string | undefined) => w.store.handleInTransaction([{ ...row!, server: of }], async () => {});
    expect([await handle("another"), await waiting()]).toEqual(["notOwned", 1]);
    expect([await handle(server), await waiting()]).toEqual(["committed", 0]);
  });
});
