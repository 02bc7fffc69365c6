/**
 * When a relay looks, and whether it has to be notified, in virtual time: transactions enqueue at some moment and
 * commit at a later one; they notify if they found the relay asleep when they enqueued. Mutants show that the check can fail.
 */
import { describe, expect, it } from "vitest";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { LookPace, type PaceSettings } from "../../src/runtime/index.js";
import { Random } from "../simulator/random.js";
import { atDepth } from "../support/depth.js";

const settings: PaceSettings = { ...outboxConstants, canBeNotified: true };
const lookTakesMs = 1;

interface Message {
  readonly enqueuedAt: number;
  readonly committedAt: number;
  hasNotified: boolean;
  foundAt: number | undefined;
}

/** @returns the first message that had to wait too long; undefined: none had */
function late(seed: number, pace: LookPace, slowestMs: number): string | undefined {
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
  /** What happens until then. */
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
    const asleep = pace.beginLook(now);
    advance(now);
    // What is said counts at once, and the look reads behind it.
    isAsleep = asleep ?? isAsleep;
    const snapshot = snapshotAt(now);
    const found = messages.filter(({ committedAt, foundAt }) => foundAt === undefined && committedAt <= now);
    for (const message of found) message.foundAt = now;
    now += lookTakesMs;
    advance(now);
    pace.endLook(now, found.length, snapshot);
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
      foundAt! - committedAt > slowestMs + Math.min(settings.slowLookMs, 2 * (committedAt - enqueuedAt)),
  );
  return tooLate && JSON.stringify(tooLate);
}

function firstLate(
  made: () => LookPace,
  seeds: number,
  slowestMs = 2 * settings.lookMs + 2 * lookTakesMs,
): string | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    const found = late(seed, made(), slowestMs);
    if (found !== undefined) return `seed ${seed}: ${found}`;
  }
  return undefined;
}

describe("the pace of a relay", () => {
  it("finds a message soon after its commit, however long its transaction went on", () => {
    expect(firstLate(() => new LookPace(settings, false), atDepth(20_000))).toBeUndefined();
  });

  it("looks often where nobody can notify it", () => {
    const { unnotifiedLookMs } = outboxConstants;
    const made = () => new LookPace({ ...settings, canBeNotified: false }, undefined);
    expect(firstLate(made, atDepth(5_000), 2 * unnotifiedLookMs)).toBeUndefined();
  });

  it.each<[string, () => LookPace]>([
    [
      "hears no notification",
      () =>
        new (class extends LookPace {
          override notified(): void {}
        })(settings, false),
    ],
    [
      "tells nobody that it sleeps",
      () =>
        new (class extends LookPace {
          override beginLook(now: number) {
            super.beginLook(now);
            return undefined;
          }
        })(settings, false),
    ],
    ["looks slowly at once", () => new LookPace({ ...settings, lookMs: settings.slowLookMs }, false)],
    [
      "takes it that everybody notifies it as soon as it sleeps",
      () =>
        new (class extends LookPace {
          override endLook(now: number, found: number): void {
            super.endLook(now, found, "7:7:");
          }
        })(settings, false),
    ],
    [
      "forgets a notification that comes during a look",
      () =>
        new (class extends LookPace {
          #isLooking = false;
          override notified(): void {
            if (!this.#isLooking) super.notified();
          }
          override beginLook(now: number) {
            this.#isLooking = true;
            return super.beginLook(now);
          }
          override endLook(now: number, found: number, snapshot: string): void {
            this.#isLooking = false;
            super.endLook(now, found, snapshot);
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
    const pace = new LookPace(settings, false);
    let looks = 0;
    for (let now = 0; now < 60_000; looks++) {
      pace.beginLook(now);
      pace.endLook(now, 0, now === 0 ? "15:20:15" : later);
      now = pace.at;
    }
    expect(looks).toBeLessThan(most);
  });

  it("looks once for each message that notifies it, as long as few come", () => {
    const pace = new LookPace(settings, false);
    let looks = 0;
    let notifies = false;
    const look = (now: number, hasFound: boolean): void => {
      notifies = pace.beginLook(now) ?? notifies;
      pace.endLook(now, hasFound ? 1 : 0, "7:7:");
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

  it("asks not to be notified where messages come one after another, until none comes for a while", () => {
    const pace = new LookPace(settings, true);
    let now = 0;
    for (let found = 0; found < settings.busyLooks; found++, now += 5) {
      expect(pace.beginLook(now)).toBeUndefined();
      pace.endLook(now, 1, "7:7:");
      pace.notified();
    }
    expect(pace.beginLook(now)).toBe(false);
    pace.endLook(now, 1, "7:7:");
    expect(pace.at).toBe(now + settings.lookMs);
    now += settings.lookMs;
    pace.beginLook(now);
    pace.endLook(now, settings.manyMessages, "7:7:");
    expect(pace.at).toBe(now + settings.manyLookMs);
    now += settings.awakeMs;
    expect(pace.beginLook(now)).toBe(true);
  });

  it("looks when a later message is due, and at once behind those that were brought in", () => {
    const pace = new LookPace({ ...settings, lookMs: 3, dueCheckMs: 10 }, false);
    pace.beginLook(0);
    pace.endLook(0, 0, "7:7:");
    pace.endDue(0, undefined, { brought: 0, next: { from: 5, inMs: 2 } });
    expect(pace.at).toBe(2);
    expect(pace.dueFrom(1)).toBeUndefined();
    pace.endDue(1, undefined, { brought: 0, next: undefined });
    expect(pace.dueFrom(2)).toBe(5);
    pace.endDue(2, 5, { brought: 3, next: undefined });
    expect(pace.at).toBe(Number.NEGATIVE_INFINITY);
    expect(pace.dueFrom(100)).toBeUndefined();
  });

  it("asks for due messages now and then, for the clock of Postgres may be set", () => {
    const pace = new LookPace({ ...settings, lookMs: 3, dueCheckMs: 10 }, false);
    pace.endDue(0, undefined, { brought: 0, next: { from: 5_000, inMs: 5_000 } });
    expect(pace.dueAt).toBe(10);
  });

  it("asks again for what is due when it was not told what became of a turn", () => {
    const pace = new LookPace(settings, false);
    pace.endDue(0, undefined, { brought: 0, next: { from: 5, inMs: 2 } });
    expect(pace.dueFrom(3)).toBe(5);
    expect(pace.dueFrom(4)).toBe(5);
  });
});
