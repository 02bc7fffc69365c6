/**
 * Which subjects are covered by which: one NATS subscription to `orders.>` receives for a function on `orders.*`, too, so
 * that the server sends each message once and not once for each function.
 */
import { bridgeConstants } from "../../generated/ts/settings/nats.js";

const { maxCopies } = bridgeConstants;

/** How many patterns are looked at to find those with a subject in common: some 20 ms. */
const maxLooks = 1_000_000;

/** Whether every subject that matches `narrow` matches `wide`. Both may have wildcards. */
export function covers(wide: string, narrow: string): boolean {
  if (wide === narrow) return true;
  const [wider, narrower] = [wide.split("."), narrow.split(".")];
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
  const all = [...new Set(subjects)].sort();
  const wildcards = all.filter((subject) => isWildcard(subject) && !refused.has(subject));
  const widest = thinned(widestOf(wildcards), refused);
  return new Map(all.map((subject) => [subject, widest.find((wide) => covers(wide, subject)) ?? subject]));
}

function widestOf(patterns: readonly string[]): readonly string[] {
  return patterns.filter((one) => !patterns.some((other) => other !== one && covers(other, one)));
}

/** Puts one that covers them in the place of those that receive the same messages, where these are too many. */
function thinned(patterns: readonly string[], refused: ReadonlySet<string>): readonly string[] {
  const crowd = new Crowds(patterns).first();
  if (crowd === undefined) return patterns;
  const wide = join(crowd);
  const others = patterns.filter((one) => !crowd.includes(one));
  // Then there is no other way.
  if (refused.has(wide)) return [...crowd, ...thinned(others, refused)];
  return thinned(widestOf([wide, ...others]), refused);
}

/** The narrowest that covers all of these. */
function join(patterns: readonly string[]): string {
  const all = patterns.map((pattern) => pattern.split("."));
  const words: string[] = [];
  for (let at = 0; ; at += 1) {
    const here = new Set(all.map((one) => one[at]));
    if (here.has(">")) return [...words, ">"].join(".");
    if (here.has(undefined)) return here.size === 1 ? words.join(".") : [...words.slice(0, -1), ">"].join(".");
    words.push(here.size === 1 ? [...here][0]! : "*");
  }
}

interface Pattern {
  readonly pattern: string;
  readonly words: readonly string[];
}

/** Looks for patterns that have a subject in common, word by word. */
class Crowds {
  readonly #all: readonly Pattern[];
  /** There can be more ways to go than there is time for. */
  #left = maxLooks;

  constructor(patterns: readonly string[]) {
    this.#all = patterns.map((pattern) => ({ pattern, words: pattern.split(".") }));
  }

  /** More than `max_copies` of them with a subject in common, or that are too many to tell; undefined: there are none. */
  first(): readonly string[] | undefined {
    return this.#below(this.#all, 0)?.map(({ pattern }) => pattern);
  }

  /** @param some those that match the first words of a subject, `at` many */
  #below(some: readonly Pattern[], at: number): readonly Pattern[] | undefined {
    if (some.length <= maxCopies) return undefined;
    this.#left -= some.length;
    if (this.#left < 0) return some;
    const here: Pattern[] = [];
    const anyNext: Pattern[] = [];
    const byWord = new Map<string, Pattern[]>();
    for (const one of some) {
      const word = one.words[at];
      const isTail = one.words.at(-1) === ">" && at >= one.words.length;
      if (isTail || word === undefined) here.push(one);
      if (isTail || word === "*" || word === ">") anyNext.push(one);
      else if (word !== undefined) byWord.set(word, [...(byWord.get(word) ?? []), one]);
    }
    if (here.length > maxCopies) return here;
    // A word that none of them names leads to no more than one that some name.
    const nexts = byWord.size === 0 ? [anyNext] : [...byWord.values()].map((those) => [...anyNext, ...those]);
    for (const next of nexts) {
      const found = this.#below(next, at + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}
