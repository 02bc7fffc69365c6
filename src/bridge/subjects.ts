/**
 * Which subjects are covered by which: one NATS subscription to `orders.>` receives for a function on `orders.*`, too, so
 * that the server sends each message once and not once for each function.
 */

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
 * For each of the subjects the one of them that receives for it: itself, or one that covers it and is covered by none.
 *
 * @param refused the NATS server refuses these: they receive nothing, and cover nothing
 */
export function receiversOf(subjects: Iterable<string>, refused: ReadonlySet<string>): ReadonlyMap<string, string> {
  const all = [...new Set(subjects)].sort();
  const wildcards = all.filter((subject) => isWildcard(subject) && !refused.has(subject));
  const widest = wildcards.filter((one) => !wildcards.some((other) => other !== one && covers(other, one)));
  return new Map(all.map((subject) => [subject, widest.find((wide) => covers(wide, subject)) ?? subject]));
}
