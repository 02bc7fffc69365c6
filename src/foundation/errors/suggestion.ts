/**
 * Suggests the known name that a mistyped name probably meant: the first name with the fewest changed, missing, added
 * or swapped characters, if these are at most two fifths of its length; undefined if no name is close.
 *
 * The SQL function `hawser.nats_option_suggestion` returns the same name.
 */
export function suggestOption(name: string, known: readonly string[], maxLength: number): string | undefined {
  const characters = [...asciiLowerCase(name)];
  if (characters.length > maxLength) {
    return undefined;
  }
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(characters, [...candidate]);
    if (distance < bestDistance && distance <= Math.max(1, Math.floor((candidate.length * 2) / 5))) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Lowers A to Z only: Postgres and JavaScript lower other letters differently. */
function asciiLowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** Optimal string alignment: Levenshtein distance in which a swap of two adjacent characters is one step. */
function editDistance(one: readonly string[], other: readonly string[]): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= other.length; j += 1) {
      const change = one[i - 1] === other[j - 1] ? 0 : 1;
      let steps = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + change);
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]) {
        steps = Math.min(steps, beforeLast[j - 2]! + 1);
      }
      row.push(steps);
    }
    beforeLast = last;
    last = row;
  }
  return last[other.length]!;
}
