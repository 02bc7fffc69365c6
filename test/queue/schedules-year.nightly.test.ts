/**
 * A thousand schedules over a year, with both changes of clocks in four time zones, run by processes that come and go. The
 * occurrences are those of an oracle that knows nothing of the planner.
 */

import { expect, it } from "vitest";
import { scheduleConstants } from "../../generated/ts/settings/queue.js";
import { Random } from "../simulator/random.js";
import { checkMoves, runUntil, ScheduleStore } from "./support/schedule-store.js";
import { WallClock } from "./support/wall-clock.js";

const schedules = 1_000;
const from = Date.parse("2026-01-01T00:00Z");
const to = Date.parse("2027-01-01T00:00Z");
const timezones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "UTC"] as const;
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
  const night = random.pick([0, 1, 2, 3, 23]);
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

it("a thousand schedules over a year enqueue each occurrence once, and those that were missed by their policy", {
  timeout: 1_800_000,
}, async () => {
  const random = new Random(2026);
  const store = new ScheduleStore(from, scheduleConstants.pageOccurrences);
  for (let nth = 0; nth < schedules; nth++) {
    const given = { cron: cronOf(random), timezone: random.pick(timezones), missed: random.pick(policies) };
    store.schedule({ name: `s${nth}`, ...given });
  }
  await runUntil(store, random, to, () => {
    const outage = outages.find(([begin, end]) => store.now >= begin && store.now < end);
    if (outage !== undefined) store.now = outage[1];
  });

  const clocks = new Map(timezones.map((timezone) => [timezone as string, new WallClock(timezone, from, to)]));
  const known = new Map<string, readonly number[]>();
  const reached = checkMoves(store, to, (cron, timezone) => {
    const key = `${timezone} ${cron}`;
    const found = known.get(key) ?? clocks.get(timezone)!.occurrencesOf(cron);
    known.set(key, found);
    return found;
  });
  for (const policy of policies) expect(reached).toContain(policy);
  const enqueued = store.moves.reduce((sum, { times }) => sum + times.length, 0);
  console.log(`${schedules} schedules, ${enqueued} enqueued in ${store.moves.length} transactions`);
  expect(enqueued).toBeGreaterThan(50_000);
});
