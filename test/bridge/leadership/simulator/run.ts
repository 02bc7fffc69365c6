/**
 * Runs seeds of the simulation, and gathers what happened.
 *
 *     node --import tsx test/bridge/leadership/simulator/run.ts [seeds of each profile] [one seed]
 */
import { pathToFileURL } from "node:url";
import { Counts, Violation } from "../../../simulator/records.js";
import { type Mutant, mutants, unchanged } from "./mutants.js";
import { type ProfileName, profiles } from "./profiles.js";
import { World } from "./world.js";

/** Result of a run. */
interface Outcome {
  readonly counts: Counts;
  readonly failures: readonly { readonly seed: number; readonly message: string }[];
}

/** Runs `count` seeds from `first` on. */
export async function runSeeds(
  profile: ProfileName,
  {
    first = 1,
    count,
    mutant = unchanged,
    stopAtFailure = false,
  }: { first?: number; count: number; mutant?: Mutant; stopAtFailure?: boolean },
): Promise<Outcome> {
  const counts = new Counts();
  const failures: { seed: number; message: string }[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const world = new World(seed, profile, mutant);
    try {
      await world.run();
    } catch (error) {
      if (!(error instanceof Violation)) throw Object.assign(error as Error, { seed });
      failures.push({ seed, message: error.message });
      if (stopAtFailure) break;
    }
    counts.merge(world.counts);
  }
  return { counts, failures };
}

async function main(count: number, first: number): Promise<void> {
  for (const profile of Object.keys(profiles) as ProfileName[]) {
    const { counts, failures } = await runSeeds(profile, { first, count });
    console.log(`${profile}: ${count} seeds, ${failures.length} with a violation`);
    for (const [name, value] of [...counts.values].sort(([a], [b]) => a.localeCompare(b)))
      console.log(`${String(value).padStart(10)}  ${name}`);
    for (const { seed, message } of failures.slice(0, 5)) console.log(`  seed ${seed}: ${message}`);
  }
  for (const [name, { mutant, profile, seeds }] of Object.entries(mutants)) {
    const { failures } = await runSeeds(profile, { first, count: Math.min(count, seeds), mutant });
    const said = failures[0] === undefined ? "" : `: seed ${failures[0].seed}: ${failures[0].message}`;
    console.log(
      `${failures.length > 0 ? "caught" : "MISSED"} in ${failures.length} of ${Math.min(count, seeds)}: ${name}${said}`,
    );
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
  await main(Number(process.argv[2] ?? 100), Number(process.argv[3] ?? 1));
