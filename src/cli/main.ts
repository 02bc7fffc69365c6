#!/usr/bin/env node
/**
 * The `hawser` command.
 */
import { errorTable } from "../errors/index.js";
import { isGone } from "./output.js";
import { runCli } from "./run.js";

// Whoever reads may leave: then there is nothing to say, and nobody to say it to. Any other failure to write must show
// in the exit status, also when it comes after everything else is done.
const failed = (error: Error): void => {
  if (!isGone(error)) process.exitCode ||= errorTable.output_failed.exitStatus;
};
process.stdout.on("error", failed);
process.stderr.on("error", failed);

const status = await runCli(process.argv.slice(2));
if (status !== 0) process.exitCode = status;
