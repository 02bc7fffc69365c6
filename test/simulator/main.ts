/**
 * `npm run simulate -- --seeds N [--seed S]`: runs the delivery rules through N seeds, from seed 1 or only seed S, and
 * prints how often each fault and transition happened. `--mutants` checks instead that every mutant is caught.
 */
import { parseArgs } from "node:util";
import { mutants } from "./mutants.js";
import { runSeeds } from "./run.js";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "2000" },
    seed: { type: "string" },
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

if (values.mutants) {
  let missed = 0;
  for (const { name, mutant, seeds } of mutants) {
    const result = runSeeds({ first: 1, count: seeds, mutant, stopAtFailure: false });
    if (result.failures.length === 0) missed += 1;
    const rate = ((100 * result.failures.length) / seeds).toFixed(2);
    console.log(`${result.failures.length > 0 ? "caught" : "MISSED"}  ${rate.padStart(6)} %  ${name}`);
    console.log(`                 ${result.failures[0]?.message ?? ""}`);
  }
  process.exit(missed === 0 ? 0 : 1);
}

const first = values.seed === undefined ? 1 : count("seed", values.seed);
const total = values.seed === undefined ? count("seeds", values.seeds) : 1;
const began = performance.now();
const result = runSeeds({
  first,
  count: total,
  stopAtFailure: false,
  onProgress: (done) => process.stderr.isTTY && process.stderr.write(`\r${done} of ${total} seeds`),
});
const seconds = (performance.now() - began) / 1000;
if (process.stderr.isTTY) process.stderr.write("\r");
for (const [name, value] of [...result.counts.values].sort(([a], [b]) => a.localeCompare(b))) {
  console.log(`${String(value).padStart(10)}  ${name}`);
}
for (const { seed, message } of result.failures.slice(0, 10)) console.error(`seed ${seed}: ${message}`);
const missing = total >= 1000 ? result.neverHappened : [];
for (const name of missing) console.error(`never happened: ${name}`);
console.log(
  `${total} seeds in ${seconds.toFixed(1)} s (${Math.round(total / seconds)}/s): ` +
    `${total - result.failures.length} clean, ${result.failures.length} with a violation`,
);
process.exit(result.failures.length === 0 && missing.length === 0 ? 0 : 1);
