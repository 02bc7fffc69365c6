/**
 * `hawser serve`: what answers the SQL functions, until it is told to stop.
 */
import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { defineCommand } from "citty";
import pc from "picocolors";
import type { Logger } from "pino";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import { CliError } from "../errors/index.js";
import { Serve } from "../serve/index.js";
import { valuesOf } from "./check-arguments.js";
import { catchDefects } from "./defects.js";
import { withExamples } from "./examples.js";
import { LogOutput } from "./log-output.js";
import { print } from "./output.js";
import { jsonText, printable } from "./printable.js";
import { type ServeArguments, serveArgs, serveOptionsOf } from "./serve-options.js";
import { awaitStopRequest } from "./stop-request.js";

const logLevels = ["debug", "info", "warn", "error", "silent"] as const;

const args = {
  ...serveArgs,
  "log-level": {
    type: "string",
    valueHint: "LEVEL",
    default: "info",
    description: `What is logged on standard error, one line of JSON each: ${logLevels.join(", ")}`,
  },
  json: { type: "boolean", description: "Print one line of JSON when it is up, and nothing else" },
} as const;

export const serve = withExamples(
  defineCommand({
    meta: {
      name: "serve",
      description:
        "Answer the SQL functions that reach NATS, and run those that NATS reaches: subscriptions and responders. It runs " +
        "beside Postgres, as a login of the role hawser_bridge; " +
        "several may run. The NATS server is the one that the database defines (CREATE SERVER, or " +
        "hawser.set_nats_server), and its changes are followed; it need not be there yet",
    },
    args,
    run: async ({ args: given, rawArgs }) => {
      setFlagsFromString(`--heap-growing-percent=${bridgeConstants.heapGrowingPercent}`);
      const log = new LogOutput(logLevelOf(given["log-level"]));
      const request = awaitStopRequest({ lifeline: false });
      const defects = catchDefects(log);
      request.hurry.addEventListener("abort", () => {
        log.closeNow();
        process.exit(130);
      });
      const end = AbortSignal.any([request.signal, defects.signal]);
      try {
        await run(given, valuesOf(args, rawArgs, "secrets-dir"), log.logger, end);
        log.logger.info({}, "has stopped");
      } catch (error) {
        // Told to stop while it was starting: that is no failure.
        if (!end.aborted) throw error;
      } finally {
        request.close();
        await log.close();
        defects.close();
      }
      defects.signal.throwIfAborted();
    },
  }),
  [
    [
      "hawser serve --database-url postgres://bridge@127.0.0.1/app",
      "Beside Postgres, with the address that it expects",
    ],
    [
      "hawser serve --secrets-dir /run/secrets/hawser",
      "Where password_path and the like may point: a place for it alone",
    ],
    ["psql -c 'CREATE ROLE bridge LOGIN IN ROLE hawser_bridge'", "The login for it"],
  ],
);

interface OwnArguments extends ServeArguments {
  readonly "log-level": string;
  readonly json?: boolean | undefined;
}

function logLevelOf(given: string): string {
  const level = logLevels.find((known) => known === given);
  if (level !== undefined) return level;
  throw new CliError("invalid_argument", `--log-level "${given}" is none of ${logLevels.join(", ")}`);
}

async function run(
  given: OwnArguments,
  secretsDirectories: readonly string[],
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  await using running = await Serve.start({ ...serveOptionsOf(given, secretsDirectories), logger, signal });
  if (given.json === true)
    process.stdout.write(`${jsonText({ gatewayUrl: running.gatewayUrl, monitorAddress: running.monitorAddress })}\n`);
  else print(process.stdout, `Answering at ${pc.cyan(printable(running.gatewayUrl))}. Ctrl-C ends it.`);
  if (!signal.aborted) await once(signal, "abort");
  logger.info({}, "told to stop; waiting for the calls that are under way");
}
