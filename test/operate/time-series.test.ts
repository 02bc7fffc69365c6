/** Samples as series for charts: rates, gaps, and when a backlog will be empty. */
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { sampleConstants } from "../../generated/ts/settings/queue.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import type { Database } from "../../src/jobs-and-peers/store/index.js";
import { openDatabase, readSeries } from "../../src/operating/operate/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

let database: TestDatabase;
let reader: Database;
beforeAll(async () => {
  database = await testDatabase();
  reader = openDatabase(database.url, { poolSize: 1, logger: silentLogger });
});
afterAll(async () => {
  await reader?.close();
  await database?.drop();
});
beforeEach(() => onServer(database.url, "TRUNCATE hawser_data.samples"));

const { stepMs, slots } = sampleConstants;
const stepSeconds = stepMs / 1_000;

/**
 * Puts samples of the topic `t`.
 *
 * @param numbers of each step, as in the table; undefined: no sample. The last one is of the step before the present one
 */
async function samples(
  numbers: readonly (readonly (number | null)[] | undefined)[],
  step = stepSeconds,
): Promise<void> {
  const values = numbers.flatMap((each, nth) => {
    if (each === undefined) return [];
    const at = `to_timestamp((floor(extract(epoch FROM now()) / ${step}) - ${numbers.length - nth}) * ${step} + 1)`;
    const series = JSON.stringify({ topic: { all: each, named: { t: each } } });
    return `(${step}, ${nth}, ${at}, ${step * 1_000}, '${series}')`;
  });
  await onServer(database.url, `INSERT INTO hawser_data.samples VALUES ${values.join(", ")}`);
}
const quiet = [0, 0, 0, 0, 0, 0, 0];

it("has rates per second, what waited, and nothing where nobody took a sample", async () => {
  await samples([[30, 15, 3, 0, 100, 5_000, 0], undefined, [15, 30, 0, 1, 84, 6_000, 1]]);
  const { times, series, ...rest } = await readSeries(reader, { kind: "topic", names: ["t", "unknown"], points: 4 });
  expect(rest.stepMs).toBe(stepMs);
  expect(times).toHaveLength(4);
  expect(times.map((time) => time - times[0]!)).toEqual([0, 1, 2, 3].map((nth) => nth * stepMs));
  const [t, unknown] = series;
  // The step may have ended since they were put.
  const only = (values: readonly unknown[]) => values.filter((value) => value !== null);
  expect(t!.name).toBe("t");
  expect(only(t!.enqueued)).toEqual([2, 1]);
  expect(only(t!.handled)).toEqual([1, 2]);
  expect(only(t!.failed)).toEqual([0.2, 0]);
  expect(only(t!.waiting)).toEqual([100, 84]);
  expect(only(t!.oldestMs)).toEqual([5_000, 6_000]);
  expect(t!.enqueued.filter((value) => value === null)).toHaveLength(2);
  expect(t!.isAtLeast.filter(Boolean)).toHaveLength(1);
  expect(t!.present).toMatchObject({ enqueued: 1.5, handled: 1.5, failed: 0.1 });
  expect(only(unknown!.waiting)).toEqual([0, 0]);
  const { series: sums } = await readSeries(reader, { kind: "topic", points: 4 });
  expect(sums).toEqual([{ ...t, name: null }]);
});

it("is whole and empty where nobody takes samples", async () => {
  const { times, series } = await readSeries(reader, { kind: "stream", names: ["s"] });
  expect(times).toHaveLength(slots);
  expect(series[0]!.waiting).toEqual(new Array(slots).fill(null));
  expect(series[0]!.emptyInMs).toBeUndefined();
  expect(series[0]!.durations).toBeUndefined();
});

it("says when a backlog will be empty if it goes on so", async () => {
  const emptyIn = async (...waiting: (readonly [waiting: number, isCut?: number])[]) => {
    await onServer(database.url, "TRUNCATE hawser_data.samples");
    await samples(waiting.map(([count, isCut = 0]) => [0, 0, 0, 0, count, 1, isCut]));
    const { series } = await readSeries(reader, { kind: "topic", names: ["t"] });
    // The step may have ended since they were put, and then the newest sample is missing.
    return series[0]!.present.waiting === null ? "late" : series[0]!.emptyInMs;
  };
  expect([2 * stepMs, "late"]).toContain(await emptyIn([30], [20]));
  expect([4 * stepMs, "late"]).toContain(await emptyIn([60], [50], [40]));
  expect(["never", "late"]).toContain(await emptyIn([30], [30]));
  expect(["never", "late"]).toContain(await emptyIn([30], [31]));
  expect([0, "late"]).toContain(await emptyIn([30], [0]));
  expect([undefined, "late"]).toContain(await emptyIn([30]));
  expect([undefined, "late"]).toContain(await emptyIn([30], [20, 1]));
});

it("tells how long handlers took", async () => {
  await samples([
    [0, 0, 0, 0, 0, 0, 0, 900, 0, 40, 50],
    quiet,
    [0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 6, 0, 0, 0, 0, 0, 3, 1],
  ]);
  const { series } = await readSeries(reader, { kind: "topic", names: ["t"] });
  expect(series[0]!.durations).toEqual({ handlers: 100, meanMs: 10, medianMs: 30, p95Ms: 30, p99Ms: 30_000 });
});

it("reads a day in steps of five minutes", async () => {
  const step = stepSeconds * sampleConstants.folded;
  await samples([[step * 2, step, 0, 0, 1, 1, 0], quiet], step);
  const { times, series } = await readSeries(reader, { kind: "topic", names: ["t"], span: "day" });
  expect(times).toHaveLength(sampleConstants.foldedSlots);
  expect(times[1]! - times[0]!).toBe(step * 1_000);
  expect(series[0]!.enqueued.filter((value) => value !== null)).toEqual([2, 0]);
});
