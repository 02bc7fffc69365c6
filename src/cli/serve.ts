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
import { HawserError } from "../errors/index.js";
import { urlFromEnvironment } from "../postgres/index.js";
import {
  checkServeOptions,
  type GatewayTls,
  type OptionName,
  type ServeOptions,
  serve as startServer,
  tuningSettings,
} from "../serve/index.js";
import { valuesOf, withExamples } from "./command-line.js";
import { awaitStopRequest, catchDefects, LogOutput } from "./long-running.js";
import { databaseOption, databaseUrlOf, type Given, oneOf, wholeNumber } from "./options.js";
import { jsonText, print, printable } from "./output.js";

/** The flag of a setting: its name with hyphens. */
type Flag<Name extends string> = Name extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `-${Lowercase<First>}`}${Flag<Rest>}`
  : Name;

/** The settings that are numbers. */
type NumberSetting = {
  [Name in keyof ServeSettings]: (typeof serveSettingsRanges)[Name]["kind"] extends "number" ? Name : never;
}[keyof ServeSettings];

const numberSettings = Object.entries(serveSettingsRanges)
  .filter(([, { kind }]) => kind === "number")
  .map(([name]) => name as NumberSetting);

function flagOf<Name extends string>(setting: Name): Flag<Name> {
  return setting.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) as Flag<Name>;
}

function numberFlag(setting: NumberSetting) {
  const { about, min, max } = serveSettingsRanges[setting];
  const byDefault = serveSettingsDefaults[setting];
  const inMebibytes = setting.endsWith("Bytes") ? ` (${byDefault / 2 ** 20} MiB)` : "";
  const description = `${about} From ${min} to ${max}. Default ${byDefault}${inMebibytes}`;
  return { type: "string", valueHint: "N", description } as const;
}

/** The flags. */
const serveArgs = {
  ...databaseOption,
  listen: {
    type: "string",
    valueHint: "HOST:PORT",
    default: serveSettingsDefaults.listen,
    description: serveSettingsRanges.listen.about,
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
  ...(Object.fromEntries(numberSettings.map((name) => [flagOf(name), numberFlag(name)])) as Record<
    Flag<NumberSetting>,
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
    description: serveSettingsRanges.monitor.about,
  },
  "monitor-database": {
    type: "string",
    valueHint: "NAME",
    description: serveSettingsRanges.monitorDatabase.about,
  },
} as const satisfies ArgsDef;

/** The arguments as they were given. */
export type ServeArguments = Given<typeof serveArgs>;

/** Flags with another name than their option. */
const otherFlags: Partial<Readonly<Record<OptionName, string>>> = {
  monitor: "--monitor-listen",
  tls: "--tls-cert and --tls-key",
  "tls.sslmode": "--tls-sslmode",
  "tls.rootCertificate": "--tls-root-cert",
  secretsDirectories: "--secrets-dir",
};

/** @throws HawserError `invalid_argument`, `plaintext_refused`, naming the flag */
export function serveOptionsOf(args: ServeArguments, secretsDirectories: readonly string[]): ServeOptions {
  const options = readOptions(args, secretsDirectories);
  checkServeOptions(options, (name) => otherFlags[name] ?? `--${flagOf(name.replace("tuning.", ""))}`);
  return options;
}

function readOptions(args: ServeArguments, secretsDirectories: readonly string[]): ServeOptions {
  const numbersOf = (names: readonly NumberSetting[]) =>
    Object.fromEntries(names.map((name) => [name, numberOf(args, name)]));
  return {
    databaseUrl: databaseUrlOf(args),
    listen: args.listen,
    advertise: args.advertise,
    executorUrl: args["executor-url"] ?? urlFromEnvironment("HAWSER_EXECUTOR_URL"),
    monitor: args["monitor-listen"],
    allowPlaintext: args["allow-plaintext"],
    ...(secretsDirectories.length > 0 && { secretsDirectories }),
    tls: tlsOf(args),
    ...numbersOf(numberSettings.filter((name) => !tuningSettings.includes(name))),
    tuning: {
      monitorDatabase: args["monitor-database"],
      ...numbersOf(numberSettings.filter((name) => tuningSettings.includes(name))),
    },
  };
}

function numberOf(args: ServeArguments, setting: NumberSetting): number | undefined {
  const { min, max } = serveSettingsRanges[setting];
  const flag = flagOf(setting);
  return wholeNumber(flag, args[flag], min, max);
}

const sslmodes = ["require", "verify-ca", "verify-full"] as const;

function tlsOf(args: ServeArguments): GatewayTls | undefined {
  const { "tls-cert": cert, "tls-key": key, "tls-sslmode": mode, "tls-root-cert": rootCertificate } = args;
  if (cert === undefined || key === undefined) {
    const flags = ["tls-cert", "tls-key", "tls-sslmode", "tls-root-cert"] as const;
    const given = flags.find((name) => args[name] !== undefined);
    if (given === undefined) return undefined;
    const missing = ["--tls-cert", "--tls-key"].filter((name) => args[name.slice(2) as "tls-cert"] === undefined);
    throw new HawserError(
      "invalid_argument",
      `--${given} needs ${missing.join(" and ")}; give ${missing.length > 1 ? "them" : "it"}, too`,
    );
  }
  return { cert, key, sslmode: oneOf("tls-sslmode", mode, sslmodes), rootCertificate };
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
      const log = new LogOutput(oneOf("log-level", given["log-level"], logLevels)!);
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

async function run(
  given: Given<typeof args>,
  secretsDirectories: readonly string[],
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  await using running = await startServer({ ...serveOptionsOf(given, secretsDirectories), logger, signal });
  // A container's log has both outputs, and the other one is JSON.
  if (given.json === true || !process.stdout.isTTY)
    process.stdout.write(`${jsonText({ gatewayUrl: running.gatewayUrl, monitorAddress: running.monitorAddress })}\n`);
  else print(process.stdout, `Answering at ${pc.cyan(printable(running.gatewayUrl))}. Ctrl-C ends it.`);
  if (!signal.aborted) await once(signal, "abort");
  logger.info({}, "told to stop; waiting for the calls that are under way");
}
