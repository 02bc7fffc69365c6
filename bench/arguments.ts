/**
 * The command line of `npm run bench`.
 */
import { parseArgs } from "node:util";
import { HawserError } from "../src/foundation/errors/index.js";
import { variables } from "./baselines.js";
import type { Suite } from "./suite.js";

/** A parsed command line of the benchmarks. */
export interface BenchCommand {
  /** The suite to run, or all of them; undefined if the page is written from saved results. */
  readonly run: Suite | "all" | undefined;
  /** Little work, for trying out. */
  readonly quick: boolean;
  /** Another checkout, whose Hawser takes turns with this one. */
  readonly against: string | undefined;
  /** The file that receives the results as JSON; undefined for none. */
  readonly jsonFile: string | undefined;
  /** Write the page with all results. */
  readonly writeDocs: boolean;
  /** The saved results to write it from, instead of measuring. */
  readonly from: string | undefined;
}

/** Runs every suite. */
const all = "all";

const options = {
  json: { type: "string" },
  quick: { type: "boolean" },
  against: { type: "string" },
  "write-docs": { type: "boolean" },
  from: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** Reads the arguments. @throws HawserError `invalid_argument`, saying what would be right */
export function parseCommand(args: readonly string[], suites: readonly Suite[]): BenchCommand | "help" {
  const { values, positionals } = parse(args);
  if (values.help === true) return "help";
  const { json: jsonFile, quick = false, against, "write-docs": writeDocs = false, from } = values;
  const known = [...suites.map(({ name }) => name), all].join(", ");
  const [name, surplus] = positionals;
  if (surplus !== undefined) throw refusal(`One suite runs at a time; "${surplus}" is one more.`);
  if (jsonFile === "") throw refusal("--json needs the name of a file.");
  if (from === "") throw refusal("--from needs the name of a file.");
  if (against === "") throw refusal("--against needs the folder of a checkout.");
  if (from !== undefined) {
    if (!writeDocs || name !== undefined || jsonFile !== undefined || quick || against !== undefined) {
      throw refusal("--from goes with --write-docs and nothing else: nothing is measured then.");
    }
    return { run: undefined, quick, against, jsonFile, writeDocs, from };
  }
  if (name === undefined) throw refusal(`No suite is given. The suites are ${known}.`);
  if (writeDocs && (name !== all || quick)) {
    throw refusal(`--write-docs goes with ${all} and without --quick: the page has everything, measured thoroughly.`);
  }
  const run = name === all ? all : suites.find((each) => each.name === name);
  if (run === undefined) throw refusal(`There is no suite "${name}". The suites are ${known}.`);
  return { run, quick, against, jsonFile, writeDocs, from };
}

/** The text of `--help`. */
export function helpText(suites: readonly Suite[]): string {
  const minutes = Math.ceil(suites.reduce((sum, { seconds }) => sum + seconds, 0) / 60);
  return [
    "npm run bench -- <suite> [--quick] [--against DIR] [--json FILE]",
    "npm run bench -- all [--quick] [--against DIR] [--json FILE] [--write-docs]",
    "npm run bench -- --write-docs --from FILE",
    "",
    "Measures how fast Hawser is: several runs, each beside its baselines. Prints the median, the spread and the ratio to",
    "each baseline; above 1 is better than the baseline.",
    "",
    "Suites:",
    ...listed([
      ...suites.map(({ name, summary }): [string, string] => [name, summary]),
      [all, `all of them, one after another: ${minutes} minutes or so`],
    ]),
    "",
    "Options:",
    "  --json FILE    Write the results to FILE too, as JSON. A run of all goes on behind what FILE has of this commit",
    "  --quick        Do little: shows that everything works; the numbers mean nothing",
    "  --against DIR  Let Hawser of another checkout, with its node_modules, take turns: the baseline `before`. It takes",
    "                 half as long again",
    "  --write-docs   Write docs/benchmarks/results.md, its charts, and the ratios in README.md and docs/benchmarks.md. All",
    "                 variables below must be set",
    "  --from FILE    Write them from what `all --json FILE` has saved, without measuring",
    "  --help, -h     Show this text",
    "",
    "Baselines that do not come with Hawser are measured where a variable names them:",
    ...listed(Object.entries(variables)),
    "",
    "HAWSER_DATABASE_URL and HAWSER_NATS_URL name servers to use instead of starting any.",
    "",
  ].join("\n");
}

/** Two columns. */
function listed(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`);
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's messages name the flag and what is wrong with it, then go on about how to pass positionals like "-x".
    const [what] = (error as Error).message.split(/\.? To specify|\. Did you/);
    const flags = "--json FILE, --quick, --against DIR, --write-docs, --from FILE and --help";
    throw refusal(`${what!.replace(/\.$/, "")}. The flags are ${flags}.`);
  }
}

function refusal(message: string): HawserError {
  return new HawserError("invalid_argument", `${message} See \`npm run bench -- --help\`.`);
}
