/**
 * The functions of the leader in SQL, as processes call them that stood still, or whose Postgres was replaced.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type World, world } from "../../store/support/world.js";

const batchSql = "SELECT held FROM hawser.fence_batch($1)";

/** A shorter form, which is not enough: who owns it is read before the lock, and not again behind it. */
const naiveBatchSql = `
  SELECT o.held FROM (SELECT EXISTS (SELECT FROM hawser_data.owners WHERE what = 'serve' AND epoch = $1) AS held OFFSET 0) AS o,
         (SELECT f.what FROM hawser_data.fences AS f WHERE f.what = 'serve' FOR SHARE OFFSET 0) AS locked`;

const rowSql = "SELECT epoch, owner, beat FROM hawser.bridge_lead";

describe("leadership", () => {
  let w: World;
  let former: pg.Client;
  let next: pg.Client;
  let epoch: string;

  const take = async (client: pg.Client, owner: string): Promise<string | null> => {
    const { rows } = await client.query(
      "SELECT t.epoch FROM hawser.bridge_lead AS l, hawser.take_lead($1, l.epoch, l.beat) AS t",
      [owner],
    );
    return rows[0].epoch;
  };
  const raise = async (client: pg.Client, owner: string, of: string | null) =>
    (await client.query("SELECT held, raised FROM hawser.raise_lead($1, $2)", [owner, of])).rows[0];
  const keep = async (client: pg.Client, owner: string, of: string | null, ends = false): Promise<boolean> =>
    (await client.query("SELECT held FROM hawser.keep_lead($1, $2, '{}', $3)", [owner, of, ends])).rows[0].held;
  const batch = async (client: pg.Client, of: string | null, sql = batchSql): Promise<boolean> =>
    (await client.query(sql, [of])).rows[0].held;

  beforeAll(async () => {
    w = await world();
    former = await w.connect();
    next = await w.connect();
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    epoch = (await take(former, "former"))!;
    expect(await raise(former, "former", epoch)).toEqual({ held: true, raised: true });
  });

  /** Begins a batch of the former leader, which has to wait until the next one leads. */
  async function batchLate(sql: string): Promise<boolean> {
    const { rows } = await former.query("SELECT pg_backend_pid() AS pid");
    await next.query("BEGIN");
    await raise(next, "next", await take(next, "next"));
    const answer = batch(former, epoch, sql);
    await w.waitsForLock(rows[0].pid);
    await next.query("COMMIT");
    return answer;
  }

  it("refuses a batch that waited while it was taken", async () => {
    expect(await batchLate(batchSql)).toBe(false);
  });

  it("would let it through if the epoch were read before the lock", async () => {
    expect(await batchLate(naiveBatchSql)).toBe(true);
  });

  it("is not written by its former owner that resumes, and its fence is not lowered", async () => {
    const taken = await take(next, "next");
    expect(await raise(next, "next", taken)).toEqual({ held: true, raised: true });
    const before = (await next.query(rowSql)).rows;
    expect(await keep(former, "former", epoch)).toBe(false);
    expect(await keep(former, "former", epoch, true)).toBe(false);
    expect((await raise(former, "former", epoch)).held).toBe(false);
    expect(await batch(former, epoch)).toBe(false);
    expect((await next.query(rowSql)).rows).toEqual(before);
    expect(await batch(next, taken)).toBe(true);
  });

  it("is taken by one of the processes that have read the same row", async () => {
    const [{ epoch: seen, beat }] = (await next.query(rowSql)).rows;
    const taken = await Promise.all(
      [former, next].map((client) => client.query("SELECT epoch FROM hawser.take_lead('x', $1, $2)", [seen, beat])),
    );
    expect(taken.map(({ rows }) => rows[0].epoch).filter((one) => one !== null)).toHaveLength(1);
  });

  it("is not taken while the leader lives, as seen from before its last heartbeat", async () => {
    const [{ beat }] = (await next.query(rowSql)).rows;
    expect(await keep(former, "former", epoch)).toBe(true);
    const { rows } = await next.query("SELECT epoch FROM hawser.take_lead('next', $1, $2)", [epoch, beat]);
    expect(rows).toEqual([{ epoch: null }]);
  });

  it("has no batch begin, and no heartbeat count, before the second step", async () => {
    const taken = await take(next, "next");
    expect(await Promise.all([batch(former, epoch), batch(next, taken), keep(next, "next", taken)])).toEqual([
      false,
      false,
      false,
    ]);
  });

  it("waits for running batches, within a limit, and sends heartbeats meanwhile", async () => {
    await former.query("BEGIN");
    expect(await batch(former, epoch)).toBe(true);
    const taken = await take(next, "next");
    expect(await raise(next, "next", taken)).toEqual({ held: true, raised: false });
    expect((await w.operator.query(rowSql)).rows).toEqual([{ epoch: taken, owner: "next", beat: "-1" }]);
    await former.query("COMMIT");
    expect(await raise(next, "next", taken)).toEqual({ held: true, raised: true });
  });

  it("has two epochs if a failover has lost one of two takeovers", async () => {
    const [lost] = (await w.operator.query("SELECT epoch, owner, beat FROM hawser_data.owners WHERE what = 'serve'"))
      .rows;
    const first = await take(next, "next");
    await w.operator.query("UPDATE hawser_data.owners SET epoch = $1, owner = $2, beat = $3 WHERE what = 'serve'", [
      lost.epoch,
      lost.owner,
      lost.beat,
    ]);
    const second = await take(former, "another");
    expect(second).not.toBe(first);
    expect((await raise(next, "next", first)).held).toBe(false);
    expect(await raise(former, "another", second)).toEqual({ held: true, raised: true });
    expect(await Promise.all([batch(next, first), batch(former, second)])).toEqual([false, true]);
  });
});
