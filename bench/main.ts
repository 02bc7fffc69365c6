/**
 * `npm run bench -- <suite>`: how fast Hawser is, beside its baselines in the same run.
 *
 * Ends with status 0; 64 for wrong arguments; 128 and the signal's number when it was told to stop; else that of the
 * error. Results go to standard output, everything else to standard error.
 */
import { execFileSync } from "node:child_process";
import { setMaxListeners } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath, pathToFileURL } from "node:url";
import { writePictures } from "../scripts/pictures/files.js";
import { exitStatusOf, HawserError } from "../src/foundation/errors/index.js";
import { awaitStopRequest } from "../src/operating/cli/long-running.js";
import { type BenchCommand, helpText, parseCommand } from "./arguments.js";
import { type BaselineVariable, baselineOf, variables } from "./baselines.js";
import { compile } from "./compile.js";
import { withRatios, writeResults } from "./page.js";
import {
  type BenchRecord,
  beforeName,
  canWriteReport,
  readEarlier,
  readRecord,
  recordOf,
  reportOf,
  tablesOf,
  writeReport,
} from "./report.js";
import { BenchFailure, type Measured, type Suite, type SuiteOutcome } from "./suite.js";
import { suites } from "./suites.js";
import { thisCheckout } from "./worker.js";

/** Folder of the page with all results. */
const resultsDirectory = new URL("../docs/benchmarks/", import.meta.url);
/** Pages with the table of ratios. */
const pagesWithRatios = ["../README.md", "../docs/benchmarks.md"].map((path) => new URL(path, import.meta.url));

/** Two checkouts take turns like this, so that a machine that gets slower or faster meanwhile favours none. */
const turns = ["now", "before", "before", "now"] as const;
/** The share of a whole run that one turn takes. */
const turnShare = 3 / 8;

async function runBench(args: readonly string[]): Promise<number> {
  try {
    const command = parseCommand(args, suites);
    if (command === "help") {
      process.stdout.write(helpText(suites));
      return 0;
    }
    if (command.from !== undefined) {
      writePages(readRecord(command.from));
      return 0;
    }
    checkBefore(command);
    return await measure(command);
  } catch (error) {
    process.stderr.write(`bench: ${textOf(error)}\n`);
    return exitStatusOf(error);
  }
}

function writePages(record: BenchRecord): void {
  writeResults(resultsDirectory, record, suites);
  for (const page of pagesWithRatios) writeFileSync(page, withRatios(readFileSync(page, "utf8"), record));
  writePictures(fileURLToPath(new URL("..", import.meta.url)));
}

/** Checks files, checkouts and baselines before the first run, which may take minutes. @throws HawserError `invalid_argument` */
function checkBefore({ jsonFile, against, writeDocs: toDocs }: BenchCommand): void {
  if (jsonFile !== undefined) canWriteReport(jsonFile);
  if (against !== undefined && !existsSync(new URL("node_modules", folderUrl(against)))) {
    throw new HawserError("invalid_argument", `--against ${against}: it is no checkout with its node_modules.`);
  }
  const missing = (Object.keys(variables) as BaselineVariable[]).filter((name) => baselineOf(name) === undefined);
  if (toDocs && missing.length > 0) {
    const message = `--write-docs: the page has all baselines, and ${missing.join(", ")} must name theirs.`;
    throw new HawserError("invalid_argument", `${message} See \`npm run bench -- --help\`.`);
  }
}

async function measure(command: BenchCommand): Promise<number> {
  const request = awaitStopRequest();
  // Ctrl-C a second time means at once: our processes end with us, and so do the servers.
  request.hurry.addEventListener("abort", () => process.exit(statusOfStop(request.hurry)));
  try {
    request.started();
    // Each process of a suite listens to it.
    setMaxListeners(0, request.signal);
    const all = command.run === "all";
    process.stderr.write("Compiling\n");
    await compile(thisCheckout, request.signal);
    if (command.against !== undefined) await compile(folderUrl(command.against), request.signal);
    const outcomes: { suite: Suite; outcome: SuiteOutcome }[] = [];
    const failed: string[] = [];
    const earlier = all && !command.quick ? earlierOf(command) : undefined;
    const done = new Set(earlier?.suites.map(({ suite }) => suite));
    if (done.size > 0) {
      const which = `${command.jsonFile} has ${[...done].join(", ")}`;
      process.stderr.write(`${which}: these are not measured again; remove the file to measure all\n`);
    }
    for (const suite of suites.filter((each) => (all ? !done.has(each.name) : each === command.run))) {
      if (all) process.stderr.write(`${suite.name}\n`);
      try {
        const outcome = await outcomeOf(suite, command, request.signal);
        print(outcome, all ? suite.name : undefined);
        outcomes.push({ suite, outcome });
        // The whole record after each suite: a run of all takes long, and may be cut off.
        writeJson(command, outcomes, earlier);
      } catch (error) {
        if (!all || !(error instanceof BenchFailure) || request.signal.aborted) throw error;
        process.stderr.write(`bench: ${suite.name} was not measured: ${textOf(error)}\n`);
        failed.push(suite.name);
      }
    }
    if (failed.length > 0) {
      const page = command.writeDocs ? "; the page was not written" : "";
      throw new BenchFailure(`${failed.join(", ")} could not be measured, see above${page}`);
    }
    if (command.writeDocs) writePages(recordFor(command, outcomes, earlier));
    return 0;
  } catch (error) {
    if (!request.signal.aborted) throw error;
    process.stderr.write("bench: stopped before the end\n");
    return statusOfStop(request.signal);
  } finally {
    request.close();
  }
}

type Outcomes = readonly { readonly suite: Suite; readonly outcome: SuiteOutcome }[];

function writeJson(command: BenchCommand, outcomes: Outcomes, earlier: BenchRecord | undefined): void {
  const { run, jsonFile } = command;
  if (jsonFile === undefined) return;
  const [{ suite, outcome } = undefined!] = outcomes;
  writeReport(jsonFile, run === "all" ? recordFor(command, outcomes, earlier) : reportOf(suite.name, outcome.results));
}

function recordFor(command: BenchCommand, outcomes: Outcomes, earlier: BenchRecord | undefined): BenchRecord {
  return recordOf(outcomes, { quick: command.quick, ...commitsOf(command) }, earlier);
}

/** Record of an earlier run of all suites, if it measured the same commits. */
function earlierOf(command: BenchCommand): BenchRecord | undefined {
  return command.jsonFile === undefined ? undefined : readEarlier(command.jsonFile, commitsOf(command));
}

function commitsOf({ against }: BenchCommand): Pick<BenchRecord, "commit" | "before"> {
  const commit = commitOf(thisCheckout);
  return against === undefined ? { commit } : { commit, before: commitOf(folderUrl(against)) };
}

/** Runs a suite; where two checkouts are compared, several times in turn. */
async function outcomeOf(suite: Suite, { quick, against }: BenchCommand, signal: AbortSignal): Promise<SuiteOutcome> {
  const run = (source: string, share: number): Promise<SuiteOutcome> =>
    suite.run({
      signal,
      endBy: performance.now() + suite.seconds * 1000 * share,
      quick,
      source,
      rounds: (full) => Math.ceil(full * share),
      say: (message) => process.stderr.write(`${message}\n`),
    });
  if (against === undefined) return await run(thisCheckout, 1);
  const outcomes: Record<(typeof turns)[number], SuiteOutcome[]> = { now: [], before: [] };
  for (const turn of turns) {
    process.stderr.write(`Hawser ${turn}\n`);
    outcomes[turn].push(await run(turn === "now" ? thisCheckout : folderUrl(against), turnShare));
  }
  return compared(outcomes.now, outcomes.before);
}

/** The runs of one checkout as one, with those of the other one as a further baseline. */
function compared(now: readonly SuiteOutcome[], before: readonly SuiteOutcome[]): SuiteOutcome {
  const last = now.at(-1)!;
  const results = last.results.map((result, index): Measured => {
    const samplesOf = (outcomes: readonly SuiteOutcome[]) => outcomes.flatMap((each) => each.results[index]!.samples);
    const baselines = result.baselines.map(({ name }, position) => ({
      name,
      samples: now.flatMap((each) => each.results[index]!.baselines[position]!.samples),
    }));
    const theirs = { name: beforeName, samples: samplesOf(before) };
    return { ...result, samples: samplesOf(now), baselines: [...baselines, theirs] };
  });
  return { ...last, results };
}

function print({ results, notes }: SuiteOutcome, heading?: string): void {
  if (heading !== undefined) process.stdout.write(`# ${heading}\n\n`);
  process.stdout.write(`${tablesOf(results)}\n`);
  for (const note of notes) process.stdout.write(`${note}\n`);
  if (heading !== undefined) process.stdout.write("\n");
}

function folderUrl(path: string): string {
  return pathToFileURL(`${path}/`).href;
}

/** Abbreviated commit of a checkout, such as `8f3c2a1` or `8f3c2a1-dirty`. */
function commitOf(checkout: string): string {
  const git = ["describe", "--always", "--dirty", "--exclude", "*"];
  try {
    return execFileSync("git", git, {
      cwd: new URL(checkout),
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return "unknown";
  }
}

/** Exit status by the shell's convention, 128 + signal. A stop without a signal (the parent is gone) counts as SIGHUP. */
function statusOfStop({ reason }: AbortSignal): number {
  return 128 + (constants.signals[reason as NodeJS.Signals] ?? constants.signals.SIGHUP);
}

/** Formats an error: message and cause of a HawserError or BenchFailure, the stack of any other one, which is a defect. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error instanceof HawserError) && !(error instanceof BenchFailure)) return error.stack ?? error.message;
  const { message, cause } = error;
  return cause instanceof Error && !message.includes(cause.message)
    ? `${message}\n  because: ${cause.message}`
    : message;
}

process.exitCode = await runBench(process.argv.slice(2));
