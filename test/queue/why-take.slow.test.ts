/** What `hawser.why` says and what a take does, on the same rows, in random states. */
import type pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { queueFunctions, whyFunctions } from "../../generated/ts/rows/queue.js";
import { type World, world } from "../store/support/world.js";
import { enqueue, type Taken, TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;
let work: pg.Client;
beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
  work = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());

/** Numbers below a limit that a seed gives. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const seeds = 100;

it("takes what all conditions are met for, and nothing else", async () => {
  let met = 0;
  const notMet = new Set<string>();
  for (let seed = 1; seed <= seeds; seed += 1) {
    const state = await plant(seed);
    const steps = [`seed ${seed}`, ...state.steps];
    // What is for others alone may be met by the worker before.
    const { rows } = await client.query<{ id: string }>(
      "SELECT q.id FROM hawser_data.queue AS q WHERE ltrim(q.recipient, '~!') = ANY ($1) ORDER BY q.rank",
      [["", "@fit", "#blue", ...(state.standsIn ? ["@away"] : [])]],
    );
    const held = new Map<string, string[]>();
    for (const { id } of rows) {
      const conditions = await whyFunctions(client).why({ id: BigInt(id), topic: null, key: null });
      held.set(
        id,
        conditions.flatMap(({ isMet, condition }) => (isMet ? [] : [condition])),
      );
    }
    await work.query("BEGIN");
    await state.fitting.take({ topics: ["t"], looksBehind: true });
    const left = await work.query<{ id: string; mine: boolean }>(
      "SELECT id, worker IS NOT DISTINCT FROM $1 AS mine FROM hawser_data.queue",
      [String(state.fitting.id)],
    );
    await work.query("ROLLBACK");
    await other.query("ROLLBACK");
    const leftOf = new Map(left.rows.map(({ id, mine }) => [id, mine]));
    const taken = (id: string) => (leftOf.get(id) ?? true) && !state.cancelled.has(id);
    const table = rows.map(({ id }) => `${id}: ${taken(id) ? "taken" : "left"}, ${held.get(id)!.join(" ") || "met"}`);
    const what = [...steps, ...table].join("\n");
    for (const { id } of rows) {
      const conditions = held.get(id)!;
      // With the first one of its key, a take may bring those behind it.
      if (taken(id))
        expect(
          conditions.filter((one) => one !== "first_of_key"),
          `${what}\n${id}`,
        ).toEqual([]);
      else if (!state.isLimited) expect(conditions, `${what}\n${id}`).not.toEqual([]);
      if (conditions.length === 0) met += 1;
      for (const condition of conditions) notMet.add(condition);
    }
    const ready = rows.some(({ id }) => held.get(id)!.length === 0);
    expect(
      rows.some(({ id }) => taken(id)),
      what,
    ).toBe(ready);
  }
  expect(met).toBeGreaterThan(seeds);
  expect([...notMet].sort()).toEqual(["due", "first_of_key", "free", "not_held", "not_paused", "within_limits"]);
});

interface State {
  readonly fitting: TestWorker;
  readonly standsIn: boolean;
  readonly isLimited: boolean;
  readonly cancelled: ReadonlySet<string>;
  readonly steps: readonly string[];
}

async function plant(seed: number): Promise<State> {
  const below = numbers(seed);
  const one = <T>(...of: readonly T[]): T => of[below(of.length)]!;
  const steps: string[] = [];
  const cancelled = new Set<string>();
  await client.query(
    `TRUNCATE hawser_data.queue, hawser_data.flow_edges, hawser_data.flow_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.served_topics,
              hawser_data.dead_letters, hawser_data.results, hawser_data.topic_settings, hawser_data.topic_starts, hawser_data.unique_keys, hawser_data.unique_locks`,
  );
  const limits = one(
    "",
    "",
    "running => 2",
    "rate => '1/h', burst => 2",
    "running_per_key => 1",
    "running_per_key => 1, key_header => 'tenant'",
  );
  const limit = async (to: string) => {
    steps.push(`limit ${to}`);
    await client.query(`SELECT hawser.limit_topic('t'${to && `, ${to}`})`);
  };
  if (limits !== "") await limit(limits);
  let isLimited = limits !== "";
  const first = await TestWorker.open(work, { name: one("w1", "w1:7", "away"), ...one({}, { group: "red" }) });
  const has: Taken[] = [];
  const ids = async () =>
    (await client.query<{ id: string }>("SELECT id FROM hawser_data.queue")).rows.map(({ id }) => id);
  for (let n = 3 + below(14); n > 0; n -= 1) {
    const act = one(
      "put",
      "put",
      "put",
      "put",
      "take",
      "take",
      "back",
      "retry",
      "cancel",
      "done",
      "later",
      "after",
      "unique",
      "limit",
      "flow",
    );
    if (act === "put") {
      const options = {
        recipient: one("", "", "", "@away", "@fit", "#red", "#blue", "@nobody"),
        ...one({}, { key: one("a", "b", "c") }, { priority: one(3, 9) }),
        headers: [["tenant", one("x", "y")]] as const,
        role: one("shop", "shop", "mill"),
      };
      const toAll = options.recipient === "" && below(8) === 0;
      steps.push(
        `put ${JSON.stringify({ ...options, toAll })}: ${await enqueue(client, "t", ["x"], { ...options, toAll })}`,
      );
    } else if (act === "take") {
      const taken = await first.take({ topics: ["t"], most: 1 + below(3), looksBehind: one(true, false) });
      steps.push(`take ${taken.map(({ id }) => id)}`);
      has.push(...taken);
    } else if (act === "later") {
      const { rows } = await client.query(
        "SELECT hawser.enqueue('t', 'x'::text, deliver_at => now() + $1::interval, key => $2, priority => $3) AS id",
        [one("1 hour", "-1 second"), ...one([null, 0], [null, 3], ["a", 0])],
      );
      steps.push(`later ${rows[0].id}`);
    } else if (act === "unique") {
      const { rows } = await client.query("SELECT hawser.enqueue_unique('t', 'x'::text, $1) AS id", [one("u", "v")]);
      steps.push(`unique ${rows[0].id}`);
    } else if (act === "flow") {
      const before = one(...(await ids()));
      if (before === undefined) continue;
      const { rows } = await client
        .query("SELECT hawser.enqueue_after('t', 'x'::text, $1) AS id", [[before]])
        .catch(() => ({ rows: [] }));
      steps.push(`after ${before}: ${rows[0]?.id}`);
    } else if (act === "limit") {
      if (!isLimited || below(2) === 0) continue;
      await limit(one("running => 1", "running_per_key => 2", ""));
      isLimited = (await client.query("SELECT FROM hawser_data.topic_settings")).rowCount === 1;
    } else if (act === "cancel") {
      const id = one(...(await ids()));
      if (id === undefined) continue;
      const { rows } = await client.query("SELECT * FROM hawser.cancel($1)", [id]);
      steps.push(`cancel ${id}: ${JSON.stringify(rows)}`);
      cancelled.add(id);
    } else {
      const message = has.splice(below(has.length), 1)[0];
      if (message === undefined) continue;
      steps.push(`${act} ${message.id}`);
      const given = async (): Promise<unknown> => {
        if (act === "back") return await first.giveBack(message);
        if (act === "retry") return await first.retry(message, one(0, 60_000));
        return await first.done(message);
      };
      await given().catch((error: Error) => steps.push(error.message));
    }
  }
  const end = one("goes on", "goes on", "gone", "silent", "closed");
  steps.push(`the worker: ${end}`);
  if (end === "gone") await client.query("UPDATE hawser_data.workers SET gone_at = now()");
  if (end === "silent") await client.query("UPDATE hawser_data.workers SET beat_at = now() - interval '50 s'");
  if (end === "closed") await first.close();
  if (below(8) === 0) {
    steps.push("paused");
    await queueFunctions(client).pauseTopic({ topic: "t" });
  }
  const fitting = await TestWorker.open(work, { name: "fit", group: "blue" });
  const standsIn = below(2) === 0;
  if (standsIn) {
    steps.push("stands in for away");
    await fitting.standInFor("away");
  }
  await client.query("SELECT hawser.bring_due(NULL, NULL)");
  await fitting.extend();
  if (!isLimited && below(4) === 0) {
    const id = one(...(await ids()));
    await other.query("BEGIN");
    await other.query("SELECT FROM hawser_data.queue WHERE id = $1 FOR UPDATE", [id ?? 0]);
    steps.push(`locked ${id}`);
  }
  return { fitting, standsIn, isLimited, cancelled, steps };
}
