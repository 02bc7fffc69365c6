/** Rates of topics: how many messages start in which time, by times that the test gives. */
import fc from "fast-check";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { queueFunctions } from "../../generated/ts/rows/queue.js";
import { type World, world } from "../store/support/world.js";
import { atDepth } from "../support/depth.js";

/** A worker asks for starts so late, and begins this part of those that it may begin; then it rests. */
interface Ask {
  readonly lateMs: number;
  readonly part: number;
  readonly restMs: number;
}

/** Starts at a time, in ms. */
interface Starts {
  readonly at: number;
  readonly count: number;
}

const minuteMs = 60_000;
let w: World;
let client: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  // What a worker does that always has work: it asks when it may, or later.
  await client.query(`
    CREATE FUNCTION pg_temp.starts(p_late_ms float8[], p_part float8[], p_rest_ms float8[], p_until_ms float8) RETURNS TABLE (at float8, count integer)
    LANGUAGE plpgsql AS $$
    DECLARE
      v_begin timestamptz := '2026-01-01';
      v_ms float8 := 0;
      v_most integer;
      v_nth integer := 0;
      v_asks integer := cardinality(p_late_ms);
    BEGIN
      WHILE v_ms < p_until_ms LOOP
        v_ms := v_ms + p_late_ms[v_nth % v_asks + 1];
        SELECT a.most INTO v_most FROM hawser.admit_starts('t', v_begin + v_ms * interval '1 ms') AS a;
        at := v_ms;
        count := ceil(v_most * p_part[v_nth % v_asks + 1]);
        SELECT v_ms + c.wait_ms INTO v_ms FROM hawser.count_starts('t', v_begin + v_ms * interval '1 ms', count) AS c;
        v_ms := v_ms + p_rest_ms[v_nth % v_asks + 1];
        v_nth := v_nth + 1;
        RETURN NEXT;
      END LOOP;
    END $$`);
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(() => client.query("TRUNCATE hawser_data.topic_settings"));

async function startsOf(
  asks: readonly Ask[],
  untilMs: number,
  rate: string,
  burst: number | null = null,
): Promise<{ readonly starts: readonly Starts[]; readonly perMs: number; readonly burst: number }> {
  await queueFunctions(client).limitTopic({
    topic: "t",
    rate,
    burst,
    running: null,
    runningPerKey: null,
    keyHeader: null,
  });
  // The times of the test are before the present.
  const set = await client.query<{ interval_us: string; burst: number }>(
    "UPDATE hawser_data.topic_settings SET full_at_us = 0 WHERE topic = 't' RETURNING interval_us, burst",
  );
  const { rows } = await client.query<Starts>("SELECT at, count FROM pg_temp.starts($1, $2, $3, $4)", [
    asks.map(({ lateMs }) => lateMs),
    asks.map(({ part }) => part),
    asks.map(({ restMs }) => restMs),
    untilMs,
  ]);
  const [{ interval_us, burst: set_burst }] = set.rows as [{ interval_us: string; burst: number }];
  return { starts: rows.filter(({ count }) => count > 0), perMs: 1_000 / Number(interval_us), burst: set_burst };
}

/** The most that has started beyond the rate in any time: at least the burst if it was used. */
function mostBeyond(starts: readonly Starts[], perMs: number): number {
  // Of all times that end here, the one whose begin has had the least for its time.
  let [sum, least, most] = [0, Number.POSITIVE_INFINITY, 0];
  for (const { at, count } of starts) {
    least = Math.min(least, sum - at * perMs);
    sum += count;
    most = Math.max(most, sum - at * perMs - least);
  }
  return most;
}

/** Fewest and most starts of any minute, of those that begin with a start or behind one. */
function ofAnyMinute(starts: readonly Starts[], untilMs: number): { readonly fewest: number; readonly most: number } {
  let [before, next, upto, fewest, most] = [0, 0, 0, Number.POSITIVE_INFINITY, 0];
  for (const { at, count } of starts) {
    if (at + minuteMs > untilMs) break;
    for (; next < starts.length && starts[next]!.at <= at + minuteMs; next++) upto += starts[next]!.count;
    most = Math.max(most, upto - before);
    before += count;
    fewest = Math.min(fewest, upto - before);
  }
  return { fewest, most };
}

const rates = ["1/s", "3/s", "10/s", "50/s", "7/m", "10/m", "1/m", "100/h"];
/** Numbers from a least one to a greatest one, all as often. */
const between = (min: number, max: number) => fc.double({ min, max, noNaN: true, noDefaultInfinity: true });
const histories = (ask: Partial<Record<keyof Ask, fc.Arbitrary<number>>>) =>
  fc.array(fc.record({ lateMs: fc.constant(0), part: fc.constant(1), restMs: fc.constant(0), ...ask }), {
    minLength: 30,
    maxLength: 100,
  });
const inputs = (count: number) => ({ numRuns: atDepth(count), unbiased: true, endOnFailure: true });

it("a waiting backlog starts at its rate over any minute, however late within a second a place is free", async () => {
  const untilMs = 1.5 * minuteMs;
  await fc.assert(
    fc.asyncProperty(histories({ lateMs: between(0, 990) }), async (history) => {
      for (const rate of rates) {
        const { starts, perMs, burst } = await startsOf(history, untilMs, rate);
        const { fewest, most } = ofAnyMinute(starts, untilMs);
        expect(fewest).toBeGreaterThanOrEqual(0.98 * perMs * minuteMs - 1);
        expect(most).toBeLessThanOrEqual(perMs * minuteMs + burst);
      }
    }),
    inputs(20),
  );
});

it("starts that come one by one as busy handlers end reach the rate", async () => {
  const untilMs = 1.5 * minuteMs;
  await fc.assert(
    fc.asyncProperty(histories({ lateMs: between(0, 190), part: fc.constant(0.001) }), async (history) => {
      for (const rate of ["3/s", "10/s"]) {
        const { starts, perMs } = await startsOf(history, untilMs, rate);
        expect(ofAnyMinute(starts, untilMs).fewest).toBeGreaterThanOrEqual(0.98 * perMs * minuteMs - 1);
      }
    }),
    inputs(20),
  );
});

it("in any time no more start than the rate and the burst allow, after any pause", async () => {
  const ask = {
    lateMs: between(50, 5_000),
    part: between(0, 1),
    restMs: fc.oneof(fc.constant(0), fc.constant(0), between(0, 600_000)),
  };
  const bursts = fc.option(fc.integer({ min: 1, max: 50 }), { nil: null });
  await fc.assert(
    fc.asyncProperty(bursts, histories(ask), async (given, history) => {
      for (const rate of rates) {
        const { starts, perMs, burst } = await startsOf(history, 10 * minuteMs, rate, given);
        // Times have whole microseconds.
        expect(mostBeyond(starts, perMs)).toBeLessThanOrEqual(burst + 0.001);
      }
    }),
    inputs(20),
  );
});

it("limits that are said again, at each start of a program, neither cost nor give starts", async () => {
  const set = () =>
    queueFunctions(client).limitTopic({
      topic: "t",
      rate: "10/h",
      burst: 3,
      running: null,
      runningPerKey: null,
      keyHeader: null,
    });
  await set();
  await client.query("SELECT hawser.count_starts('t', clock_timestamp(), 2)");
  for (let time = 0; time < 20; time++) await set();
  const { rows } = await client.query(
    "SELECT most FROM hawser.admit_starts('t', clock_timestamp() + interval '1 minute')",
  );
  expect(rows).toEqual([{ most: 1 }]);
});
