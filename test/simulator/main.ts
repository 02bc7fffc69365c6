/** `npm run simulate`: runs the simulations, and prints how often each fault and transition happened. `--help` has the options. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Counts } from "./records.js";
import { runSeeds, type Simulation } from "./simulation.js";
import { simulations } from "./simulations.js";

const names = simulations.map(({ name }) => name);

const usage = `npm run simulate -- [--seeds N] [--from S] [--only NAME] [--jobs N]
npm run simulate -- --seed S [--only NAME]
npm run simulate -- --mutants [--only NAME]

Runs the delivery rules under random faults. Everything in a run follows from its seed.

Options:
  --seeds N    Run N seeds of each simulation. Default: 2000
  --from S     Begin at seed S. Default: 1
  --seed S     Run this seed alone
  --only NAME  Only one simulation: ${names.join(", ")}
  --jobs N     Run them in so many processes. Default: one for each core
  --mutants    Check instead that each broken rule is noticed
  --help, -h   Show this text`;

interface Settings {
  readonly first: number;
  readonly total: number;
  readonly jobs: number;
  readonly chosen: readonly Simulation[];
  readonly mutants: boolean;
}

/** @throws Error that says what would be right */
function readSettings(): Settings | "help" {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      from: { type: "string" },
      seed: { type: "string" },
      only: { type: "string" },
      jobs: { type: "string" },
      mutants: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return "help";
  const whole = (name: "seeds" | "from" | "seed" | "jobs"): number | undefined => {
    const text = values[name];
    if (text === undefined) return undefined;
    if (/^\d{1,15}$/.test(text) && Number(text) > 0) return Number(text);
    throw new Error(`--${name} is "${text}"; it must be a whole number above 0, such as --${name} 2000.`);
  };
  const [seeds, from, seed] = [whole("seeds"), whole("from"), whole("seed")];
  if (seed !== undefined && (from !== undefined || (seeds ?? 1) !== 1)) {
    throw new Error(`--seed ${seed} runs this seed alone; leave it out to run several, with --from and --seeds.`);
  }
  const chosen = simulations.filter(({ name }) => values.only === undefined || values.only === name);
  if (chosen.length === 0) throw new Error(`There is no simulation "${values.only}". They are ${names.join(", ")}.`);
  const total = seed === undefined ? (seeds ?? 2000) : 1;
  const jobs = whole("jobs") ?? availableParallelism();
  return { first: seed ?? from ?? 1, total, jobs, chosen, mutants: values.mutants };
}

async function runMutants({ mutants }: Simulation): Promise<boolean> {
  let missed = 0;
  for (const { name, world, seeds } of mutants) {
    // Enough to tell how often it shows: a run that goes wrong takes long.
    const result = await runSeeds(world, { first: 1, count: seeds, maxFailures: 5 });
    if (result.failures.length === 0) missed += 1;
    const rate = ((100 * result.failures.length) / result.seeds).toFixed(2);
    console.log(`${result.failures.length > 0 ? "caught" : "MISSED"}  ${rate.padStart(6)} %  ${name}`);
    console.log(`                 ${result.failures[0]?.message ?? ""}`);
  }
  return missed === 0;
}

/** Some seeds that a process runs. */
interface Share {
  readonly name: string;
  readonly first: number;
  readonly count: number;
}

/** Result of the seeds of a share, as it passes between processes. */
interface ShareResult {
  readonly counts: ReadonlyMap<string, number>;
  readonly failures: readonly { readonly seed: number; readonly message: string }[];
}

/** Number of seeds that a process runs at once. */
const shareSeeds = 50;

/** Runs the shares that the first process sends, one after the other. */
function serveShares(): void {
  process.on("message", async ({ name, first, count }: Share) => {
    const { world } = simulations.find((each) => each.name === name)!;
    const { counts, failures } = await runSeeds(world, { first, count, maxFailures: Number.POSITIVE_INFINITY });
    process.send!({ counts: counts.values, failures } satisfies ShareResult);
  });
}

/**
 * This program as JavaScript, below the project, so that it finds `node_modules`. tsx keeps the names of functions, which makes each
 * closure cost more.
 *
 * @returns its file, which is removed when this process exits
 */
async function compile(): Promise<string> {
  const { build } = await import("esbuild");
  const cache = fileURLToPath(new URL("../../node_modules/.cache/", import.meta.url));
  mkdirSync(cache, { recursive: true });
  const directory = mkdtempSync(join(cache, "hawser-simulator-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const outfile = join(directory, "main.mjs");
  await build({
    entryPoints: [fileURLToPath(import.meta.url)],
    outfile,
    bundle: true,
    packages: "external",
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "warning",
  });
  return outfile;
}

/** Limit of violations that are shown. */
const mostShown = 10;
/** A log has a line of progress for so many seeds. */
const progressSeeds = 5_000;

/** Runs the seeds in several processes, and tells violations at once: a run may take hours. */
async function runShared(program: string, name: string, { first, total, jobs }: Settings) {
  const counts = new Counts();
  const failures: ShareResult["failures"][number][] = [];
  let [begun, done] = [0, 0];
  const work = async (): Promise<void> => {
    const worker = fork(program, { serialization: "advanced", execArgv: [] });
    const ended = once(worker, "exit").then(([code]) => {
      if (!isOver) throw new Error(`A process that runs seeds of the simulation ended with ${code}.`);
    });
    let isOver = false;
    while (begun < total) {
      const share: Share = { name, first: first + begun, count: Math.min(shareSeeds, total - begun) };
      begun += share.count;
      worker.send(share);
      const [result] = (await Promise.race([once(worker, "message"), ended])) as [ShareResult];
      for (const [counted, value] of result.counts) counts.add(counted, value);
      for (const failure of result.failures) {
        failures.push(failure);
        if (failures.length <= mostShown) console.error(`${name}, seed ${failure.seed}: ${failure.message}`);
      }
      done += share.count;
      const progress = `${name}: ${done} of ${total} seeds`;
      if (process.stderr.isTTY) process.stderr.write(`\r${progress}`);
      else if (done % progressSeeds < share.count) console.error(`${progress}, ${failures.length} with a violation`);
    }
    isOver = true;
    worker.disconnect();
    await ended;
  };
  const processes = Math.min(jobs, Math.ceil(total / shareSeeds));
  await Promise.all(Array.from({ length: processes }, work));
  return { counts, failures };
}

/** Seeds of a simulation in which the rarest of its faults and transitions happens several times. */
const seedsForAll = 10_000;

async function runRules(program: string, { name, mustHappen }: Simulation, settings: Settings): Promise<boolean> {
  const { total } = settings;
  const began = performance.now();
  const result = await runShared(program, name, settings);
  const seconds = (performance.now() - began) / 1000;
  if (process.stderr.isTTY) process.stderr.write("\r");
  for (const [counted, value] of [...result.counts.values].sort(([a], [b]) => a.localeCompare(b))) {
    console.log(`${String(value).padStart(10)}  ${counted}`);
  }
  const missing = total >= seedsForAll ? mustHappen.filter((each) => !result.counts.values.has(each)) : [];
  for (const each of missing) console.error(`${name}: never happened: ${each}`);
  console.log(
    `${name}: ${total} seeds in ${seconds.toFixed(1)} s (${Math.round(total / seconds)}/s): ` +
      `${total - result.failures.length} clean, ${result.failures.length} with a violation`,
  );
  return result.failures.length === 0 && missing.length === 0;
}

async function simulate(settings: Settings): Promise<boolean> {
  const program = settings.mutants ? undefined : await compile();
  let isRight = true;
  for (const simulation of settings.chosen) {
    const isClean = await (program === undefined ? runMutants(simulation) : runRules(program, simulation, settings));
    isRight = isClean && isRight;
  }
  return isRight;
}

async function main(): Promise<void> {
  let settings: Settings | "help";
  try {
    settings = readSettings();
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
  if (settings === "help") console.log(usage);
  else process.exit((await simulate(settings)) ? 0 : 1);
}

if (process.send === undefined) await main();
else serveShares();
