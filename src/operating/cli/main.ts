#!/usr/bin/env node
/** The `hawser` command. */
import { errorTable, HawserError } from "../../foundation/errors/index.js";
import { describeError, isGone, print } from "./output.js";
import { runCli } from "./run.js";

// If the reader has closed the pipe, nobody can read a report. Any other failure to write must set the exit status,
// even if it occurs after everything else is done.
const { exitStatus } = errorTable.output_failed;
let unwritten: Error | undefined;
const failed = (error: Error): void => {
  if (!isGone(error)) process.exitCode ||= exitStatus;
};
process.stdout.on("error", (error) => {
  failed(error);
  if (!isGone(error)) unwritten ??= error;
});
process.stderr.on("error", failed);

const status = await runCli(process.argv.slice(2));
if (status !== 0) process.exitCode = status;
// Registered after the command has ended, because `status` shows whether the command reported the failure itself.
process.once("exit", () => {
  if (unwritten === undefined || status === exitStatus) return;
  const { message } = unwritten;
  print(process.stderr, describeError(new HawserError("output_failed", `could not write the output: ${message}`)));
});
