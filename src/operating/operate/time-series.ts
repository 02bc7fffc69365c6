/**
 * Series of samples for charts: rates, what waited, and how long. Whoever serves the page takes the samples (`hawser.take_sample`); where nobody
 * has, there is a gap.
 */
import { sampleConstants } from "../../../generated/ts/settings/queue.js";
import { type Database, reportedLimitsMs } from "../../jobs-and-peers/store/index.js";

const { stepMs, slots, folded, foldedSlots } = sampleConstants;

/** Kind of a series: of a topic, of a function that is subscribed to a subject, or of a subscription to a stream. */
export type SeriesKind = "topic" | "subscription" | "stream";
/** An hour in steps of 15 s, or a day in steps of five minutes. */
export type SeriesSpan = "hour" | "day";

const spans: Readonly<Record<SeriesSpan, { readonly stepMs: number; readonly points: number }>> = {
  hour: { stepMs, points: slots },
  day: { stepMs: stepMs * folded, points: foldedSlots },
};

/** Time whose samples say at which rate a backlog shrinks, and what the present rates are. */
const presentMs = 120_000;
/** Number of points of an hour that the present rates are of. */
export const presentPoints = presentMs / stepMs;

export interface SeriesRequest {
  readonly kind: SeriesKind;
  /** Series to read, at most 500. Default: none, but the sum of all. */
  readonly names?: readonly string[];
  /** True: each series that a sample names, by its name, and not `names`. Default: false. */
  readonly each?: boolean;
  /** Default: an hour. */
  readonly span?: SeriesSpan;
  /** Only so many points, the newest ones. Default: all of the span. */
  readonly points?: number;
}

/** Values of a series, one for each of its times. Null: nobody took a sample, or nothing is known. */
export type Values = readonly (number | null)[];

export interface Series {
  /** Topic; subject and function of a subscription; name of a subscription to a stream. Null: the sum of all. */
  readonly name: string | null;
  /** Messages that came, per second; at least so many where {@link isAtLeast}. */
  readonly enqueued: Values;
  /** Messages that were handled, per second. */
  readonly handled: Values;
  /** Attempts that failed, per second. */
  readonly failed: Values;
  /** Messages that became dead letters, per second. */
  readonly dead: Values;
  /** Messages that waited or ran at the end of the step; at least so many where {@link isAtLeast}. */
  readonly waiting: Values;
  /** Age of the oldest of them, in milliseconds. */
  readonly oldestMs: Values;
  /** True where more waited than were counted. */
  readonly isAtLeast: readonly boolean[];
  /** Numbers of the last two minutes. */
  readonly present: PresentRates;
  /** Time in milliseconds until nothing waits at this rate; `never`: it does not shrink. Undefined: not known. */
  readonly emptyInMs: number | "never" | undefined;
  /** Durations of all handlers of the span. Undefined: none is known. */
  readonly durations: HandlerDurations | undefined;
}

/** Rates per second of the last two minutes, and the newest of the other values. Null: not known. */
export interface PresentRates {
  readonly enqueued: number | null;
  readonly handled: number | null;
  readonly failed: number | null;
  readonly dead: number | null;
  readonly waiting: number | null;
  readonly oldestMs: number | null;
}

/** Durations of handlers that return a promise. A batch counts once. */
export interface HandlerDurations {
  readonly handlers: number;
  readonly meanMs: number;
  /** Half of the handlers took no longer; Infinity: more than 30 s. One of 1, 10, 30, 100, 300 ms, 1, 3, 10, 30 s. */
  readonly medianMs: number;
  /** 95 % took no longer. */
  readonly p95Ms: number;
  /** 99 % took no longer. */
  readonly p99Ms: number;
}

export interface SeriesReading {
  /** Beginnings of the steps in milliseconds since 1970, without gaps, ascending. */
  readonly times: readonly number[];
  readonly stepMs: number;
  /** Series in the order of the names that were asked for; of `each`, in that in which samples name them. */
  readonly series: readonly Series[];
}

interface SampleRow {
  readonly nowMs: number;
  /** Null: there is no sample. */
  readonly atMs: number | null;
  readonly name: string | null;
  readonly coversMs: number | null;
  readonly enqueued: number | null;
  readonly handled: number | null;
  readonly failed: number | null;
  readonly dead: number | null;
  readonly waiting: number | null;
  readonly oldestMs: number | null;
  readonly isComplete: boolean | null;
  readonly busyMs: number | null;
  readonly durations: readonly number[];
}

const sql = `
  SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS "nowMs", extract(epoch FROM s.sampled_at)::float8 * 1000 AS "atMs", s.name,
         s.covers_ms::float8 AS "coversMs", s.enqueued::float8 AS enqueued, s.handled::float8 AS handled, s.failed::float8 AS failed,
         s.dead::float8 AS dead, s.waiting::float8 AS waiting, s.oldest_ms::float8 AS "oldestMs", s.is_complete AS "isComplete",
         s.busy_ms::float8 AS "busyMs", coalesce(s.durations, '{}')::float8[] AS durations
    FROM (SELECT) AS one
    LEFT JOIN hawser.samples($1, $2::text[], clock_timestamp() - $3::float8 * interval '1 ms', $4::integer, $5) AS s ON true`;

/** Reads series of samples. @throws HawserError as {@link Database.query} */
export async function readSeries(database: Database, request: SeriesRequest): Promise<SeriesReading> {
  const { kind, names = [], each = false, span = "hour" } = request;
  const { stepMs, points: most } = spans[span];
  const points = Math.min(request.points ?? most, most);
  // One step more: the newest sample may be of the step before the present one.
  const values = [kind, names, (points + 1) * stepMs, stepMs / 1_000, each];
  const rows = await database.query<SampleRow>("read samples", { text: sql, values });
  const stepOf = (ms: number): number => Math.floor(ms / stepMs);
  const sampled = rows.filter((row) => row.atMs !== null).map((row) => ({ ...row, step: stepOf(row.atMs!) }));
  // The present step may have no sample yet.
  const present = stepOf(rows[0]!.nowMs);
  const last = sampled.some(({ step }) => step === present) ? present : present - 1;
  const first = last - points + 1;
  const named = each ? sampled.map(({ name }) => name).filter((name) => name !== null) : names;
  const wanted: readonly (string | null)[] = each || names.length > 0 ? [...new Set(named)] : [null];
  const byName = new Map(wanted.map((name) => [name, new Array<SampleRow | undefined>(points).fill(undefined)]));
  for (const row of sampled) {
    const steps = byName.get(row.name);
    if (steps !== undefined && row.step >= first) steps[row.step - first] = row;
  }
  return {
    times: Array.from({ length: points }, (_, nth) => (first + nth) * stepMs),
    stepMs,
    series: [...byName].map(([name, steps]) => seriesOf(name, steps, stepMs)),
  };
}

/**
 * Takes a sample, unless one has been taken in the present step or the server is a standby.
 *
 * @returns time until the next step begins, in milliseconds
 * @throws HawserError as {@link Database.query}
 */
export async function takeSample(database: Database): Promise<number> {
  const text = 'SELECT t.next_in_ms::float8 AS "nextInMs" FROM hawser.take_sample() AS t';
  const [row] = await database.query<{ readonly nextInMs: number }>("take a sample", { text });
  return row!.nextInMs;
}

type Count = "enqueued" | "handled" | "failed" | "dead";

function seriesOf(name: string | null, steps: readonly (SampleRow | undefined)[], stepMs: number): Series {
  const recent = steps.slice(-Math.max(1, Math.round(presentMs / stepMs)));
  const rates = (count: Count): Values =>
    steps.map((row) => (row?.coversMs && row[count] !== null ? (row[count] / row.coversMs) * 1_000 : null));
  const rate = (count: Count): number | null => {
    const known = recent.filter((row) => row?.coversMs && row[count] !== null) as SampleRow[];
    if (known.length === 0) return null;
    return (sumOf(known.map((row) => row[count]!)) / sumOf(known.map((row) => row.coversMs!))) * 1_000;
  };
  const newest = steps.at(-1);
  return {
    name,
    enqueued: rates("enqueued"),
    handled: rates("handled"),
    failed: rates("failed"),
    dead: rates("dead"),
    waiting: steps.map((row) => row?.waiting ?? null),
    oldestMs: steps.map((row) => row?.oldestMs ?? null),
    isAtLeast: steps.map((row) => row?.isComplete === false),
    present: {
      enqueued: rate("enqueued"),
      handled: rate("handled"),
      failed: rate("failed"),
      dead: rate("dead"),
      waiting: newest?.waiting ?? null,
      oldestMs: newest?.oldestMs ?? null,
    },
    emptyInMs: emptyIn(recent),
    durations: durationsOf(steps),
  };
}

/** Time until nothing waits, if as many messages leave in each second as in the last minutes. */
function emptyIn(recent: readonly (SampleRow | undefined)[]): Series["emptyInMs"] {
  const newest = recent.at(-1);
  if (newest?.waiting === 0) return 0;
  const known = recent.filter((row) => row !== undefined && row.waiting !== null && row.isComplete !== false);
  const [first, last] = [known[0], known.at(-1)];
  if (first === undefined || last === undefined || first === last || last !== newest) return undefined;
  const perMs = (first.waiting! - last.waiting!) / (last.atMs! - first.atMs!);
  return perMs > 0 ? last.waiting! / perMs : "never";
}

function durationsOf(steps: readonly (SampleRow | undefined)[]): HandlerDurations | undefined {
  const counts = reportedLimitsMs.map((_, nth) => sumOf(steps.map((row) => row?.durations[nth] ?? 0)));
  const handlers = sumOf(counts);
  if (handlers === 0) return undefined;
  const percentile = (share: number): number => {
    let below = 0;
    return reportedLimitsMs[counts.findIndex((count) => (below += count) >= share * handlers)]!;
  };
  const busyMs = sumOf(steps.map((row) => row?.busyMs ?? 0));
  return {
    handlers,
    meanMs: busyMs / handlers,
    medianMs: percentile(0.5),
    p95Ms: percentile(0.95),
    p99Ms: percentile(0.99),
  };
}

const sumOf = (numbers: readonly number[]): number => numbers.reduce((sum, each) => sum + each, 0);
