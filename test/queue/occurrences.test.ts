/**
 * The occurrences of schedules: the rules of changed clocks, and which are enqueued.
 */
import { Cron } from "croner";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { checkTimes, lateMs, planOccurrences } from "../../src/jobs-and-peers/queue/schedules/occurrences.js";
import { atDepth } from "../support/depth.js";
import { expectedOf } from "./support/schedule-store.js";
import { WallClock } from "./support/wall-clock.js";

/** All occurrences after a time and up to another. */
function between(cron: string, timezone: string, from: string, to: string): string[] {
  const plan = planOccurrences({ cron, timezone, missed: "all", since: new Date(from) }, new Date(to), 1_000);
  return plan.occurrences.map((time) => time.toISOString().replace(":00.000Z", "Z"));
}

/**
 * Runs a function in which dates can be computed only so often: more of them end it with an error. All searches compute
 * them at each step.
 */
function within<Result>(steps: number, run: () => Result): Result {
  let left = steps;
  const step = (): void => {
    left -= 1;
    if (left < 0) throw new Error(`took more than ${steps} steps`);
  };
  const construct: ProxyHandler<DateConstructor>["construct"] = (target, values) => {
    step();
    return Reflect.construct(target, values);
  };
  const get: ProxyHandler<DateConstructor>["get"] = (target, key) => {
    if (key === "UTC") step();
    return Reflect.get(target, key);
  };
  vi.stubGlobal("Date", new Proxy(Date, { construct, get }));
  try {
    return run();
  } finally {
    vi.unstubAllGlobals();
  }
}

describe("a changed clock", () => {
  it.each([
    ["runs a fixed time that is left out right behind the gap", "30 2 * * *", "2026-03-29", ["2026-03-29T01:00Z"]],
    ["runs several of them once", "0,15,30 2 * * *", "2026-03-29", ["2026-03-29T01:00Z"]],
    ["runs a fixed time behind the gap once", "0 2,3 * * *", "2026-03-29", ["2026-03-29T01:00Z"]],
    ["runs a fixed time that comes twice the first time", "30 2 * * *", "2026-10-25", ["2026-10-25T00:30Z"]],
    [
      "keeps to the time that passes with a step or * in spring",
      "*/30 1-3 * * *",
      "2026-03-29",
      ["2026-03-29T00:00Z", "2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"],
    ],
    [
      "keeps to the time that passes with a step or * in autumn",
      "*/30 2 * * *",
      "2026-10-25",
      ["2026-10-25T00:00Z", "2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z"],
    ],
    ["keeps days of the week where the time is left out", "30 2 * * 0", "2026-03-29", ["2026-03-29T01:00Z"]],
  ])("%s", (_, cron, day, expected) => {
    const from = new Date(Date.parse(`${day}T00:00Z`) - 3_600_000).toISOString();
    expect(between(cron, "Europe/Berlin", from, `${day}T12:00Z`)).toEqual(expected);
  });

  it("by half an hour is handled, too", () => {
    const spring = ["2026-10-03T12:00Z", "2026-10-03T18:00Z"] as const;
    expect(between("15 2 * * *", "Australia/Lord_Howe", ...spring)).toEqual(["2026-10-03T15:30Z"]);
    const autumn = ["2026-04-04T12:00Z", "2026-04-04T18:00Z"] as const;
    expect(between("45 1 * * *", "Australia/Lord_Howe", ...autumn)).toEqual(["2026-04-04T14:45Z"]);
  });

  it.each([
    [
      "ends at midnight",
      "America/Nuuk",
      "30 23 * * *",
      "2026-03-28T22:00Z",
      "2026-03-29T12:00Z",
      ["2026-03-29T01:00Z"],
    ],
    [
      "begins at midnight",
      "Africa/Cairo",
      "30 0 * * 5",
      "2026-04-23T12:00Z",
      "2026-04-24T12:00Z",
      ["2026-04-23T22:00Z"],
    ],
    [
      "is a whole day",
      "Pacific/Apia",
      "0 12 * * *",
      "2011-12-29T12:00Z",
      "2011-12-31T12:00Z",
      ["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"],
    ],
  ])("runs a fixed time right behind a gap that %s", (_, timezone, cron, from, to, expected) => {
    expect(between(cron, timezone, from, to)).toEqual(expected);
  });

  it("matches a calendar, minute by minute", () => {
    const changes = [
      ["Europe/Berlin", "2026-03-29T01:00Z"],
      ["Europe/Berlin", "2026-10-25T01:00Z"],
      ["America/New_York", "2026-03-08T07:00Z"],
      ["America/New_York", "2026-11-01T06:00Z"],
      ["Australia/Lord_Howe", "2026-10-03T15:30Z"],
      ["Australia/Lord_Howe", "2026-04-04T15:00Z"],
      ["America/Sao_Paulo", "2018-11-04T03:00Z"],
      ["America/Nuuk", "2026-03-29T01:00Z"],
      ["America/Nuuk", "2026-10-25T01:00Z"],
      ["Africa/Cairo", "2026-04-23T22:00Z"],
      ["Africa/Cairo", "2026-10-29T21:00Z"],
      ["Pacific/Apia", "2011-12-30T10:00Z"],
      ["UTC", "2026-02-28T23:00Z"],
    ] as const;
    const clocks = changes.map(([timezone, at]) => {
      const [from, to] = [Date.parse(at) - 4 * 3_600_000, Date.parse(at) + 4 * 3_600_000];
      return { timezone, from, to, clock: new WallClock(timezone, from, to) };
    });
    const values = (low: number, high: number) =>
      fc.uniqueArray(fc.integer({ min: low, max: high }), { minLength: 1, maxLength: 3 }).map((all) => all.join());
    const range = (low: number, high: number) =>
      fc.tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high })).map(([one, other]) => {
        return `${Math.min(one, other)}-${Math.max(one, other)}`;
      });
    const field = (low: number, high: number) =>
      fc.oneof(
        fc.constant("*"),
        values(low, high),
        range(low, high),
        fc.integer({ min: 1, max: high }).map((step) => `*/${step}`),
        fc.tuple(range(low, high), fc.integer({ min: 1, max: high - low })).map(([all, step]) => `${all}/${step}`),
      );
    const day = fc.oneof({ weight: 5, arbitrary: fc.constant("*") }, { weight: 1, arbitrary: field(1, 31) });
    const weekday = fc.oneof({ weight: 5, arbitrary: fc.constant("*") }, { weight: 1, arbitrary: field(0, 7) });
    const cron = fc
      .tuple(fc.option(values(0, 59)), field(0, 59), fc.oneof(field(0, 23), values(0, 3), range(0, 4)), day, weekday)
      .map(([second, minute, hour, date, dayOfWeek]) => {
        return `${second === null ? "" : `${second} `}${minute} ${hour} ${date} * ${dayOfWeek}`;
      });
    fc.assert(
      fc.property(cron, fc.constantFrom(...clocks), (expression, { timezone, from, to, clock }) => {
        const plan = planOccurrences(
          { cron: expression, timezone, missed: "all", since: new Date(from - 1_000) },
          new Date(to - 1_000),
          100_000,
        );
        expect(plan.occurrences.map((time) => time.getTime())).toEqual(clock.occurrencesOf(expression));
      }),
      { numRuns: atDepth(2_000) },
    );
  }, 120_000);
});

describe("a plan", () => {
  const since = new Date("2026-06-01T00:00:00Z");
  const later = (ms: number): Date => new Date(since.getTime() + ms);

  it.each(["one", "all", "none"] as const)("has what the policy %s says, however late it is", (missed) => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 1, max: 40 }), (agoMs, limit) => {
        const now = later(agoMs);
        const due = Array.from({ length: Math.floor(agoMs / 3_000) }, (_, nth) => later((nth + 1) * 3_000).getTime());
        const plan = planOccurrences({ cron: "*/3 * * * * *", timezone: "UTC", missed, since }, now, limit);
        const times = plan.occurrences.map((time) => time.getTime());
        expect(times).toEqual(expectedOf(due, missed, now.getTime(), limit));
        expect(plan.next!.getTime()).toBeGreaterThan(plan.upto.getTime());
        // What is passed over was missed.
        const left = due.filter((time) => time > (times.at(-1) ?? 0) && time < plan.next!.getTime());
        expect(left.every((time) => missed === "none" && now.getTime() - time > lateMs)).toBe(true);
      }),
      { numRuns: atDepth(500) },
    );
  });

  it("finds the last of very many missed occurrences at once", () => {
    const now = new Date("2126-06-01T00:00:00.500Z");
    const plan = planOccurrences({ cron: "* * * * * *", timezone: "UTC", missed: "one", since }, now, 100);
    expect(plan.occurrences.map((time) => now.getTime() - time.getTime())).toEqual(
      Array.from({ length: 11 }, (_, nth) => 10_500 - nth * 1_000),
    );
    const sparse = planOccurrences({ cron: "0 0 29 2 *", timezone: "UTC", missed: "one", since }, now, 100);
    expect(sparse.occurrences).toEqual([new Date("2124-02-29T00:00:00Z")]);
    expect(sparse.next).toEqual(new Date("2128-02-29T00:00:00Z"));
  });

  it("continues after a gap of many years", () => {
    const plan = planOccurrences({ cron: "0 0 29 2 *", timezone: "UTC", missed: "one", since: later(0) }, later(1), 1);
    expect(plan).toEqual({ occurrences: [], upto: since, next: new Date("2028-02-29T00:00:00Z"), problem: undefined });
    const century = new Date("2096-03-01T00:00:00Z");
    expect(
      planOccurrences({ cron: "0 0 29 2 *", timezone: "UTC", missed: "one", since: century }, century, 1).next,
    ).toEqual(new Date("2104-02-29T00:00:00Z"));
    const monday = new Date("2072-03-01T00:00:00Z");
    expect(
      planOccurrences({ cron: "0 0 29 2 +1", timezone: "UTC", missed: "one", since: monday }, monday, 1).next,
    ).toEqual(new Date("2112-02-29T00:00:00Z"));
  });

  it.each([
    ["60 * * * *", "UTC", "cron"],
    ["* * * * *", "CEST", "timezone"],
    ["0 0 30 2 *", "UTC", "never"],
    ["0 0 31 2,4,6,9,11 *", "UTC", "never"],
    ["* * * 31 2 +1", "Europe/Berlin", "never"],
  ])("of %s in %s has a problem and no time", (cron, timezone, problem) => {
    const plan = planOccurrences({ cron, timezone, missed: "one", since }, later(1_000), 100);
    expect(plan).toEqual({ occurrences: [], upto: since, next: undefined, problem });
  });

  it.each([
    ["never occurs", "0 0 30 2 *", "UTC"],
    ["never occurs on any weekday", "* * * 31 2 +1", "Europe/Berlin"],
    ["never occurs in any month", "* * * 1 * +2#2", "Asia/Kolkata"],
    ["falls into the gap of each year", "* * 2 * 3 0L", "Europe/Berlin"],
    ["falls into a gap at midnight", "*/7 23 24-30 3 +6", "America/Nuuk"],
  ])("takes few steps for an expression that %s", (_, cron, timezone) => {
    const { problem } = within(4_000, () =>
      planOccurrences({ cron, timezone, missed: "one", since }, later(1_000), 100),
    );
    expect(problem).toBe("never");
  });

  it("has the days of L, W, # and + that croner says of each day", () => {
    const from = Date.parse("2026-12-31T00:00Z");
    const days = Array.from({ length: 800 }, (_, nth) => new Date(from + (nth + 1) * 86_400_000));
    const date = fc.oneof(
      fc.constantFrom("*", "?", "L", "LW", "15,L", "1W", "31W", "10-20/5"),
      fc.integer({ min: 1, max: 31 }).map((day) => `${day}`),
      fc.integer({ min: 1, max: 31 }).map((day) => `2,${day}W`),
    );
    const nth = fc.constantFrom("", "", "#1", "#3", "#5", "#L", "L");
    const weekday = fc.oneof(
      fc.constantFrom("*", "?", "*/2", "mon", "1-5", "5-7", "sat,sun#2"),
      fc.tuple(fc.integer({ min: 0, max: 7 }), nth).map((parts) => parts.join("")),
    );
    const cron = fc
      .tuple(date, fc.constantFrom("*", "2", "feb,7"), fc.constantFrom("", "+"), weekday)
      .map(([day, month, plus, dayOfWeek]) => `0 0 ${day} ${month} ${plus}${dayOfWeek}`);
    fc.assert(
      fc.property(cron, (expression) => {
        const pattern = new Cron(expression, { timezone: "UTC", paused: true });
        const times = { cron: expression, timezone: "UTC", missed: "all", since: new Date(from) } as const;
        expect(planOccurrences(times, days.at(-1)!, 1_000).occurrences).toEqual(
          days.filter((day) => pattern.match(day)),
        );
      }),
      { numRuns: atDepth(1_000) },
    );
  });

  it("of any text that the rule of expressions allows has either a time or a problem", () => {
    const part = fc.string({ unit: fc.constantFrom(..."0123456789*,-/?LW#+ajnJMOFR"), minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(fc.array(part, { minLength: 5, maxLength: 6 }), (parts) => {
        const plan = planOccurrences(
          { cron: parts.join(" ").slice(0, 255), timezone: "UTC", missed: "one", since },
          later(60_000),
          100,
        );
        expect((plan.next === undefined) !== (plan.problem === undefined)).toBe(true);
      }),
      { numRuns: atDepth(5_000) },
    );
  });
});

describe("the check of a call", () => {
  it("names the value, the rule and a remedy", () => {
    const now = new Date("2026-06-01T00:00:00Z");
    expect(checkTimes("0 3 * * *", "Europe/Berlin", now)).toBeUndefined();
    expect(checkTimes("*/10 0 3 * * 1-5", "UTC", now)).toBeUndefined();
    for (const [cron, timezone, path] of [
      ["60 * * * *", "UTC", "cron"],
      ["0 0 30 2 *", "UTC", "cron"],
      ["* * * *", "UTC", "cron"],
      ["* * * * *", "Nowhere", "timezone"],
      ["* * * * *", "+02:00", "timezone"],
    ] as const) {
      expect(checkTimes(cron, timezone, now)).toEqual({
        path,
        value: JSON.stringify(path === "cron" ? cron : timezone),
        rule: expect.stringMatching(/^must/),
        remedy: expect.stringMatching(/\.$/),
      });
    }
  });
});
