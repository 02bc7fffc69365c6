#!/usr/bin/env node
/**
 * The `hawser` command.
 */
import { runCli } from "./run.js";

process.exitCode = await runCli(process.argv.slice(2));
