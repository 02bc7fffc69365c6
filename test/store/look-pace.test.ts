/**
 * When the relay for peers looks, and whether it has to be notified, in virtual time: transactions enqueue at some moment and
 * commit at a later one; they notify if they found the relay asleep when they enqueued. Mutants show that the check can fail.
 */
import { describe, expect, it } from "vitest";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { LookPace, type PaceSettings } from "../../src/store/peer-relay.js";
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
  const messages: Message[] = Array.from({ length: random.between(1, 12) }, () => {
    const enqueuedAt = random.next() * endMs;
    const openMs = random.pick([0, 2, 20, 300, 2_000]) * random.next();
    return { enqueuedAt, committedAt: enqueuedAt + openMs, hasNotified: false, foundAt: undefined };
  });
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
  let now = 0;
  for (let looks = 0; messages.some(({ foundAt }) => foundAt === undefined); looks++) {
    if (looks > 100_000) return "it looks without end";
    const { asleep } = pace.begin(now);
    advance(now);
    // What is said counts at once, and the look reads behind it.
    isAsleep = asleep ?? isAsleep;
    const found = messages.filter(({ committedAt, foundAt }) => foundAt === undefined && committedAt <= now);
    for (const message of found) message.foundAt = now;
    now += lookTakesMs;
    advance(now);
    pace.end(now, { handed: found.length, hasMore: false, brought: 0, dueFrom: null, dueInMs: null });
    // Until the next look is due, or somebody notifies.
    for (const { at } of [...moments]) {
      if (pace.at <= now || at > pace.at) break;
      now = Math.max(now, at);
      advance(now);
    }
    if (pace.at > now) now = pace.at;
  }
  const tooLate = messages.find(
    ({ enqueuedAt, committedAt, foundAt }) => foundAt! - committedAt > slowestMs + 2 * (committedAt - enqueuedAt),
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

describe("the pace of the relay for peers", () => {
  it("finds a message soon after its commit, however long its transaction went on", () => {
    expect(firstLate(() => new LookPace(settings), atDepth(20_000))).toBeUndefined();
  });

  it("looks often where nobody can notify it", () => {
    const { unnotifiedLookMs } = settings;
    const made = () => new LookPace({ ...settings, canBeNotified: false });
    expect(firstLate(made, atDepth(5_000), 2 * unnotifiedLookMs)).toBeUndefined();
  });

  it.each<[string, () => LookPace]>([
    [
      "hears no notification",
      () =>
        new (class extends LookPace {
          override notified(): void {}
        })(settings),
    ],
    [
      "tells nobody that it sleeps",
      () =>
        new (class extends LookPace {
          override begin(now: number) {
            return { ...super.begin(now), asleep: undefined };
          }
        })(settings),
    ],
    ["looks slowly at once", () => new LookPace({ ...settings, lookMs: settings.slowLookMs })],
    [
      "forgets a notification that comes during a look",
      () =>
        new (class extends LookPace {
          #isLooking = false;
          override notified(): void {
            if (!this.#isLooking) super.notified();
          }
          override begin(now: number) {
            this.#isLooking = true;
            return super.begin(now);
          }
          override end(now: number, found: Parameters<LookPace["end"]>[1]): void {
            this.#isLooking = false;
            super.end(now, found);
          }
        })(settings),
    ],
  ])("would be caught if it %s", (_, made) => {
    expect(firstLate(made, 2_000)).toBeDefined();
  });

  it("looks about once a second when nothing comes", () => {
    const pace = new LookPace(settings);
    let looks = 0;
    for (let now = 0; now < 60_000; looks++) {
      pace.begin(now);
      pace.end(now, { handed: 0, hasMore: false, brought: 0, dueFrom: null, dueInMs: null });
      now = pace.at;
    }
    expect(looks).toBeLessThan(80);
  });

  it("looks when a later message is due, and at once behind those that were brought in", () => {
    const pace = new LookPace(settings);
    const nothing = { handed: 0, hasMore: false, brought: 0, dueFrom: null, dueInMs: null };
    const dueFrom = new Date(5);
    pace.begin(0);
    pace.end(0, { ...nothing, dueFrom, dueInMs: 2n });
    expect(pace.at).toBe(2);
    expect(pace.begin(1).dueFrom).toBeUndefined();
    pace.end(1, nothing);
    expect(pace.begin(2).dueFrom).toBe(dueFrom);
    pace.end(2, { ...nothing, brought: 3 });
    expect(pace.at).toBe(Number.NEGATIVE_INFINITY);
  });
});
