import { describe, expect, it } from "vitest";
import { covers, receiversOf } from "../../src/nats/bridge/subjects.js";

/** All subjects of up to `length` words. */
function all(words: readonly string[], length: number, last: readonly string[] = []): string[] {
  const longest = Array.from({ length: length - 1 }).reduce<string[]>(
    (beginnings) => beginnings.flatMap((one) => words.map((word) => `${one}${word}.`)),
    [""],
  );
  const own = longest.flatMap((one) => [...words, ...last].map((word) => `${one}${word}`));
  return length === 1 ? own : [...all(words, length - 1, last), ...own];
}

const patterns = all(["a", "b", "*"], 3, [">"]);
// One word more than the patterns have: for what '>' stands for. A word that no pattern has: for '*'.
const subjects = all(["a", "b", "c"], 4);
const matching = new Map(patterns.map((one) => [one, new Set(subjects.filter((subject) => covers(one, subject)))]));

describe("a subject covers another one", () => {
  it("if it matches whatever the other one does: all pairs of up to three words of a, b, * and >", () => {
    for (const wide of patterns) {
      for (const narrow of patterns) {
        const isWider = [...matching.get(narrow)!].every((subject) => matching.get(wide)!.has(subject));
        expect(covers(wide, narrow), `${wide} covers ${narrow}`).toBe(isWider);
      }
    }
  });

  it.each([
    ["a.>", "a.b", true],
    ["a.>", "a", false],
    ["a.*", "a.b.c", false],
    ["*.b", "a.b", true],
    [">", "a", true],
    ["a", "a", true],
    ["a*", "ab", false],
  ])("%s, %s: %s", (wide, narrow, isCovered) => expect(covers(wide, narrow)).toBe(isCovered));
});

describe("who receives for a subject", () => {
  const none = new Set<string>();

  it("covers it, is one of them, and is covered by none of the others", () => {
    for (let start = 0; start < patterns.length; start += 1) {
      const some = patterns.filter((_, at) => (at * 7 + start) % 5 === 0);
      for (const [subject, receiver] of receiversOf(some, none)) {
        expect(some).toContain(receiver);
        expect(covers(receiver, subject)).toBe(true);
        expect(some.filter((other) => other !== receiver && covers(other, receiver))).toEqual([]);
      }
    }
  });

  it("is one for 256 that overlap below one of them", () => {
    const words = (set: number) =>
      Array.from({ length: 8 }, (_, bit) => (set & (1 << bit) ? "*" : `w${bit}`)).join(".");
    const overlapping = Array.from({ length: 256 }, (_, set) => words(set));
    expect(new Set(receiversOf(overlapping, none).values())).toEqual(new Set(["*.*.*.*.*.*.*.*"]));
  });

  it("is not one that the server refuses", () => {
    expect(receiversOf(["a.>", "a.b", "a.*"], new Set(["a.>"]))).toEqual(
      new Map([
        ["a.*", "a.*"],
        ["a.>", "a.>"],
        ["a.b", "a.*"],
      ]),
    );
  });

  /** Number of patterns that receive a message on the subject. */
  const copies = (receivers: ReadonlyMap<string, string>, subject: string) =>
    [...new Set(receivers.values())].filter((receiver) => covers(receiver, subject)).length;

  it("is a wider one if more than eight would receive the same message: all covered, and no subject by more", () => {
    const overlapping = all(["x", "*"], 6).filter((one) => one.split("*").length - 1 === 3);
    expect(overlapping.filter((one) => covers(one, "x.x.x.x.x.x"))).toHaveLength(20);
    const receivers = receiversOf([...overlapping, "*.y", "other.*"], none);
    for (const [subject, receiver] of receivers) expect(covers(receiver, subject)).toBe(true);
    for (const subject of all(["x", "y"], 6)) expect(copies(receivers, subject)).toBeLessThanOrEqual(8);
    expect(receivers.get("*.y")).toBe("*.y");
    expect(receivers.get("other.*")).toBe("other.*");
  });

  it("is never received by more than eight, for any patterns", () => {
    const some = all(["a", "b", "*"], 5, [">"]);
    const subjects = all(["a", "b", "c"], 6);
    for (let seed = 1; seed <= 30; seed += 1) {
      let state = seed;
      const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
      const chosen = some.filter(() => random() < seed / 60);
      const receivers = receiversOf(chosen, none);
      expect([...receivers.keys()].sort()).toEqual(chosen.sort());
      for (const [subject, receiver] of receivers)
        expect(covers(receiver, subject), `${receiver} for ${subject}`).toBe(true);
      for (const subject of subjects) expect(copies(receivers, subject), subject).toBeLessThanOrEqual(8);
    }
  });

  it("is itself if few receive the same message, however many there are", () => {
    const events = Array.from({ length: 500 }, (_, n) => `service${n}.*`);
    expect(new Set(receiversOf([...events, "*.created", "*.deleted"], none).values()).size).toBe(502);
  });

  it("is itself if the server refuses the wider one", () => {
    const overlapping = all(["x", "*"], 6).filter((one) => one.length === 11 && one.split("*").length - 1 === 3);
    const wide = "*.*.*.*.*.*";
    expect(new Set(receiversOf(overlapping, none).values())).toEqual(new Set([wide]));
    expect(new Set(receiversOf(overlapping, new Set([wide])).values())).toEqual(new Set(overlapping));
  });

  it("is found in a moment, also for patterns that are chosen to make it long", () => {
    let state = 1;
    const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
    const hard = Array.from({ length: 1_000 }, () =>
      Array.from({ length: 40 }, () => (random() < 0.5 ? "*" : random() < 0.5 ? "a" : "b")).join("."),
    );
    // An exhaustive search would not end.
    expect(receiversOf(hard, none).size).toBe(new Set(hard).size);
  });
});
