/**
 * Which subjects are covered by which: one NATS subscription to `orders.>` receives for a function on `orders.*`, too, so
 * that the server sends each message once and not once for each function.
 */
import { bridgeConstants } from "../../generated/ts/settings/nats.js";

const { maxCopies, maxPatternLooks } = bridgeConstants;

/** Whether every subject that matches `narrow` matches `wide`. Both may have wildcards. */
export function covers(wide: string, narrow: string): boolean {
  return wide === narrow || wordsCover(wide.split("."), narrow.split("."));
}

function wordsCover(wider: readonly string[], narrower: readonly string[]): boolean {
  for (const [at, word] of wider.entries()) {
    const other = narrower[at];
    if (other === undefined) return false;
    if (word === ">") return true;
    if (other === ">" || (word !== "*" && word !== other)) return false;
  }
  return wider.length === narrower.length;
}

/** A subject that others are of. */
export function isWildcard(subject: string): boolean {
  return /(^|\.)(\*|>)(\.|$)/.test(subject);
}

/**
 * For each of the subjects the one that receives for it: itself, one of them that covers it and is covered by none, or a wider
 * one, so that no message is received by more than `max_copies` of them.
 *
 * @param refused the NATS server refuses these: they receive nothing, and cover nothing
 */
export function receiversOf(subjects: Iterable<string>, refused: ReadonlySet<string>): ReadonlyMap<string, string> {
  const all = [...new Set(subjects)].sort().map(patternOf);
  const wildcards = all.filter(({ subject }) => isWildcard(subject) && !refused.has(subject));
  const widest = thinned(widestOf(wildcards), refused);
  return new Map(
    all.map((one) => [one.subject, (widest.find((wide) => wordsCover(wide.words, one.words)) ?? one).subject]),
  );
}

interface Pattern {
  readonly subject: string;
  readonly words: readonly string[];
}

function patternOf(subject: string): Pattern {
  return { subject, words: subject.split(".") };
}

function widestOf(patterns: readonly Pattern[]): readonly Pattern[] {
  return patterns.filter((one) => !patterns.some((other) => other !== one && wordsCover(other.words, one.words)));
}

/** Puts one that covers them in the place of those that receive the same messages, where these are too many. */
function thinned(patterns: readonly Pattern[], refused: ReadonlySet<string>): readonly Pattern[] {
  const crowd = crowdOf(patterns);
  if (crowd === undefined) return patterns;
  const wide = join(crowd);
  const inCrowd = new Set(crowd);
  const others = patterns.filter((one) => !inCrowd.has(one));
  // Then there is no other way.
  if (refused.has(wide.subject)) return [...crowd, ...thinned(others, refused)];
  // None of them covers it: that one would cover the crowd.
  return thinned([wide, ...others.filter((one) => !wordsCover(wide.words, one.words))], refused);
}

/** The narrowest that covers all of these. */
function join(patterns: readonly Pattern[]): Pattern {
  const words: string[] = [];
  for (let at = 0; ; at += 1) {
    const here = new Set(patterns.map((one) => one.words[at]));
    if (here.has(">")) return patternOf([...words, ">"].join("."));
    if (here.has(undefined)) return patternOf((here.size === 1 ? words : [...words.slice(0, -1), ">"]).join("."));
    words.push(here.size === 1 ? [...here][0]! : "*");
  }
}

/** More than `max_copies` that have a subject in common, or too many to tell; undefined: there are none. */
function crowdOf(patterns: readonly Pattern[]): readonly Pattern[] | undefined {
  let left = maxPatternLooks;
  /** Among those that match the first words of a subject, `at` many. */
  const below = (some: readonly Pattern[], at: number): readonly Pattern[] | undefined => {
    if (some.length <= maxCopies) return undefined;
    left -= some.length;
    // There can be more ways to go than there is time for.
    if (left < 0) return some;
    const here: Pattern[] = [];
    const anyNext: Pattern[] = [];
    const byWord = new Map<string, Pattern[]>();
    for (const one of some) {
      const word = one.words[at];
      const isTail = word === undefined && one.words.at(-1) === ">";
      if (word === undefined) here.push(one);
      if (isTail || word === "*" || word === ">") anyNext.push(one);
      else if (word !== undefined) {
        const those = byWord.get(word);
        if (those === undefined) byWord.set(word, [one]);
        else those.push(one);
      }
    }
    if (here.length > maxCopies) return here;
    // A word that none of them names leads to no more than one that some name.
    const nexts = byWord.size === 0 ? [anyNext] : [...byWord.values()].map((those) => [...anyNext, ...those]);
    for (const next of nexts) {
      const found = below(next, at + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return below(patterns, 0);
}
