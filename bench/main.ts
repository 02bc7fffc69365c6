/**
 * `npm run bench -- <suite> [--json FILE]`: how fast Hawser is, beside its baselines in the same run.
 */
import { runBench } from "./run.js";

process.exitCode = await runBench(process.argv.slice(2));
