/**
 * A thousand schedules over a year, with both changes of clocks in three time zones, run by ten processes that come and go: each
 * occurrence once, those that were missed by their policy. The occurrences are those of an oracle that knows nothing of the planner.
 */

import { expect, it } from "vitest";
import { scheduleConstants } from "../../generated/ts/settings/outbox.js";
import { lateMs, planOccurrences } from "../../src/outbox/occurrences.js";
import { pageSchedules } from "../../src/outbox/schedules.js";
import { Random } from "../simulator/random.js";
import { WallClock } from "../simulator/schedules/oracle.js";
import { type Move, type Planned, ScheduleStore, timesOf } from "../simulator/schedules/store.js";

const schedules = 1_000;
const limit = scheduleConstants.pageOccurrences;
const from = Date.parse("2026-01-01T00:00Z");
const to = Date.parse("2027-01-01T00:00Z");
const timezones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] as const;
const policies = ["one", "all", "none"] as const;
/** Nothing runs from the one to the other: over some of the changes, and twice for weeks. */
const outages = [
  ["2026-01-20T10:00Z", "2026-02-15T11:30Z"],
  ["2026-03-08T06:30Z", "2026-03-08T08:10Z"],
  ["2026-03-29T00:59Z", "2026-03-29T01:00:05Z"],
  ["2026-06-01T00:00Z", "2026-06-01T00:00:15Z"],
  ["2026-10-24T20:00Z", "2026-10-25T03:00Z"],
  ["2026-11-01T05:30Z", "2026-11-05T00:00Z"],
].map((times) => times.map((time) => Date.parse(time)) as [number, number]);

/** Mostly once a day or more rarely, so that a year of a thousand of them can be looked at. */
function cronOf(random: Random): string {
  const minute = random.between(0, 59);
  const hour = random.between(0, 23);
  // The hours in which clocks are changed.
  const night = random.between(0, 3);
  return random.pick([
    `${minute} ${night} * * *`,
    `${random.between(0, 59)} ${minute} ${night} * * 6,0`,
    `${minute},${(minute + 20) % 60} ${night},${(night + 1) % 24} * * 0`,
    `*/20 ${night} * * 6,0`,
    `${minute} ${hour} * * 1`,
    `${minute} ${night} * 3,4,10,11 *`,
    `${minute} ${night} ${random.between(1, 31)} * *`,
    `${minute} ${night} 1 */3 ${random.between(0, 7)}`,
    `${minute} ${hour} * 3,4,10,11 1-5`,
    ...(random.chance(0.01) ? [`${minute} * * * *`, "*/30 * * * *"] : []),
  ]);
}

it("runs a thousand schedules over a year, each occurrence once, and those that were missed by their policy", {
  timeout: 1_800_000,
}, () => {
  const random = new Random(2026);
  let now = from;
  const store = new ScheduleStore(() => now, {}, false);
  for (let nth = 0; nth < schedules; nth++) {
    const given = { cron: cronOf(random), timezone: random.pick(timezones), missed: random.pick(policies) };
    store.schedule({ name: `s${nth}`, ...given });
  }
  /** Occurrences that processes have read and not yet run: ten processes, which are often behind the others. */
  const reads: Planned[][] = Array.from({ length: 10 }, () => []);
  const startsAgainAt = (time: number): number =>
    outages.find(([begin, end]) => time >= begin && time < end)?.[1] ?? time;
  let [calls, ran] = [0, 0];
  while (now < to) {
    const { rows, asOf, dueInMs } = store.due(pageSchedules);
    if (rows.length === 0) {
      // Timers fire late, and a process reads what is due at some time of its own.
      now = startsAgainAt(Math.min(to, now + Math.max(1, dueInMs))) + random.between(0, 900);
      continue;
    }
    const process = random.between(0, 9);
    // It is killed instead, or stands still for a while, and another one is there.
    if (random.chance(0.1)) reads[process] = [];
    else if (random.chance(0.2)) reads[process] = planned(rows, asOf);
    else {
      ran += store.run(reads[process]!) + store.run(planned(rows, asOf));
      reads[process] = [];
    }
    calls += 1;
    now += random.between(1, 40);
  }
  now = to;

  const clocks = new Map(timezones.map((timezone) => [timezone as string, new WallClock(timezone, from, to)]));
  const enqueued = new Map<string, number[]>([...store.rows.keys()].map((name) => [name, []]));
  for (const { name, time } of store.outbox) enqueued.get(name)!.push(time);
  const movesOf = new Map<string, Move[]>([...store.rows.keys()].map((name) => [name, []]));
  for (const move of store.moves) movesOf.get(move.from.name)!.push(move);
  let [occurrences, missed, kept] = [0, 0, 0];
  for (const row of store.rows.values()) {
    const what = `${row.name}: ${row.cron} in ${row.timezone}, ${row.missed}`;
    const ofYear = clocks.get(row.timezone)!.occurrencesOf(row.cron);
    const all = ofYear.filter((time) => time > from && time <= row.since);
    const got = enqueued.get(row.name)!;
    expect(new Set(got).size, what).toBe(got.length);
    // Each poll has dealt with what was due by then.
    const expected = movesOf.get(row.name)!.flatMap((move) => {
      const due = all.filter((time) => time > move.from.since && time <= move.upto);
      const late = due.filter((time) => move.asOf - time > lateMs);
      missed += late.length;
      const chosen = row.missed === "all" ? late : row.missed === "one" ? late.slice(-1) : [];
      kept += chosen.length;
      return [...chosen, ...due.slice(late.length)];
    });
    expect(got, what).toEqual(expected);
    // All that was due by the end was dealt with.
    const last = ofYear.findLast((time) => time <= to - 5_000) ?? from;
    expect(row.since, what).toBeGreaterThanOrEqual(last);
    occurrences += all.length;
  }
  console.log(
    `${schedules} schedules, ${occurrences} occurrences, ${missed} missed, of which ${kept} were enqueued; ${calls} calls, ${ran} moves`,
  );
  expect(occurrences).toBeGreaterThan(50_000);
  expect(missed).toBeGreaterThan(kept);
});

function planned(rows: readonly Planned["row"][], asOf: number): Planned[] {
  return rows.map((row) => ({ row, asOf, limit, plan: planOccurrences(timesOf(row), new Date(asOf), limit) }));
}
