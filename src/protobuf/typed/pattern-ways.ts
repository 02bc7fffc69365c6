/**
 * Limit on the number of ways in which a pattern can match a text. JavaScript matches by backtracking: if the beginning
 * of a text can be matched in several ways, and the whole text does not match, JavaScript tries all these ways.
 * `^(?:a+)+$` matches n letters in 2ⁿ ways, so that a received text of 30 characters blocks the process for minutes;
 * `^[a-z]*[a-z0-9]*x$` matches them in n ways, which takes minutes for a million characters.
 *
 * The ways are therefore counted when a pattern is read, for all possible texts. A state is the number of ways in which
 * each place of the pattern is reached after some text. The first state is that of the empty text; each further
 * character leads to another state. The count is that of an exhaustive backtracking matcher, so these limits hold for
 * all texts:
 *
 * - at most 100 ways at any character;
 * - at most 16 ways at characters that can repeat without end. A match therefore takes at most 16 steps for each
 * character of a long text, each with as many comparisons as the pattern has branches there: milliseconds for a million
 * characters.
 *
 * The counting ends: either the number of states is finite, or a count exceeds its limit. Postgres needs no such limit:
 * it follows all ways at once, and visits each place of the pattern at most once per character.
 */

/** Ranges of code points, both ends included. */
export type Characters = readonly (readonly [from: number, to: number])[];

/** Pattern, or a part of it, as a tree. */
export type PatternNode =
  | { readonly kind: "characters"; readonly characters: Characters }
  | { readonly kind: "sequence"; readonly parts: readonly PatternNode[] }
  | { readonly kind: "choice"; readonly branches: readonly PatternNode[] }
  | { readonly kind: "repeat"; readonly body: PatternNode; readonly min: number; readonly max: number };

export const lastCodePoint = 0x10ffff;
const maxWays = 100;
const maxLastingWays = 16;
/** Greatest number of places, with each repetition counted: `[a-z]{5}` has five. Postgres creates as many states. */
const maxPlaces = 10_000;
/** Greatest number of counting steps, a fraction of a second. */
const maxSteps = 1_000_000;

/** Reason why a match of the pattern could take long; undefined if none can. */
export function waysProblem(pattern: PatternNode): string | undefined {
  try {
    const graph = new Places();
    const start = graph.add(pattern, end);
    new Ways(graph, start).count();
    return undefined;
  } catch (error) {
    if (error instanceof TooManyWays) return error.message;
    throw error;
  }
}

/** Problem of the pattern, as an error for the author of the schema. */
class TooManyWays extends Error {}

const tooComplex = () => new TooManyWays("is too complex to bound the time of a match; use fewer nested repetitions");

/** Character to compare, or a branch. */
type PatternState =
  | { readonly characters: Characters; readonly next: number }
  | { readonly characters: undefined; readonly branches: readonly number[] };

/** End of the pattern. */
const end = -1;

/** Places of a pattern by number; each repetition has places of its own. */
class Places {
  readonly all: PatternState[] = [];

  /** Adds the places of a part before `next`. @returns the first place of the part */
  add(node: PatternNode, next: number): number {
    switch (node.kind) {
      case "characters":
        return this.#push({ characters: node.characters, next });
      case "sequence":
        return node.parts.reduceRight((following, part) => this.add(part, following), next);
      case "choice":
        return this.#push({ characters: undefined, branches: node.branches.map((branch) => this.add(branch, next)) });
      case "repeat":
        return this.#repeat(node, next);
    }
  }

  #repeat({ body, min, max }: Extract<PatternNode, { kind: "repeat" }>, next: number): number {
    if (max > 1 && canBeEmpty(body)) {
      throw new TooManyWays(
        "repeats a part that can be empty; let the part match at least one character, as in (?:ab*)*",
      );
    }
    let at = next;
    let left = min;
    if (max === Number.POSITIVE_INFINITY) {
      const branches = [next];
      const loop = this.#push({ characters: undefined, branches });
      branches.unshift(this.add(body, loop));
      at = min === 0 ? loop : branches[0]!;
      left = Math.max(0, min - 1);
    } else {
      for (let optional = max - min; optional > 0; optional--) {
        at = this.#push({ characters: undefined, branches: [this.add(body, at), next] });
      }
    }
    for (; left > 0; left--) at = this.add(body, at);
    return at;
  }

  #push(place: PatternState): number {
    if (this.all.length >= maxPlaces) throw tooComplex();
    return this.all.push(place) - 1;
  }
}

function canBeEmpty(node: PatternNode): boolean {
  switch (node.kind) {
    case "characters":
      return false;
    case "sequence":
      return node.parts.every(canBeEmpty);
    case "choice":
      return node.branches.some(canBeEmpty);
    case "repeat":
      return node.min === 0 || canBeEmpty(node.body);
  }
}

/** Number of ways to each place that has just read a character. */
type Counts = ReadonlyMap<number, number>;

interface State {
  readonly counts: Counts;
  readonly ways: number;
  /** Previous state: the text of `before` followed by `character` leads to this state. */
  readonly before: State | undefined;
  readonly character: number;
  readonly next: State[];
}

class Ways {
  readonly #places: readonly PatternState[];
  readonly #start: number;
  /** Places that a place leads to without a character, with their number of ways. */
  readonly #reached = new Map<number, Counts>();
  readonly #states = new Map<string, State>();
  /**
   * States to visit, by their number of ways. Those with the most are taken first, so that a pattern with too many is
   * found early.
   */
  readonly #waiting: State[][] = Array.from({ length: maxWays + 1 }, () => []);
  #steps = 0;

  constructor({ all }: Places, start: number) {
    this.#places = all;
    this.#start = start;
  }

  /** @throws TooManyWays */
  count(): void {
    const alphabet = alphabetOf(this.#places);
    this.#add({ counts: new Map(), ways: 1, before: undefined, character: 0, next: [] });
    for (let state = this.#take(); state !== undefined; state = this.#take()) {
      const following = state.before === undefined ? this.#from(this.#start) : this.#following(state);
      for (const [character, readers] of alphabet) this.#read(state, following, character, readers);
    }
    const most = lasting([...this.#states.values()]).reduce<State | undefined>(
      (found, state) => (state.ways > (found?.ways ?? maxLastingWays) ? state : found),
      undefined,
    );
    if (most !== undefined) throw tooMany(most, `${most.ways} ways, for each further character`);
  }

  /** Adds the state after one more character. */
  #read(state: State, following: Counts, character: number, readers: ReadonlySet<number>): void {
    const counts = new Map<number, number>();
    let ways = 0;
    this.#count(following.size);
    for (const [place, count] of following) {
      if (!readers.has(place)) continue;
      counts.set(place, count);
      ways += count;
    }
    if (ways === 0) return;
    const found: State = { counts, ways, before: state, character, next: [] };
    if (ways > maxWays) throw tooMany(found, `more than ${maxWays} ways`);
    state.next.push(this.#add(found));
  }

  #following({ counts }: State): Counts {
    const following = new Map<number, number>();
    for (const [place, count] of counts) {
      const reached = this.#from((this.#places[place] as { next: number }).next);
      this.#count(reached.size);
      for (const [next, ways] of reached) following.set(next, (following.get(next) ?? 0) + count * ways);
    }
    return following;
  }

  #from(place: number): Counts {
    const known = this.#reached.get(place);
    if (known !== undefined) return known;
    const reached = new Map<number, number>();
    const at = place === end ? undefined : this.#places[place]!;
    if (at?.characters !== undefined) reached.set(place, 1);
    for (const branch of at?.characters === undefined ? (at?.branches ?? []) : []) {
      const further = this.#from(branch);
      this.#count(further.size);
      for (const [next, ways] of further) reached.set(next, Math.min(maxWays + 1, (reached.get(next) ?? 0) + ways));
    }
    this.#reached.set(place, reached);
    return reached;
  }

  #add(state: State): State {
    const key = [...state.counts]
      .sort(([one], [other]) => one - other)
      .flat()
      .join(" ");
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    this.#states.set(key, state);
    this.#waiting[state.ways]!.push(state);
    return state;
  }

  #take(): State | undefined {
    return this.#waiting.findLast((states) => states.length > 0)?.pop();
  }

  #count(steps: number): void {
    this.#steps += steps + 1;
    if (this.#steps > maxSteps) throw tooComplex();
  }
}

/** Alphabet: one character for each set that the places cannot distinguish, with the places that read it. */
function alphabetOf(places: readonly PatternState[]): [character: number, readers: ReadonlySet<number>][] {
  const starts = new Set<number>();
  for (const { characters = [] } of places) for (const [from, to] of characters) starts.add(from).add(to + 1);
  const sorted = [...starts].sort((one, other) => one - other);
  const indexes = new Map(sorted.map((start, index) => [start, index]));
  const readers: Set<number>[] = sorted.map(() => new Set());
  for (const [place, { characters = [] }] of places.entries()) {
    for (const [from, to] of characters) {
      for (let index = indexes.get(from)!; sorted[index]! <= to; index++) readers[index]!.add(place);
    }
  }
  const alphabet = new Map<string, [number, ReadonlySet<number>]>();
  for (const [index, start] of sorted.entries()) {
    if (readers[index]!.size > 0) alphabet.set([...readers[index]!].join(" "), [start, readers[index]!]);
  }
  return [...alphabet.values()];
}

/** States that a text can reach without end: those that remain after a topological sort. */
function lasting(states: readonly State[]): State[] {
  const arriving = new Map<State, number>();
  for (const { next } of states) for (const state of next) arriving.set(state, (arriving.get(state) ?? 0) + 1);
  const passed = new Set(states.filter((state) => !arriving.has(state)));
  for (const { next } of passed) {
    for (const state of next) {
      const left = arriving.get(state)! - 1;
      arriving.set(state, left);
      if (left === 0) passed.add(state);
    }
  }
  return states.filter((state) => !passed.has(state));
}

function tooMany(state: State, ways: string): TooManyWays {
  let text = "";
  for (let at = state; at.before !== undefined; at = at.before) text = String.fromCodePoint(at.character) + text;
  const shown = JSON.stringify(text.length > 20 ? `${text.slice(0, 20)}…` : text);
  return new TooManyWays(
    `can read ${shown} in ${ways}, so a match may take very long; write it so that the next character determines the branch, such as (?:[a-z]+-)*[a-z]* for ([a-z]+-?)*`,
  );
}
