/**
 * From the command line to an exit status.
 */
import { constants } from "node:os";
import { awaitStopRequest } from "../src/cli/stop-request.js";
import { exitStatusOf, HawserError } from "../src/errors/index.js";
import { type BenchCommand, helpText, parseCommand } from "./arguments.js";
import { BenchFailure } from "./bench-failure.js";
import { writeDocs } from "./docs/write-docs.js";
import { readRecord, recordOf } from "./record.js";
import { canWriteReport, reportOf, writeReport } from "./report.js";
import type { Suite, SuiteOutcome } from "./suite.js";
import { suites } from "./suites.js";
import { tablesOf } from "./tables.js";

/** Where the page goes. */
const docsDirectory = new URL("../docs/", import.meta.url);

/**
 * Runs what the arguments say and resolves with the exit status: 0; 64 for wrong arguments; 128 and the signal's number
 * when it was told to stop; else that of the error. Results go to standard output, everything else to standard error.
 */
export async function runBench(args: readonly string[]): Promise<number> {
  try {
    const command = parseCommand(args, suites);
    if (command === "help") {
      process.stdout.write(helpText(suites));
      return 0;
    }
    if (command.from !== undefined) {
      writeDocs(docsDirectory, readRecord(command.from), suites);
      return 0;
    }
    if (command.jsonFile !== undefined) canWriteReport(command.jsonFile);
    return await measure(command);
  } catch (error) {
    process.stderr.write(`bench: ${textOf(error)}\n`);
    return exitStatusOf(error);
  }
}

async function measure(command: BenchCommand): Promise<number> {
  const request = awaitStopRequest();
  // Whoever presses Ctrl-C twice does not want to wait: our processes end with us, and so do the servers.
  request.hurry.addEventListener("abort", () => process.exit(statusOfStop(request.hurry)));
  try {
    request.started();
    if (command.run === "all") await measureAll(command, request.signal);
    else if (command.run !== undefined) await measureOne(command.run, command, request.signal);
    return 0;
  } catch (error) {
    if (!request.signal.aborted) throw error;
    process.stderr.write("bench: stopped before the end; nothing was reported\n");
    return statusOfStop(request.signal);
  } finally {
    request.close();
  }
}

async function measureOne(suite: Suite, command: BenchCommand, signal: AbortSignal): Promise<void> {
  const outcome = await outcomeOf(suite, command, signal);
  print(outcome);
  if (command.jsonFile !== undefined) writeReport(command.jsonFile, reportOf(suite.name, outcome.results));
}

async function measureAll(command: BenchCommand, signal: AbortSignal): Promise<void> {
  const outcomes: { suite: Suite; outcome: SuiteOutcome }[] = [];
  for (const suite of suites) {
    process.stderr.write(`${suite.name}\n`);
    const outcome = await outcomeOf(suite, command, signal);
    print(outcome, suite.name);
    outcomes.push({ suite, outcome });
  }
  const record = recordOf(outcomes, command);
  if (command.jsonFile !== undefined) writeReport(command.jsonFile, record);
  if (command.writeDocs) writeDocs(docsDirectory, record, suites);
}

function outcomeOf(suite: Suite, { quick }: BenchCommand, signal: AbortSignal): Promise<SuiteOutcome> {
  return suite.run({
    signal,
    endBy: performance.now() + suite.seconds * 1000,
    quick,
    say: (message) => process.stderr.write(`${message}\n`),
  });
}

function print({ results, notes }: SuiteOutcome, heading?: string): void {
  if (heading !== undefined) process.stdout.write(`# ${heading}\n\n`);
  process.stdout.write(`${tablesOf(results)}\n`);
  for (const note of notes) process.stdout.write(`${note}\n`);
  if (heading !== undefined) process.stdout.write("\n");
}

/** As a shell tells it. Without a signal (whoever started us is gone) it counts as SIGHUP. */
function statusOfStop({ reason }: AbortSignal): number {
  return 128 + (constants.signals[reason as NodeJS.Signals] ?? constants.signals.SIGHUP);
}

/** What we say ourselves needs no stack; anything else is a defect, and its stack tells where. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!HawserError.is(error) && !(error instanceof BenchFailure)) return error.stack ?? error.message;
  const { message, cause } = error;
  return cause instanceof Error && !message.includes(cause.message)
    ? `${message}\n  because: ${cause.message}`
    : message;
}
