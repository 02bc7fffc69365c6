/**
 * Sets of sequence numbers as ranges with inclusive ends: sorted, disjoint, and not adjacent.
 */
export type Ranges = readonly (readonly [first: number, last: number])[];

/** Union of two sets. */
export function union(one: Ranges, other: Ranges): Ranges {
  if (one.length === 0 || other.length === 0) return one.length === 0 ? other : one;
  return joined([...one, ...other]);
}

/** Set from ranges in any order, which may overlap. */
export function joined(all: Ranges): Ranges {
  const ranges: [first: number, last: number][] = [];
  for (const [first, last] of [...all].sort(([a], [b]) => a - b)) {
    const before = ranges.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else ranges.push([first, last]);
  }
  return ranges;
}

/** True if the set contains the number. */
export function includes(ranges: Ranges, number: number): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle]![1] < number) low = middle + 1;
    else high = middle;
  }
  return low < ranges.length && ranges[low]![0] <= number;
}

/** Count of the set's numbers from `first` to `last`. */
export function countIn(ranges: Ranges, first: number, last: number): number {
  let count = 0;
  for (const [from, to] of ranges) count += Math.max(0, Math.min(to, last) - Math.max(from, first) + 1);
  return count;
}

/** Advances the position over the numbers of `done` that follow it without a gap; returns the rest as `done`. */
export function advanced(position: number, done: Ranges): { readonly position: number; readonly done: Ranges } {
  let reached = position;
  let at = 0;
  for (; at < done.length && done[at]![0] <= reached + 1; at += 1) reached = Math.max(reached, done[at]![1]);
  return at === 0 ? { position, done } : { position: reached, done: done.slice(at) };
}

/** Formats a set as an int8multirange. */
export function multirangeOf(ranges: Ranges): string {
  return `{${ranges.map(([first, last]) => `[${first},${last + 1})`).join(",")}}`;
}

/** Parses an int8multirange. */
export function rangesOf(multirange: string): Ranges {
  return [...multirange.matchAll(/\[(\d+),(\d+)\)/g)].map(([, first, end]) => [Number(first), Number(end) - 1]);
}
