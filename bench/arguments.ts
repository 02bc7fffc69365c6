/**
 * The command line of `npm run bench`.
 */
import { parseArgs } from "node:util";
import { CliError } from "../src/errors/index.js";
import type { Suite } from "./suite.js";

/** What is to be run. */
export interface BenchCommand {
  readonly suite: Suite;
  /** Where the results go as JSON, if anywhere. */
  readonly jsonFile: string | undefined;
}

const options = { json: { type: "string" }, help: { type: "boolean", short: "h" } } as const;

/** Reads the arguments. @throws CliError `invalid_argument`, saying what would be right */
export function parseCommand(args: readonly string[], suites: readonly Suite[]): BenchCommand | "help" {
  const { values, positionals } = parse(args);
  if (values.help === true) return "help";
  const known = suites.map(({ name }) => name).join(", ");
  const [name, surplus] = positionals;
  if (name === undefined) throw refusal(`No suite is given. The suites are ${known}.`);
  const suite = suites.find((each) => each.name === name);
  if (suite === undefined) throw refusal(`There is no suite "${name}". The suites are ${known}.`);
  if (surplus !== undefined) throw refusal(`One suite runs at a time; "${surplus}" is one more.`);
  if (values.json === "") throw refusal("--json needs the name of a file.");
  return { suite, jsonFile: values.json };
}

/** The text of `--help`. */
export function helpText(suites: readonly Suite[]): string {
  const width = Math.max(...suites.map(({ name }) => name.length));
  return [
    "npm run bench -- <suite> [--json FILE]",
    "",
    "Measures how fast Hawser is: several runs, each beside its baselines in the same processes. Prints the median, the",
    "spread and the ratio to each baseline; above 1 is better than the baseline.",
    "",
    "Suites:",
    ...suites.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    "",
    "Options:",
    "  --json FILE  Write the results to FILE too, as JSON",
    "  --help, -h   Show this text",
    "",
    "HAWSER_DATABASE_URL and HAWSER_NATS_URL name servers to use instead of starting any.",
    "",
  ].join("\n");
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's messages name the flag and what is wrong with it, then go on about how to pass positionals like "-x".
    const [what] = (error as Error).message.split(/\.? To specify|\. Did you/);
    throw refusal(`${what!.replace(/\.$/, "")}. The flags are --json FILE and --help.`);
  }
}

function refusal(message: string): CliError {
  return new CliError("invalid_argument", `${message} See \`npm run bench -- --help\`.`);
}
