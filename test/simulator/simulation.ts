/** What every simulation has: rules that hold in the worlds of its seeds, and mutants that break them. */
import { Counts, Violation } from "./records.js";

/** World of one run. Everything in it follows from the seed. */
interface RunnableWorld {
  readonly counts: Counts;
  /** @throws Violation */
  run(): void | Promise<void>;
}

/** Where the runs look for a mutant. */
export interface MutantOptions {
  /** Number of seeds within which a mutant must be caught. Default: that of the simulation. */
  readonly seeds?: number;
  /** The first of these seeds: one that soon catches the mutant, where that takes long from 1 on. */
  readonly firstSeed?: number;
  /** Text of the violation. */
  readonly says?: RegExp;
}

/** A program that the simulation must catch. */
interface SimulatedMutant extends Required<MutantOptions> {
  readonly name: string;
  world(seed: number): RunnableWorld;
}

/** Seeds and events of a simulation. */
interface SimulationOptions {
  /** Number of seeds that the test runs. Default: 1,000. */
  readonly seeds?: number;
  /** Seed from which the test soon reaches everything that must happen. */
  readonly firstSeed?: number;
  /** Seeds with a rare event that the model once got wrong, where the rules were right. */
  readonly knownSeeds?: readonly number[];
  /** Events that must happen in any long run; a count of zero means that the simulation does not reach them any more. */
  readonly mustHappen: readonly string[];
}

/** Subject of a simulation, with its rules. */
export interface Simulation extends Required<SimulationOptions> {
  readonly name: string;
  world(seed: number): RunnableWorld;
  readonly mutants: readonly SimulatedMutant[];
}

/** Names of events of one kind, as they are counted. */
export function events(kind: string, ...names: readonly string[]): string[] {
  return names.map((name) => `${kind}: ${name}`);
}

/** Defines a simulation. `world` makes a run; without a mutant, one of the rules as they are. */
export function simulation<Mutant extends MutantOptions>(
  name: string,
  world: (seed: number, mutant: Mutant | undefined) => RunnableWorld,
  mutants: Readonly<Record<string, Mutant>>,
  { seeds = 1_000, firstSeed = 1, knownSeeds = [], mustHappen }: SimulationOptions,
): Simulation {
  const made = Object.entries(mutants).map(([name, mutant]): SimulatedMutant => {
    return {
      name,
      seeds: mutant.seeds ?? seeds,
      firstSeed: mutant.firstSeed ?? 1,
      says: mutant.says ?? /./,
      world: (seed) => world(seed, mutant),
    };
  });
  return { name, seeds, firstSeed, knownSeeds, mustHappen, world: (seed) => world(seed, undefined), mutants: made };
}

interface RunOptions {
  readonly first: number;
  readonly count: number;
  /** Ends with so many violations. Default: 1. */
  readonly maxFailures?: number;
  /** Ends with so many seeds, once all of that has happened. Default: `count`. */
  readonly enough?: { readonly count: number; readonly happened: readonly string[] };
}

/**
 * Runs seeds `first` … `first + count - 1`, or as many as are enough, and gathers counts and violations.
 *
 * @returns also how many seeds were run
 */
export async function runSeeds(
  world: Simulation["world"],
  { first, count, maxFailures = 1, enough = { count, happened: [] } }: RunOptions,
) {
  const counts = new Counts();
  const failures: { seed: number; message: string }[] = [];
  let seeds = 0;
  while (seeds < count && failures.length < maxFailures) {
    const seed = first + seeds;
    const run = world(seed);
    try {
      await run.run();
    } catch (error) {
      if (!(error instanceof Violation)) throw Object.assign(error as Error, { seed });
      failures.push({ seed, message: error.message });
    }
    counts.merge(run.counts);
    seeds += 1;
    if (seeds >= enough.count && enough.happened.every((name) => counts.values.has(name))) break;
  }
  return { counts, failures, seeds };
}
