/**
 * `hawser serve`: what answers the SQL functions, until it is told to stop.
 */
import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { type ArgsDef, defineCommand } from "citty";
import pc from "picocolors";
import type { Logger } from "pino";
import {
  bridgeConstants,
  gatewayConstants,
  type ServeSettings,
  serveSettingsDefaults,
  serveSettingsRanges,
} from "../../generated/ts/settings/nats.js";
import { CliError } from "../errors/index.js";
import { urlFromEnvironment } from "../postgres/index.js";
import { checkServeOptions, type GatewayTls, type OptionWords, Serve, type ServeOptions } from "../serve/index.js";
import { valuesOf, withExamples } from "./command-line.js";
import { awaitStopRequest, catchDefects, LogOutput } from "./long-running.js";
import { databaseOption, databaseUrlOf, wholeNumber } from "./options.js";
import { jsonText, print, printable } from "./output.js";

/** The settings that are numbers, by their flags: the setting, and what it means. */
const numbers = {
  "call-timeout-ms": ["callTimeoutMs", "How long a call of an SQL function may take that names no time limit itself"],
  "max-call-timeout-ms": ["maxCallTimeoutMs", "The longest time limit that a call may name"],
  "max-request-bytes": ["maxRequestBytes", "The largest call; bytes travel in base64, a third longer"],
  "max-response-bytes": ["maxResponseBytes", "The largest answer; bytes travel as hexadecimal digits, twice as long"],
  "max-sessions": ["maxSessions", "Database sessions at once"],
  "nats-wait-ms": ["natsWaitMs", "How long calls wait for NATS when its connection has just been lost"],
  "stop-deadline-ms": ["stopDeadlineMs", "How long the end waits for the calls and functions that are under way"],
  "subscriber-sessions": ["subscriberSessions", "Database sessions that run subscribed functions at once"],
  "subscriber-timeout-ms": [
    "subscriberTimeoutMs",
    "Statement timeout of subscribed functions, for a batch of messages",
  ],
  "responder-sessions": ["responderSessions", "Database sessions that run responders' functions at once"],
  "buffer-bytes": ["bufferBytes", "Received messages that wait for their functions in memory"],
  "saved-bytes": [
    "savedBytes",
    "Received messages that wait in a table because memory has no room for them; what has no room there is discarded and counted; 0: no table",
  ],
  "takeover-buffer-ms": [
    "takeoverBufferMs",
    "How far back before what the last leader is known to have done a process repeats when it takes over; 0: keeps nothing",
  ],
  "outbox-retention-ms": [
    "outboxRetentionMs",
    "How long messages that are published are kept at least after they were enqueued, for hawser outbox replay",
  ],
  "missing-stream-ms": [
    "missingStreamMs",
    "How long messages of the outbox whose stream does not exist are tried again after they were enqueued; then they become dead letters",
  ],
} as const satisfies Record<string, readonly [keyof ServeSettings, string]>;

type NumberFlag = keyof typeof numbers;
const numberFlags = Object.keys(numbers) as NumberFlag[];

function numberFlag(name: NumberFlag) {
  const [setting, meaning] = numbers[name];
  const range = serveSettingsRanges[setting];
  const byDefault = serveSettingsDefaults[setting];
  const inMebibytes = name.endsWith("-bytes") ? ` (${byDefault / 2 ** 20} MiB)` : "";
  const description = `${meaning}, ${range.min} to ${range.max}. Default ${byDefault}${inMebibytes}`;
  return { type: "string", valueHint: "N", description } as const;
}

/** The flags. */
const serveArgs = {
  ...databaseOption,
  listen: {
    type: "string",
    valueHint: "HOST:PORT",
    default: serveSettingsDefaults.gatewayListen,
    description: "The address at which the gateway waits for Postgres; port 0 takes a free one",
  },
  advertise: {
    type: "string",
    valueHint: "HOST:PORT",
    description:
      "The address at which Postgres reaches the gateway, if it is not the one listened on; needed with 0.0.0.0 and [::]",
  },
  "secrets-dir": {
    type: "string",
    valueHint: "DIR",
    description:
      "Where files may be that options of the NATS server name (…_path); may be given several times. A role that may define " +
      `the server can have them read, so give a directory with nothing else in it. Default ${gatewayConstants.secretsDirectory}`,
  },
  "tls-cert": {
    type: "string",
    valueHint: "FILE",
    description: "TLS between Postgres and the gateway: certificate (PEM)",
  },
  "tls-key": { type: "string", valueHint: "FILE", description: "The certificate's private key (PEM)" },
  "tls-sslmode": {
    type: "string",
    valueHint: "MODE",
    description: "What Postgres checks besides the password: require (the default, nothing), verify-ca or verify-full",
  },
  "tls-root-cert": {
    type: "string",
    valueHint: "FILE",
    description:
      "For verify-ca and verify-full, which need it: the authority's certificate, by its absolute path on the machine of Postgres",
  },
  "allow-plaintext": {
    type: "boolean",
    description: "Without TLS also beyond this machine: the network is trusted",
  },
  ...(Object.fromEntries(numberFlags.map((name) => [name, numberFlag(name)])) as Record<
    NumberFlag,
    ReturnType<typeof numberFlag>
  >),
  "executor-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The database, as a login in hawser_executor alone, which calls the functions that NATS reaches. Default: the login " +
      "that `hawser init` has made; HAWSER_EXECUTOR_URL is read, too",
  },
  "monitor-listen": {
    type: "string",
    valueHint: "HOST:PORT",
    description: "Serve /metrics (Prometheus), /healthz and /readyz there; port 0 takes a free one. Default: nowhere",
  },
  "monitor-database": {
    type: "string",
    valueHint: "NAME",
    description:
      "The label `database` of all metrics, for databases of the same name on several servers. Default: the name of the database",
  },
} as const satisfies ArgsDef;

/** The arguments as they were given. */
export type ServeArguments = { readonly [Name in keyof typeof serveArgs]?: string | boolean | undefined } & {
  readonly "database-url"?: string | undefined;
};

/** What the options are called here. */
const words: OptionWords = {
  gatewayListen: "--listen",
  monitorListen: "--monitor-listen",
  advertise: "--advertise",
  allowPlaintext: "--allow-plaintext",
  tls: "--tls-cert and --tls-key",
  sslmode: "--tls-sslmode",
  rootCertificate: "--tls-root-cert",
  callTimeoutMs: "--call-timeout-ms",
  maxCallTimeoutMs: "--max-call-timeout-ms",
  secretsDirectories: "--secrets-dir",
};

/** @throws HawserError `invalid_argument`, `plaintext_refused`, naming the flag */
export function serveOptionsOf(args: ServeArguments, secretsDirectories: readonly string[]): ServeOptions {
  const options = readOptions(args, secretsDirectories);
  checkServeOptions(options, words);
  return options;
}

function readOptions(args: ServeArguments, secretsDirectories: readonly string[]): ServeOptions {
  return {
    databaseUrl: databaseUrlOf(args),
    gatewayListen: text(args.listen),
    advertise: text(args.advertise),
    executorUrl: text(args["executor-url"]) ?? urlFromEnvironment("HAWSER_EXECUTOR_URL"),
    monitorListen: text(args["monitor-listen"]),
    monitorDatabase: text(args["monitor-database"]),
    allowPlaintext: args["allow-plaintext"] === true,
    ...(secretsDirectories.length > 0 && { secretsDirectories }),
    tls: tlsOf(args),
    ...Object.fromEntries(numberFlags.map((name) => [numbers[name][0], numberOf(args, name)])),
  };
}

function numberOf(args: ServeArguments, name: NumberFlag): number | undefined {
  const { min, max } = serveSettingsRanges[numbers[name][0]];
  return wholeNumber(name, text(args[name]), min, max);
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

const sslmodes = ["require", "verify-ca", "verify-full"] as const;

function tlsOf(args: ServeArguments): GatewayTls | undefined {
  const cert = text(args["tls-cert"]);
  const key = text(args["tls-key"]);
  const mode = text(args["tls-sslmode"]);
  const rootCertificate = text(args["tls-root-cert"]);
  if (cert === undefined || key === undefined) {
    const flags = ["tls-cert", "tls-key", "tls-sslmode", "tls-root-cert"] as const;
    const given = flags.find((name) => args[name] !== undefined);
    if (given === undefined) return undefined;
    const missing = ["--tls-cert", "--tls-key"].filter((name) => args[name.slice(2) as "tls-cert"] === undefined);
    throw new CliError(
      "invalid_argument",
      `--${given} needs ${missing.join(" and ")}; give ${missing.length > 1 ? "them" : "it"}, too`,
    );
  }
  const sslmode = sslmodes.find((known) => known === mode);
  if (mode !== undefined && sslmode === undefined) {
    throw new CliError("invalid_argument", `--tls-sslmode "${mode}" is none of ${sslmodes.join(", ")}`);
  }
  return { cert, key, sslmode, rootCertificate };
}

const logLevels = ["debug", "info", "warn", "error", "silent"] as const;

const args = {
  ...serveArgs,
  "log-level": {
    type: "string",
    valueHint: "LEVEL",
    default: "info",
    description: `What is logged on standard error, one line of JSON each: ${logLevels.join(", ")}`,
  },
  json: {
    type: "boolean",
    description:
      "Print one line of JSON when it is up, and nothing else; always so where standard output is no terminal",
  },
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
      const request = awaitStopRequest({ parent: false });
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
  // A container's log has both outputs, and the other one is JSON.
  if (given.json === true || !process.stdout.isTTY)
    process.stdout.write(`${jsonText({ gatewayUrl: running.gatewayUrl, monitorAddress: running.monitorAddress })}\n`);
  else print(process.stdout, `Answering at ${pc.cyan(printable(running.gatewayUrl))}. Ctrl-C ends it.`);
  if (!signal.aborted) await once(signal, "abort");
  logger.info({}, "told to stop; waiting for the calls that are under way");
}
