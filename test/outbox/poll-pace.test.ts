/**
 * When a relay looks, and whether it has to be notified, in virtual time: transactions enqueue at some moment and
 * commit at a later one; they notify if they found the relay asleep when they enqueued. Mutants show that the check can fail.
 */

import { describe, expect, it } from "vitest";
import { type DueTimes, type PaceSettings, PollPace, paceDefaults } from "../../src/nats/outbox/poll-pace.js";
import { Random } from "../simulator/random.js";
import { atDepth } from "../support/depth.js";

const settings: PaceSettings = { ...paceDefaults, canBeNotified: true };
const lookTakesMs = 1;

interface Message {
  readonly enqueuedAt: number;
  readonly committedAt: number;
  hasNotified: boolean;
  foundAt: number | undefined;
}

/** @returns the first message that had to wait too long; undefined: none had */
function late(seed: number, pace: PollPace, slowestMs: number): string | undefined {
  const random = new Random(seed);
  const endMs = 20_000;
  // Some come alone, others close together.
  const messages: Message[] = Array.from({ length: random.between(1, 12) }, () => random.next() * endMs).flatMap((at) =>
    Array.from({ length: random.chance(0.3) ? random.between(5, 20) : 1 }, (_, nth) => {
      const enqueuedAt = at + nth * random.next() * settings.awakeMs;
      const openMs = random.pick([0, 2, 20, 300, 2_000, 8_000]) * random.next();
      return { enqueuedAt, committedAt: enqueuedAt + openMs, hasNotified: false, foundAt: undefined };
    }),
  );
  const moments = messages.flatMap((message) => [
    { at: message.enqueuedAt, message, isCommit: false },
    { at: message.committedAt, message, isCommit: true },
  ]);
  moments.sort((one, other) => one.at - other.at);
  let isAsleep = false;
  /** Advances the time, with all events until then. */
  const advance = (until: number): void => {
    for (let next = moments[0]; next !== undefined && next.at <= until; next = moments[0]) {
      moments.shift();
      if (!next.isCommit) next.message.hasNotified = isAsleep;
      else if (next.message.hasNotified) pace.notified();
    }
  };
  // Transactions get their ids in the order in which they enqueue.
  const xids = [...messages].sort((one, other) => one.enqueuedAt - other.enqueuedAt);
  const snapshotAt = (at: number): string => {
    const next = xids.filter(({ enqueuedAt }) => enqueuedAt <= at).length;
    const open = xids.findIndex(({ committedAt }, xid) => xid < next && committedAt > at);
    return `${open === -1 ? next : open}:${next}:`;
  };
  let now = 0;
  for (let looks = 0; messages.some(({ foundAt }) => foundAt === undefined); looks++) {
    if (looks > 100_000) return "it looks without end";
    const asleep = pace.startPoll(now);
    advance(now);
    // What is said counts at once, and the look reads behind it.
    isAsleep = asleep ?? isAsleep;
    const snapshot = snapshotAt(now);
    const found = messages.filter(({ committedAt, foundAt }) => foundAt === undefined && committedAt <= now);
    for (const message of found) message.foundAt = now;
    now += lookTakesMs;
    advance(now);
    pace.endPoll(now, found.length, snapshot);
    // Until the next look is due, or somebody notifies.
    for (const { at } of [...moments]) {
      if (pace.at <= now || at > pace.at) break;
      now = Math.max(now, at);
      advance(now);
    }
    if (pace.at > now) now = pace.at;
  }
  const tooLate = messages.find(
    ({ enqueuedAt, committedAt, foundAt }) =>
      foundAt! - committedAt > slowestMs + Math.min(settings.slowPollMs, 2 * (committedAt - enqueuedAt)),
  );
  return tooLate && JSON.stringify(tooLate);
}

function firstLate(
  made: () => PollPace,
  seeds: number,
  slowestMs = 2 * settings.pollMs + 2 * lookTakesMs,
): string | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    const found = late(seed, made(), slowestMs);
    if (found !== undefined) return `seed ${seed}: ${found}`;
  }
  return undefined;
}

describe("the poll pace of a relay", () => {
  it("finds a message soon after its commit, however long its transaction lasted", () => {
    expect(firstLate(() => new PollPace(settings, false), atDepth(20_000))).toBeUndefined();
  });

  it("polls often if it cannot be notified", () => {
    const made = () => new PollPace({ ...settings, canBeNotified: false }, undefined);
    expect(firstLate(made, atDepth(5_000), 2 * settings.unnotifiedPollMs)).toBeUndefined();
  });

  it.each<[string, () => PollPace]>([
    [
      "hears no notification",
      () =>
        new (class extends PollPace {
          override notified(): void {}
        })(settings, false),
    ],
    [
      "tells nobody that it sleeps",
      () =>
        new (class extends PollPace {
          override startPoll(now: number) {
            super.startPoll(now);
            return undefined;
          }
        })(settings, false),
    ],
    ["looks slowly at once", () => new PollPace({ ...settings, pollMs: settings.slowPollMs }, false)],
    [
      "takes it that everybody notifies it as soon as it sleeps",
      () =>
        new (class extends PollPace {
          override endPoll(now: number, found: number): void {
            super.endPoll(now, found, "7:7:");
          }
        })(settings, false),
    ],
    [
      "forgets a notification that comes during a look",
      () =>
        new (class extends PollPace {
          #isLooking = false;
          override notified(): void {
            if (!this.#isLooking) super.notified();
          }
          override startPoll(now: number) {
            this.#isLooking = true;
            return super.startPoll(now);
          }
          override endPoll(now: number, found: number, snapshot: string): void {
            this.#isLooking = false;
            super.endPoll(now, found, snapshot);
          }
        })(settings, false),
    ],
  ])("would be caught if it %s", (_, made) => {
    expect(firstLate(made, 2_000)).toBeDefined();
  });

  it.each([
    ["when nothing comes, and everybody notifies it", "20:20:", 30],
    ["about once a second while a transaction is open that may not notify it", "15:20:15", 80],
  ])("looks seldom %s", (_, later, most) => {
    const pace = new PollPace(settings, false);
    let looks = 0;
    for (let now = 0; now < 60_000; looks++) {
      pace.startPoll(now);
      pace.endPoll(now, 0, now === 0 ? "15:20:15" : later);
      now = pace.at;
    }
    expect(looks).toBeLessThan(most);
  });

  it("polls once per notification while few messages arrive", () => {
    const pace = new PollPace(settings, false);
    let looks = 0;
    let notifies = false;
    const look = (now: number, hasFound: boolean): void => {
      notifies = pace.startPoll(now) ?? notifies;
      pace.endPoll(now, hasFound ? 1 : 0, "7:7:");
      looks += 1;
    };
    let now = 0;
    for (; now < 10_000; now = pace.at) look(now, false);
    looks = 0;
    for (let message = 0; message < 10; message++) {
      const committedAt = now + settings.awakeMs;
      while (pace.at < committedAt) look(pace.at, false);
      expect(notifies).toBe(true);
      pace.notified();
      now = committedAt;
      for (let hasFound = true; pace.at <= now; hasFound = false) look(now, hasFound);
    }
    // One of them because a second has passed.
    expect(looks).toBeLessThanOrEqual(11);
  });

  it("asks for no notifications while messages arrive in succession, until none arrives for a while", () => {
    const pace = new PollPace(settings, true);
    let now = 0;
    for (let found = 0; found < settings.busyPolls; found++, now += 5) {
      expect(pace.startPoll(now)).toBeUndefined();
      pace.endPoll(now, 1, "7:7:");
      pace.notified();
    }
    expect(pace.startPoll(now)).toBe(false);
    pace.endPoll(now, 1, "7:7:");
    expect(pace.at).toBe(now + settings.pollMs);
    now += settings.pollMs;
    pace.startPoll(now);
    pace.endPoll(now, settings.manyMessages, "7:7:");
    expect(pace.at).toBe(now + settings.manyPollMs);
    now += settings.awakeMs;
    expect(pace.startPoll(now)).toBe(true);
  });

  const at = (ms: number, role = "app"): DueTimes => new Map([[role, ms]]);

  it("keeps the earliest due time of each role", () => {
    const pace = new PollPace({ ...settings, pollMs: 3, dueCheckMs: 10 }, false);
    pace.endDue(0, undefined, { moved: 0, next: { from: at(5), inMs: 2 } });
    pace.endDue(0, undefined, { moved: 0, next: { from: new Map([...at(7), ...at(4, "other")]), inMs: 1 } });
    expect(pace.dueFrom(2)).toEqual(new Map([...at(5), ...at(4, "other")]));
  });

  it("polls when a scheduled message is due, and again right after due messages were moved", () => {
    const pace = new PollPace({ ...settings, pollMs: 3, dueCheckMs: 10 }, false);
    pace.startPoll(0);
    pace.endPoll(0, 0, "7:7:");
    pace.endDue(0, undefined, { moved: 0, next: { from: at(5), inMs: 2 } });
    expect(pace.at).toBe(2);
    expect(pace.dueFrom(1)).toBeUndefined();
    pace.endDue(1, undefined, { moved: 0, next: undefined });
    expect(pace.dueFrom(2)).toEqual(at(5));
    pace.endDue(2, at(5), { moved: 3, next: undefined });
    expect(pace.at).toBe(Number.NEGATIVE_INFINITY);
    expect(pace.dueFrom(100)).toBeUndefined();
  });

  it("checks for due messages at intervals, because the clock of Postgres may be changed", () => {
    const pace = new PollPace({ ...settings, pollMs: 3, dueCheckMs: 10 }, false);
    pace.endDue(0, undefined, { moved: 0, next: { from: at(5_000), inMs: 5_000 } });
    expect(pace.dueAt).toBe(10);
  });

  it("checks for due messages again if the result of a turn is unknown", () => {
    const pace = new PollPace(settings, false);
    pace.endDue(0, undefined, { moved: 0, next: { from: at(5), inMs: 2 } });
    expect(pace.dueFrom(3)).toEqual(at(5));
    expect(pace.dueFrom(4)).toEqual(at(5));
  });
});
