/**
 * Merges NATS subscriptions: one subscription to `orders.>` also receives the messages for a function that is bound to
 * `orders.*`, so that the server sends each message once and not once per function.
 */

/**
 * Maximum number of NATS subscriptions of one role that receive the same message. If more subjects of its functions
 * overlap, a wider subject receives for them: the server sends each message once per subscription, and closes the
 * connection of all roles if that is more than the process can read.
 */
const maxCopies = 8;
/**
 * Maximum number of comparisons to find patterns that receive the same messages: about 10 ms. If there are more, a
 * wider subject receives for all of them.
 */
const maxPatternLooks = 200_000;

/** True if every subject that matches `narrow` matches `wide`. Both may contain wildcards. */
export function covers(wide: string, narrow: string): boolean {
  return wide === narrow || tokensCover(wide.split("."), narrow.split("."));
}

function tokensCover(wider: readonly string[], narrower: readonly string[]): boolean {
  for (const [at, word] of wider.entries()) {
    const other = narrower[at];
    if (other === undefined) return false;
    if (word === ">") return true;
    if (other === ">" || (word !== "*" && word !== other)) return false;
  }
  return wider.length === narrower.length;
}

/** True if the subject contains a wildcard. */
export function isWildcard(subject: string): boolean {
  return /(^|\.)(\*|>)(\.|$)/.test(subject);
}

/**
 * Maps each subject to its receiver, the subject to subscribe to at NATS. The receiver is the subject itself, the
 * widest given subject that covers it, or a wider wildcard. At most `maxCopies` receivers match any one message.
 *
 * @param refused subjects that the NATS server refuses: they receive nothing and cover nothing
 */
export function receiversOf(subjects: Iterable<string>, refused: ReadonlySet<string>): ReadonlyMap<string, string> {
  const all = [...new Set(subjects)].sort().map(patternOf);
  const wildcards = all.filter(({ subject }) => isWildcard(subject) && !refused.has(subject));
  const widest = mergeOverlaps(widestOf(wildcards), refused);
  return new Map(
    all.map((one) => [one.subject, (widest.find((wide) => tokensCover(wide.tokens, one.tokens)) ?? one).subject]),
  );
}

interface Pattern {
  readonly subject: string;
  readonly tokens: readonly string[];
}

function patternOf(subject: string): Pattern {
  return { subject, tokens: subject.split(".") };
}

function widestOf(patterns: readonly Pattern[]): readonly Pattern[] {
  return patterns.filter((one) => !patterns.some((other) => other !== one && tokensCover(other.tokens, one.tokens)));
}

/** Replaces patterns that overlap too much by one pattern that covers them. */
function mergeOverlaps(patterns: readonly Pattern[], refused: ReadonlySet<string>): readonly Pattern[] {
  const overlapping = overlappingIn(patterns);
  if (overlapping === undefined) return patterns;
  const wide = narrowestOver(overlapping);
  const overlappingSet = new Set(overlapping);
  const others = patterns.filter((one) => !overlappingSet.has(one));
  // The NATS server refuses the wider pattern, so the overlap stays.
  if (refused.has(wide.subject)) return [...overlapping, ...mergeOverlaps(others, refused)];
  // No other pattern covers `wide`: it would also cover the overlapping patterns, and no other pattern covers those.
  return mergeOverlaps([wide, ...others.filter((one) => !tokensCover(wide.tokens, one.tokens))], refused);
}

/** Narrowest pattern that covers all given patterns. */
function narrowestOver(patterns: readonly Pattern[]): Pattern {
  const words: string[] = [];
  for (let at = 0; ; at += 1) {
    const here = new Set(patterns.map((one) => one.tokens[at]));
    if (here.has(">")) return patternOf([...words, ">"].join("."));
    if (here.has(undefined)) return patternOf((here.size === 1 ? words : [...words.slice(0, -1), ">"]).join("."));
    words.push(here.size === 1 ? [...here][0]! : "*");
  }
}

/**
 * Returns more than `maxCopies` patterns that match a common subject, or patterns for which the search would take too
 * long; undefined if there are none.
 */
function overlappingIn(patterns: readonly Pattern[]): readonly Pattern[] | undefined {
  let left = maxPatternLooks;
  /** Searches `some` patterns, which match a common prefix of `at` tokens. */
  const overlappingBelow = (some: readonly Pattern[], at: number): readonly Pattern[] | undefined => {
    if (some.length <= maxCopies) return undefined;
    left -= some.length;
    // The search is exponential in the worst case, so it has a budget.
    if (left < 0) return some;
    const here: Pattern[] = [];
    const anyNext: Pattern[] = [];
    const byWord = new Map<string, Pattern[]>();
    for (const one of some) {
      const word = one.tokens[at];
      const isTail = word === undefined && one.tokens.at(-1) === ">";
      if (word === undefined) here.push(one);
      if (isTail || word === "*" || word === ">") anyNext.push(one);
      else if (word !== undefined) {
        const those = byWord.get(word);
        if (those === undefined) byWord.set(word, [one]);
        else those.push(one);
      }
    }
    if (here.length > maxCopies) return here;
    // A token that no pattern names matches only wildcards, which every named token matches too. So the named tokens
    // suffice.
    const nexts = byWord.size === 0 ? [anyNext] : [...byWord.values()].map((those) => [...anyNext, ...those]);
    for (const next of nexts) {
      const found = overlappingBelow(next, at + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return overlappingBelow(patterns, 0);
}
