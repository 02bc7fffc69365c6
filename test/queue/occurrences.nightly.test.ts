/**
 * Every time zone that Node.js knows, from 2020 to 2035, with schedules at the hours in which clocks are changed. The
 * occurrences are those of an oracle that knows nothing of the planner. Representatives are in `occurrences.test.ts`.
 */
import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { planOccurrences } from "../../src/jobs-and-peers/queue/schedules/occurrences.js";
import { WallClock } from "./support/wall-clock.js";

const crons = [
  ...["0 0 * * *", "30 0 * * *", "15 1 * * *", "30 2 * * *", "59 59 23 * * *", "30 23 * * 6"],
  ...["20,40 0,3,23 * * 0,5,6", "*/30 0-3,23 * * 0,5,6", "10 * * * 0", "*/50 30 1 1-7 * *"],
];

it("the wall clock of each time zone shows the times of each occurrence from 2020 to 2035", {
  timeout: 3_600_000,
}, async () => {
  const timezones = Intl.supportedValuesOf("timeZone");
  const wrong: string[] = [];
  let [count, different] = [0, 0];
  for (let year = 2020; year <= 2035; year++) {
    const [from, to] = [Date.UTC(year, 0), Date.UTC(year + 1, 0)];
    /** By the changes of a clock, which most time zones share with others. */
    const known = new Map<string, readonly string[]>();
    for (const timezone of timezones) {
      const clock = new WallClock(timezone, from, to);
      const { changes } = clock;
      const expected = known.get(changes) ?? crons.map((cron) => clock.occurrencesOf(cron).join());
      known.set(changes, expected);
      for (const [nth, cron] of crons.entries()) {
        const times = { cron, timezone, missed: "all", since: new Date(from - 1_000) } as const;
        const { occurrences } = planOccurrences(times, new Date(to - 1_000), 100_000);
        count += occurrences.length;
        if (occurrences.map((time) => time.getTime()).join() !== expected[nth])
          wrong.push(`${year} ${timezone} ${cron}`);
      }
      await setImmediate();
    }
    different += known.size;
  }
  console.log(`${timezones.length} time zones, ${different} different years, ${count} occurrences`);
  expect(wrong).toEqual([]);
});
