/**
 * `npm run example -- <pattern>`: one of the patterns, with a process for each participant.
 *
 *     --database-url URL   a Postgres to use; it is left with what the example wrote. Default: HAWSER_DATABASE_URL,
 *                          else an embedded one, gone in the end
 *     --interval-ms N      the time between two cycles; default 1000
 */
import { constants } from "node:os";
import { parseArgs, styleText } from "node:util";
import { startDevStack } from "../src/development/dev/index.js";
import { patterns } from "./patterns.js";
import { perform } from "./processes/perform.js";

const usage = `Usage: npm run example -- <pattern> [--database-url URL] [--interval-ms N]
Patterns: ${Object.keys(patterns).join(", ")}`;

interface Arguments {
  readonly pattern: keyof typeof patterns;
  readonly databaseUrl: string | undefined;
  readonly intervalMs: number;
}

/** @throws with what is wrong */
function readArguments(): Arguments {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { "database-url": { type: "string" }, "interval-ms": { type: "string", default: "1000" } },
  });
  const [pattern = "", more] = positionals;
  if (!Object.hasOwn(patterns, pattern)) {
    throw new Error(pattern === "" ? "No pattern is given." : `There is no pattern "${pattern}".`);
  }
  if (more !== undefined) throw new Error(`One pattern at a time: "${more}" is one more argument.`);
  const intervalMs = Number(values["interval-ms"]);
  if (!Number.isInteger(intervalMs) || intervalMs < 0) {
    throw new Error(`--interval-ms ${values["interval-ms"]}: must be a whole number of milliseconds, 0 or more.`);
  }
  return { pattern: pattern as keyof typeof patterns, databaseUrl: values["database-url"], intervalMs };
}

async function example({ pattern, databaseUrl, intervalMs }: Arguments, signal: AbortSignal): Promise<void> {
  if (databaseUrl !== undefined) process.env["HAWSER_DATABASE_URL"] = databaseUrl;
  await using stack = await startDevStack({ nats: false, signal });
  const participants = Object.keys(patterns[pattern]);
  console.log(styleText("bold", `${pattern}: ${participants.join(", ")}`));
  const began = performance.now();
  await perform({ pattern, participants, databaseUrl: stack.databaseUrl, intervalMs, signal });
  console.log(`All have ended, after ${((performance.now() - began) / 1000).toFixed(1)} s.`);
}

let given: Arguments | undefined;
try {
  given = readArguments();
} catch (error) {
  console.error(`${(error as Error).message}\n${usage}`);
  process.exitCode = 2;
}
if (given !== undefined) {
  const interrupted = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => interrupted.abort(name));
  try {
    await example(given, interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) {
      const name = interrupted.signal.reason as NodeJS.Signals;
      console.error(`The example was ended by ${name}; everything is stopped again.`);
      process.exitCode = 128 + constants.signals[name];
    } else {
      console.error(
        styleText("red", `The example has failed: ${(error as Error).message}`, { stream: process.stderr }),
      );
      process.exitCode = 1;
    }
  }
}
