/**
 * `npm run simulate -- --seeds N [--seed S] [--only NAME]`: runs the delivery rules, of the channels between peers and of the
 * outbox, through N seeds each, from seed 1 or only seed S, and prints how often each fault and transition happened.
 * `--mutants` checks instead that every mutant is caught.
 */
import { parseArgs } from "node:util";
import { runSeeds, type Simulation, simulations } from "./run.js";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "2000" },
    seed: { type: "string" },
    only: { type: "string" },
    mutants: { type: "boolean", default: false },
  },
});

function count(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    console.error(`--${name} ${text}: must be a whole number above 0, such as --${name} 2000`);
    process.exit(64);
  }
  return value;
}

const names = simulations.map(({ name }) => name);
if (values.only !== undefined && !names.includes(values.only)) {
  console.error(`--only ${values.only}: must be ${names.join(" or ")}`);
  process.exit(64);
}
const first = values.seed === undefined ? 1 : count("seed", values.seed);
const total = values.seed === undefined ? count("seeds", values.seeds) : 1;

function runMutants({ mutants }: Simulation): boolean {
  let missed = 0;
  for (const { name, world, seeds } of mutants) {
    const result = runSeeds(world, { first: 1, count: seeds, stopAtFailure: false });
    if (result.failures.length === 0) missed += 1;
    const rate = ((100 * result.failures.length) / seeds).toFixed(2);
    console.log(`${result.failures.length > 0 ? "caught" : "MISSED"}  ${rate.padStart(6)} %  ${name}`);
    console.log(`                 ${result.failures[0]?.message ?? ""}`);
  }
  return missed === 0;
}

function runRules({ name, world, mustHappen }: Simulation): boolean {
  const began = performance.now();
  const result = runSeeds(world, {
    first,
    count: total,
    stopAtFailure: false,
    onProgress: (done) => process.stderr.isTTY && process.stderr.write(`\r${name}: ${done} of ${total} seeds`),
  });
  const seconds = (performance.now() - began) / 1000;
  if (process.stderr.isTTY) process.stderr.write("\r");
  for (const [counted, value] of [...result.counts.values].sort(([a], [b]) => a.localeCompare(b))) {
    console.log(`${String(value).padStart(10)}  ${counted}`);
  }
  for (const { seed, message } of result.failures.slice(0, 10)) console.error(`${name}, seed ${seed}: ${message}`);
  const missing = total >= 1000 ? mustHappen.filter((each) => !result.counts.values.has(each)) : [];
  for (const each of missing) console.error(`${name}: never happened: ${each}`);
  console.log(
    `${name}: ${total} seeds in ${seconds.toFixed(1)} s (${Math.round(total / seconds)}/s): ` +
      `${total - result.failures.length} clean, ${result.failures.length} with a violation`,
  );
  return result.failures.length === 0 && missing.length === 0;
}

const chosen = simulations.filter(({ name }) => values.only === undefined || values.only === name);
const results = chosen.map(values.mutants ? runMutants : runRules);
process.exit(results.every(Boolean) ? 0 : 1);
