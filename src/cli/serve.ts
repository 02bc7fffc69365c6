/**
 * `hawser serve`: what answers the SQL functions, until it is told to stop.
 */
import { once } from "node:events";
import { defineCommand } from "citty";
import pc from "picocolors";
import { pino } from "pino";
import { CliError } from "../errors/index.js";
import { Serve } from "../gateway/index.js";
import { valuesOf } from "./check-arguments.js";
import { withExamples } from "./examples.js";
import { print } from "./help.js";
import { jsonText, printable } from "./printable.js";
import { type ServeArguments, serveArgs, serveOptionsOf } from "./serve-options.js";
import { awaitStopRequest, type StopRequest } from "./stop-request.js";

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
        "Answer the SQL functions that reach NATS. It runs beside Postgres, as a login of the role hawser_bridge; " +
        "several may run. The NATS server is the one that the database defines (CREATE SERVER, or " +
        "hawser.set_nats_server), and its changes are followed; it need not be there yet",
    },
    args,
    run: async ({ args: given, rawArgs }) => {
      const request = awaitStopRequest({ lifeline: false });
      request.hurry.addEventListener("abort", () => process.exit(130));
      try {
        await run(given, valuesOf(args, rawArgs, "secrets-dir"), request);
      } catch (error) {
        // Told to stop while it was starting: that is no failure.
        if (!request.signal.aborted) throw error;
      } finally {
        request.close();
      }
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

async function run(given: OwnArguments, secretsDirectories: readonly string[], request: StopRequest): Promise<void> {
  const level = logLevels.find((known) => known === given["log-level"]);
  if (level === undefined) {
    throw new CliError("invalid_argument", `--log-level "${given["log-level"]}" is none of ${logLevels.join(", ")}`);
  }
  const logger = pino({ name: "hawser", level }, pino.destination({ fd: 2, sync: true }));
  await using running = await Serve.start({
    ...serveOptionsOf(given, secretsDirectories),
    logger,
    signal: request.signal,
  });
  if (given.json === true) process.stdout.write(`${jsonText({ gatewayUrl: running.gatewayUrl })}\n`);
  else print(process.stdout, `Answering at ${pc.cyan(printable(running.gatewayUrl))}. Ctrl-C ends it.`);
  if (!request.signal.aborted) await once(request.signal, "abort");
  logger.info({}, "told to stop; waiting for the calls that are under way");
}
