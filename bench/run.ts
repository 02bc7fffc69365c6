/**
 * From the command line to an exit status.
 */
import { constants } from "node:os";
import { awaitStopRequest } from "../src/cli/stop-request.js";
import { exitStatusOf, HawserError } from "../src/errors/index.js";
import { type BenchCommand, helpText, parseCommand } from "./arguments.js";
import { BenchFailure } from "./bench-failure.js";
import { canWriteReport, reportOf, writeReport } from "./report.js";
import type { SuiteOutcome } from "./suite.js";
import { suites } from "./suites.js";
import { tablesOf } from "./tables.js";

/** When a suite should end, counted from the start of the process, in ms. The promise to users is 50 s. */
const endAfterMs = 40_000;

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
    if (command.jsonFile !== undefined) canWriteReport(command.jsonFile);
    return await measure(command);
  } catch (error) {
    process.stderr.write(`bench: ${textOf(error)}\n`);
    return exitStatusOf(error);
  }
}

async function measure({ suite, jsonFile }: BenchCommand): Promise<number> {
  const request = awaitStopRequest();
  // Whoever presses Ctrl-C twice does not want to wait: our processes end with us, and so do the servers.
  request.hurry.addEventListener("abort", () => process.exit(statusOfStop(request.hurry)));
  try {
    request.started();
    const outcome = await suite.run({
      signal: request.signal,
      endBy: endAfterMs,
      say: (message) => process.stderr.write(`${message}\n`),
    });
    report(suite.name, outcome, jsonFile);
    return 0;
  } catch (error) {
    if (!request.signal.aborted) throw error;
    process.stderr.write("bench: stopped before the end; nothing was reported\n");
    return statusOfStop(request.signal);
  } finally {
    request.close();
  }
}

function report(suite: string, { results, notes }: SuiteOutcome, jsonFile: string | undefined): void {
  process.stdout.write(`${tablesOf(results)}\n`);
  for (const note of notes) process.stdout.write(`${note}\n`);
  if (jsonFile !== undefined) writeReport(jsonFile, reportOf(suite, results));
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
