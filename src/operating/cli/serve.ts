/** `hawser serve`: answers the SQL functions until it is stopped. */
import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { limits } from "../../../generated/ts/rules/nats/server.js";
import {
  gatewayConstants,
  type ServeSettings,
  serveSettingsDefaults,
  serveSettingsRanges,
} from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { urlFromEnvironment } from "../../foundation/sql-clients/index.js";
import {
  checkServeOptions,
  type GatewayTls,
  isTuning,
  type OptionName,
  type ServeOptions,
  serve as startServer,
  type TuningSetting,
  tuningSettings,
} from "../../nats/serve/index.js";
import type { PageServerOptions } from "../page/index.js";
import { type Arguments, defineCommand, didYouMean, flag, type Given, option } from "./command-line.js";
import { LogOutput, logLevels } from "./log-output.js";
import { awaitStopRequest, catchDefects } from "./long-running.js";
import { databaseOption, databaseUrlOf, oneOf } from "./options.js";
import { jsonText, print, printable, styled } from "./output.js";
import { type QuantityKind, quantityOf, quantityText, wholeNumber } from "./quantities.js";
import { loadTelemetry, type Telemetry } from "./telemetry.js";

/**
 * By how much the heap of `hawser serve` may grow, in percent of what is alive, before it is collected: a flood of messages
 * is garbage a moment later, and V8 would let it pile up to several times that.
 */
const heapGrowingPercent = 20;

/** Settings of `hawser serve` that are quantities or counts. */
type NumberSetting = {
  [Name in keyof ServeSettings]: (typeof serveSettingsRanges)[Name]["kind"] extends "number" ? Name : never;
}[keyof ServeSettings];

/** Public settings that are numbers: each has a flag. */
type FlagSetting = Exclude<NumberSetting, TuningSetting>;

type Hyphenated<Name extends string> = Name extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `-${Lowercase<First>}`}${Hyphenated<Rest>}`
  : Name;

type WithoutUnit<Name extends string> = Name extends `${infer Bare}Ms` | `${infer Bare}Bytes` ? Bare : Name;

/** Flag of a public setting: its name with hyphens and without its unit, which is part of the value. */
type Flag<Name extends string> = Hyphenated<WithoutUnit<Name>>;

const settingNames = Object.keys(serveSettingsRanges) as (keyof ServeSettings)[];

function isNumber(setting: keyof ServeSettings): setting is NumberSetting {
  return serveSettingsRanges[setting].kind === "number";
}

const flagSettings = settingNames.filter((name): name is FlagSetting => isNumber(name) && !isTuning(name));

function flagOf<Name extends string>(setting: Name): Flag<Name> {
  const name = setting.replace(/(Ms|Bytes)$/, "");
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) as Flag<Name>;
}

/** Unit of a setting's values; undefined for a count. */
function kindOf(setting: NumberSetting): QuantityKind | undefined {
  if (setting.endsWith("Ms")) return "duration";
  return setting.endsWith("Bytes") ? "size" : undefined;
}

/** Value of a setting as its flag, or `--tune`, takes it. */
function settingText(setting: NumberSetting, value: number): string {
  const kind = kindOf(setting);
  return kind === undefined ? String(value) : quantityText(kind, value);
}

/** @throws HawserError `invalid_argument` with the option, the value and the range */
function settingOf(setting: NumberSetting, option: string, value: string | undefined): number | undefined {
  const kind = kindOf(setting);
  const range = serveSettingsRanges[setting];
  return kind === undefined ? wholeNumber(option, value, range) : quantityOf(kind, option, value, range);
}

function numberFlag(setting: FlagSetting) {
  const { about, min, max } = serveSettingsRanges[setting];
  const [least, most, byDefault] = [min, max, serveSettingsDefaults[setting]].map((value) =>
    settingText(setting, value),
  );
  const valueHint = { duration: "TIME", size: "SIZE", count: "N" }[kindOf(setting) ?? "count"];
  return option(valueHint, `${about} From ${least} to ${most}. Default ${byDefault}`);
}

const serveArgs = {
  ...databaseOption,
  listen: option("HOST:PORT", serveSettingsRanges.listen.about, { default: serveSettingsDefaults.listen }),
  advertise: option(
    "HOST:PORT",
    "Address at which Postgres reaches the gateway, if it differs from the listening address; required for 0.0.0.0 and [::]",
  ),
  "secrets-dir": option(
    "DIR",
    "Directory of files that options of the NATS server name (…_path); may be given several times. A role that may define " +
      `the server can make the gateway read them, so use a directory with nothing else in it. Default ${gatewayConstants.secretsDirectory}`,
    { multiple: true },
  ),
  "tls-cert": option("FILE", "TLS between Postgres and the gateway: certificate (PEM)"),
  "tls-key": option("FILE", "The certificate's private key (PEM)"),
  "tls-sslmode": option(
    "MODE",
    "Checks of the certificate by Postgres: require (the default, none), verify-ca or verify-full",
  ),
  "tls-root-cert": option(
    "FILE",
    "Required for verify-ca and verify-full: absolute path of the authority's certificate on the machine of Postgres",
  ),
  "allow-plaintext": flag("Allow connections from other machines without TLS: the network is trusted"),
  ...(Object.fromEntries(flagSettings.map((name) => [flagOf(name), numberFlag(name)])) as Record<
    Flag<FlagSetting>,
    ReturnType<typeof numberFlag>
  >),
  tune: option(
    "NAME=VALUE",
    `Tuning setting, which any version may rename or remove; may be given several times: ${tuningSettings.join(", ")}`,
    { multiple: true },
  ),
  "executor-url": option(
    "URL",
    "URL of the database, as a login that is only in hawser_executor and runs the subscribed functions. Default: the login " +
      "that `hawser init` has made; HAWSER_EXECUTOR_URL is read, too",
  ),
  monitor: option("HOST:PORT", serveSettingsRanges.monitor.about),
} as const satisfies Arguments;

/** Arguments as given. */
export type ServeArguments = Partial<Given<typeof serveArgs>>;

/** Flags whose names differ from their options. */
const otherFlags: Partial<Readonly<Record<OptionName, string>>> = {
  tls: "--tls-cert and --tls-key",
  "tls.sslmode": "--tls-sslmode",
  "tls.rootCertificate": "--tls-root-cert",
  secretsDirectories: "--secrets-dir",
};

function optionText(name: OptionName): string {
  if (name.startsWith("tuning.")) return `--tune ${name.slice("tuning.".length)}`;
  return otherFlags[name] ?? `--${flagOf(name)}`;
}

/** @throws HawserError `invalid_argument`, `plaintext_refused` with the flag */
export function serveOptionsOf(args: ServeArguments): ServeOptions {
  const options = readOptions(args);
  checkServeOptions(options, { nameOf: optionText, timeText: (ms) => quantityText("duration", ms) });
  return options;
}

function readOptions(args: ServeArguments): ServeOptions {
  return {
    databaseUrl: databaseUrlOf(args),
    listen: args.listen,
    advertise: args.advertise,
    executorUrl: args["executor-url"] ?? urlFromEnvironment("HAWSER_EXECUTOR_URL"),
    monitor: args.monitor,
    allowPlaintext: args["allow-plaintext"],
    secretsDirectories: args["secrets-dir"],
    tls: tlsOf(args),
    ...Object.fromEntries(flagSettings.map((name) => [name, settingOf(name, optionText(name), args[flagOf(name)])])),
    tuning: Object.fromEntries((args.tune ?? []).map(tuningOf)),
  };
}

/** Parses a value of `--tune`. @throws HawserError `invalid_argument` */
function tuningOf(text: string): [TuningSetting, string | number | undefined] {
  const [, name, value] = /^(\w+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined || value === undefined) {
    throw new HawserError(
      "invalid_argument",
      `--tune "${text}" is not of the form NAME=VALUE, such as maxSessions=2000`,
    );
  }
  const setting = tuningSettings.find((known) => known === name);
  if (setting === undefined) throw new HawserError("invalid_argument", `--tune: ${unknownTuning(name)}`);
  return [setting, isNumber(setting) ? settingOf(setting, `--tune ${setting}`, value) : value];
}

function unknownTuning(name: string): string {
  const setting = settingNames.find((known) => known === name);
  if (setting !== undefined)
    return `${name} is not a tuning setting; give it by its flag ${optionText(setting as Exclude<typeof setting, TuningSetting>)}`;
  return `there is no setting "${name}".${didYouMean(name, tuningSettings)} The tuning settings are ${tuningSettings.join(", ")}`;
}

/** Values of `--tls-sslmode`: `disable` is for a gateway without a certificate. */
const sslmodes = limits.Gateway.sslmode.values.filter((mode) => mode !== "disable");

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

const args = {
  ...serveArgs,
  "log-level": option(
    "LEVEL",
    `Least level that is logged on standard error, as lines of JSON: ${logLevels.join(", ")}`,
    { default: "info" },
  ),
  page: option(
    "HOST:PORT",
    "Address of the operator's page, which is not served without it; only a loopback address. It needs --page-database-url",
  ),
  "page-database-url": option(
    "URL",
    "URL of the database with the operator's own login, whose rights the page has. Default: HAWSER_PAGE_DATABASE_URL",
  ),
  json: flag(
    "Print one line of JSON when the server is ready, and nothing else; default if standard output is not a terminal",
  ),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "It runs beside Postgres, as a login of the role hawser_bridge; several may run. The database defines the " +
    "NATS server (CREATE SERVER, or hawser.set_nats_server), now or later; changes are followed",
  args,
  run: async (given) => {
    setFlagsFromString(`--heap-growing-percent=${heapGrowingPercent}`);
    const log = new LogOutput(oneOf("log-level", given["log-level"], logLevels)!);
    const request = awaitStopRequest({ parent: false });
    const defects = catchDefects(log);
    request.hurry.addEventListener("abort", () => {
      log.closeNow();
      process.exit(130);
    });
    const end = AbortSignal.any([request.signal, defects.signal]);
    let telemetry: Telemetry | undefined;
    try {
      const options = serveOptionsOf(given);
      const pageOptions = pageOptionsOf(given);
      telemetry = await loadTelemetry();
      telemetry?.start(log.logger);
      const running = run(options, pageOptions, given.json ?? false, log.logger, end);
      await running.finally(() => telemetry?.stop());
      log.logger.info({}, "has stopped");
    } catch (error) {
      // A stop request during the start is not a failure.
      if (!end.aborted) throw error;
    } finally {
      request.close();
      await log.close();
      defects.close();
      telemetry?.leave();
    }
    defects.signal.throwIfAborted();
  },
  examples: [
    [
      "hawser serve --database-url postgres://bridge@127.0.0.1/app",
      "Beside Postgres, with the address that it expects",
    ],
    ["hawser serve --secrets-dir /run/secrets/hawser", "Directory of its own for password_path and similar options"],
    ["psql -c 'CREATE ROLE bridge LOGIN IN ROLE hawser_bridge'", "Login for hawser serve"],
  ],
});

/** Options of the page, if it is to be served. @throws HawserError `invalid_argument` if one of both options is missing */
function pageOptionsOf(given: Given<typeof args>): PageServerOptions | undefined {
  const { page: listen } = given;
  const databaseUrl = given["page-database-url"] ?? urlFromEnvironment("HAWSER_PAGE_DATABASE_URL");
  if (listen === undefined) {
    if (given["page-database-url"] === undefined) return undefined;
    throw new HawserError("invalid_argument", "--page-database-url goes with --page; give the page an address, too");
  }
  if (!databaseUrl) {
    throw new HawserError(
      "invalid_argument",
      "--page needs --page-database-url or HAWSER_PAGE_DATABASE_URL: the page has the operator's own login, and not that of the server",
    );
  }
  return { listen, databaseUrl };
}

async function run(
  options: ServeOptions,
  pageOptions: PageServerOptions | undefined,
  json: boolean,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const { secretsDirectories } = options;
  // Loaded on demand: most servers have no page.
  await using page =
    pageOptions && (await (await import("../page/index.js")).servePage({ ...pageOptions, secretsDirectories, logger }));
  await using running = await startServer({ ...options, logger, signal });
  // A container's log combines standard output with standard error, which is JSON.
  if (json || !process.stdout.isTTY)
    process.stdout.write(
      `${jsonText({ gatewayUrl: running.gatewayUrl, monitorAddress: running.monitorAddress, pageUrl: page?.url })}\n`,
    );
  else print(process.stdout, `Answering at ${styled("cyan", printable(running.gatewayUrl))}. Ctrl-C ends it.`);
  if (!signal.aborted) await once(signal, "abort");
  logger.info({}, "stopping; waiting for pending calls");
}
