/**
 * Minutes around changes of clocks, in which several processes run schedules that users change. The occurrences are those of an
 * oracle that knows nothing of the planner.
 */
import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { runDueSchedules } from "../../src/jobs-and-peers/queue/schedules/schedules.js";
import { Random } from "../simulator/random.js";
import { atDepth } from "../support/depth.js";
import { calmMs, checkMoves, runUntil, ScheduleStore } from "./support/schedule-store.js";
import { WallClock } from "./support/wall-clock.js";

const minuteMs = 60_000;

/** Changes of clocks, and a time without one. The minute of the change, and the expressions that are hit by it. */
const occasions = [
  { timezone: "Europe/Berlin", at: "2026-03-29T01:00Z", crons: ["30 2 * * *", "*/2 2-3 * * *", "0,1 2,3 * * *"] },
  {
    timezone: "Europe/Berlin",
    at: "2026-10-25T01:00Z",
    crons: ["58 2 * * *", "1 2 * * *", "*/2 * * * *", "2,58 2 * * *"],
  },
  { timezone: "America/New_York", at: "2026-03-08T07:00Z", crons: ["15,45 2 * * *", "1 3 * * *", "*/3 * * * *"] },
  { timezone: "America/New_York", at: "2026-11-01T06:00Z", crons: ["59 1 * * *", "1 1 * * *", "* 1 * * *"] },
  { timezone: "Australia/Lord_Howe", at: "2026-10-03T15:30Z", crons: ["10 2 * * *", "*/2 * * * *", "29,31 2 * * *"] },
  { timezone: "Australia/Lord_Howe", at: "2026-04-04T15:00Z", crons: ["58 1 * * *", "31 1 * * *", "*/2 1-2 * * *"] },
  { timezone: "UTC", at: "2026-02-28T23:58Z", crons: ["0 0 * * *", "59 23 28 * *", "0 0 1 * 1"] },
] as const;

/** Expressions with occurrences at all times. */
const frequent = ["*/20 * * * * *", "* * * * *", "5,35 * * * * *", "*/4 * * * *"] as const;

it("schedules that change while clocks do enqueue each occurrence once, and those that were missed by their policy", async () => {
  const reached = new Set<string>();
  for (let seed = 1; seed <= atDepth(500); seed++) {
    const random = new Random(seed);
    const occasion = random.pick(occasions);
    // The change comes early or late in the run.
    const from = Date.parse(occasion.at) - random.between(1_000, 600_999);
    const until = from + 12 * minuteMs;
    const store = new ScheduleStore(from, 3);
    const change = (name: string) => {
      const cron = random.pick<string>(random.chance(0.6) ? occasion.crons : frequent);
      const timezone = random.chance(0.8) ? occasion.timezone : "UTC";
      store.schedule({ name, cron, timezone, missed: random.pick(["one", "all", "none"]) });
    };
    const names = ["a", "b", "c"];
    for (const name of names) change(name);
    await runUntil(store, random, until, () => {
      const name = random.pick(names);
      const old = store.schedules.get(name);
      const roll = random.next();
      if (roll < 0.03) change(name);
      else if (roll < 0.06 && old !== undefined) store.schedule({ ...old, missed: "all" });
      else if (roll < 0.07) store.schedules.delete(name);
      // Nothing runs for a while.
      else if (roll < 0.12) {
        const wakesAt = Math.min(store.now + random.between(1, 180) * 1_000, until - calmMs);
        store.now = Math.max(store.now, wakesAt);
      }
    });

    const start = Math.floor(from / (15 * minuteMs)) * 15 * minuteMs;
    const clocks = new Map(
      [occasion.timezone, "UTC"].map((timezone) => [timezone, new WallClock(timezone, start, start + 60 * minuteMs)]),
    );
    for (const each of checkMoves(store, until, (cron, timezone) => clocks.get(timezone)!.occurrencesOf(cron)))
      reached.add(each);
  }
  expect(reached).toEqual(new Set(["one", "all", "none", "page"]));
});

it("other tasks of the process run between schedules that take long", async () => {
  const store = new ScheduleStore(Date.parse("2026-06-01T00:00Z"), 3);
  for (let nth = 0; nth < 10; nth++)
    store.schedule({ name: `s${nth}`, cron: `${nth} 3 * * *`, timezone: "UTC", missed: "one" });
  let ms = 0;
  const run = runDueSchedules(
    store.functions("done"),
    () => false,
    () => (ms += 10),
  );
  let isOver = false;
  const over = run.then(() => {
    isOver = true;
  });
  let tasks = 0;
  for (; !isOver; tasks++) await setImmediate();
  await over;
  expect(store.moves.length).toBeGreaterThan(1);
  expect(tasks).toBeGreaterThanOrEqual(store.moves.length);
});
