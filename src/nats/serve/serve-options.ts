/**
 * Options of `serve`, and the checks of their combinations. Error messages name the options as the caller knows them:
 * by their property names, or by the flags of `hawser serve`.
 */
import { statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { join, normalize, posix, resolve, sep, win32 } from "node:path";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import type { ServeSettingsInput } from "../../../generated/ts/settings/nats.js";
import { checkServeSettings, type ServeSettings, serveSettingsRanges } from "../../../generated/ts/settings/nats.js";
import { checkOptionNames, HawserError, invalidArgument, namesOf } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { checkedUrl, urlFromEnvironment } from "../../foundation/sql-clients/index.js";
import type { PemSource } from "../../foundation/tls/index.js";
import { type Address, formatAddress, isLoopback, parseAddress } from "../../jobs-and-peers/wire/index.js";

/** TLS between Postgres and the gateway. */
export interface GatewayTls {
  readonly cert: PemSource;
  readonly key: PemSource;
  /**
   * Check of the gateway's certificate by libpq. Default `require`: no check, because the password authenticates the
   * gateway.
   */
  readonly sslmode?: "require" | "verify-ca" | "verify-full" | undefined;
  /**
   * For `verify-ca` and `verify-full` only: absolute path of the authority's certificate on the machine of Postgres.
   */
  readonly rootCertificate?: string | undefined;
}

/** Settings below `tuning`, as the spec marks them. */
export type TuningSetting = {
  [Name in keyof ServeSettings]: (typeof serveSettingsRanges)[Name] extends { readonly isTuning: true } ? Name : never;
}[keyof ServeSettings];

/** Options of {@link serve}. Absent settings have the defaults of the spec. */
export interface ServeOptions extends Omit<ServeSettingsInput, TuningSetting> {
  /** Settings whose names and meaning may change with any version. */
  readonly tuning?: Pick<ServeSettingsInput, TuningSetting> | undefined;
  /**
   * URL of the database, as a login of hawser_bridge or the owner of the schema. Default: the environment variable
   * `HAWSER_DATABASE_URL`, and without it the `PG*` variables of libpq.
   */
  readonly databaseUrl?: string | undefined;
  /**
   * URL of the database, as a login that is a member of hawser_executor and of no other role: it runs the subscribed
   * functions. Default: the environment variable `HAWSER_EXECUTOR_URL`, and without it the login that `hawser init` has
   * created.
   */
  readonly executorUrl?: string | undefined;
  /**
   * `host:port` at which Postgres reaches the gateway. Default: the listening address, unless that is 0.0.0.0 or ::.
   */
  readonly advertise?: string | undefined;
  readonly tls?: GatewayTls | undefined;
  /** Declares the network between Postgres and the gateway as trusted: required beyond loopback without TLS. */
  readonly allowPlaintext?: boolean | undefined;
  /** Existing directories that may contain the files named by options of the NATS server. Default `/run/secrets`. */
  readonly secretsDirectories?: readonly string[] | undefined;
  readonly logger?: Logger | undefined;
  /** Aborts the start. */
  readonly signal?: AbortSignal | undefined;
}

/** Option, or a part of `tls` or `tuning`. */
export type OptionName = keyof ServeOptions | `tls.${keyof GatewayTls}` | `tuning.${TuningSetting}`;

/** Returns the name of an option in the caller's terms. */
type NameOf = (option: OptionName) => string;

/** Caller's terms in errors: programs know options and milliseconds, the command flags and units. */
interface Words {
  readonly nameOf: NameOf;
  readonly timeText: (ms: number) => string;
}

const wordsOfPrograms: Words = { nameOf: (option) => option, timeText: String };

export interface CheckedServeOptions {
  readonly settings: ServeSettings;
  readonly listen: Address;
  readonly advertised: Address | undefined;
  readonly databaseUrl: string | undefined;
  readonly executorUrl: string | undefined;
  /** Absolute paths; undefined if none were given. */
  readonly secretsDirectories: readonly string[] | undefined;
}

/** @throws HawserError `invalid_argument`, `plaintext_refused` */
export function checkServeOptions(options: ServeOptions, words: Words = wordsOfPrograms): CheckedServeOptions {
  const { nameOf } = words;
  checkOptionNames(options, "serve", serveOptions);
  if (options.tuning !== undefined) checkOptionNames(options.tuning, "tuning", tuningSettings);
  const settings = checkSettings(options, words);
  const listen = addressOf(settings.listen, nameOf("listen"));
  const advertised = options.advertise === undefined ? undefined : addressOf(options.advertise, nameOf("advertise"));
  if (settings.monitor !== undefined) addressOf(settings.monitor, nameOf("monitor"));
  const { tls, allowPlaintext = false } = options;
  for (const place of [listen, ...(advertised === undefined ? [] : [advertised])]) {
    if (tls === undefined && !allowPlaintext) refuseBeyondLoopback(place, nameOf);
  }
  refuseUnspecified(advertised ?? listen, nameOf);
  if (tls !== undefined) {
    checkOptionNames(tls, "tls", tlsOptions);
    checkTls(tls, nameOf);
  }
  const secretsDirectories = options.secretsDirectories?.map((directory) => existing(directory, nameOf));
  const databaseUrl = checkedUrl("databaseUrl", options.databaseUrl) ?? urlFromEnvironment("HAWSER_DATABASE_URL");
  const executorUrl = checkedUrl("executorUrl", options.executorUrl) ?? urlFromEnvironment("HAWSER_EXECUTOR_URL");
  return { settings, listen, advertised, databaseUrl, executorUrl, secretsDirectories };
}

/** True if the setting is one of `tuning`. */
export function isTuning(setting: keyof ServeSettings): setting is TuningSetting {
  return "isTuning" in serveSettingsRanges[setting];
}

const settingNames = Object.keys(serveSettingsRanges) as (keyof ServeSettings)[];

/** Names of the settings below `tuning`. */
export const tuningSettings: readonly TuningSetting[] = settingNames.filter(isTuning);

const serveOptions = [
  ...namesOf<Omit<ServeOptions, keyof ServeSettings>>({
    databaseUrl: true,
    executorUrl: true,
    advertise: true,
    tls: true,
    allowPlaintext: true,
    secretsDirectories: true,
    logger: true,
    signal: true,
    tuning: true,
  }),
  ...settingNames.filter((name) => !isTuning(name)),
];

const tlsOptions = namesOf<GatewayTls>({ cert: true, key: true, sslmode: true, rootCertificate: true });

function addressOf(text: string, option: string): Address {
  try {
    return parseAddress(text);
  } catch (error) {
    if (!(error instanceof HawserError)) throw error;
    throw invalidArgument(`${option}: ${error.message}`, error);
  }
}

function checkSettings(options: ServeOptions, { nameOf, timeText }: Words): ServeSettings {
  const result = checkServeSettings({ ...options, ...options.tuning });
  if (!result.ok) {
    const { path, value, rule, remedy } = result.violation;
    const name = path as keyof ServeSettings;
    throw invalidArgument(`${nameOf(isTuning(name) ? `tuning.${name}` : name)} is ${value} and ${rule}. ${remedy}`);
  }
  const { callTimeoutMs, maxCallTimeoutMs } = result.settings;
  if (callTimeoutMs > maxCallTimeoutMs) {
    throw invalidArgument(
      `${nameOf("callTimeoutMs")} is ${timeText(callTimeoutMs)}, more than ${nameOf("tuning.maxCallTimeoutMs")}, which is ` +
        `${timeText(maxCallTimeoutMs)}; ` +
        "lower the first or raise the second",
    );
  }
  return result.settings;
}

function refuseBeyondLoopback(place: Address, nameOf: NameOf): void {
  if (isLoopback(place.host)) return;
  throw new HawserError(
    "plaintext_refused",
    `${formatAddress(place)} is not a loopback address, and messages between Postgres and the gateway would not be ` +
      `encrypted; set ${nameOf("tls")}, use a loopback address, or set ${nameOf("allowPlaintext")} where the network is trusted`,
  );
}

/** Refuses an address that stands for all addresses of a machine, because Postgres could not connect to it. */
function refuseUnspecified(place: Address, nameOf: NameOf): void {
  const isUnspecified = isIPv6(place.host)
    ? ["[::]", "[::ffff:0:0]"].includes(new URL(`http://[${place.host.split("%")[0]}]`).hostname)
    : /^0+(\.0+){0,3}$/.test(place.host);
  if (!isUnspecified) return;
  throw invalidArgument(
    `${formatAddress(place)} means all addresses of this machine, and Postgres needs one that it can dial; name it with ` +
      nameOf("advertise"),
  );
}

function checkTls({ sslmode = "require", rootCertificate }: NonNullable<ServeOptions["tls"]>, nameOf: NameOf): void {
  if (sslmode === "require") {
    if (rootCertificate === undefined) return;
    throw invalidArgument(
      `${nameOf("tls.rootCertificate")} does not fit ${nameOf("tls.sslmode")} require: libpq would check the certificate all the ` +
        `same; set ${nameOf("tls.sslmode")} to verify-ca or verify-full, or remove ${nameOf("tls.rootCertificate")}`,
    );
  }
  if (rootCertificate === undefined) {
    throw invalidArgument(
      `${nameOf("tls.sslmode")} ${sslmode} needs ${nameOf("tls.rootCertificate")}; give the authority's certificate, by its path on the machine of Postgres`,
    );
  }
  if (posix.isAbsolute(rootCertificate) || win32.isAbsolute(rootCertificate)) return;
  throw invalidArgument(
    `${nameOf("tls.rootCertificate")} "${rootCertificate}" is not an absolute path; Postgres reads it, on its machine`,
  );
}

function existing(directory: string, nameOf: NameOf): string {
  const path = resolve(directory);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return path;
  throw invalidArgument(
    `${nameOf("secretsDirectories")} "${directory}" is not a directory (${path}); create it, or name another one`,
  );
}

/**
 * Lists the entries of a directory that no option names, and that contain no file that an option names; empty if the
 * directory does not exist or cannot be listed. Entries that begin with a dot are ignored, because Kubernetes creates
 * some.
 */
export async function strangersAmong(
  directory: string,
  options: CompleteNatsServerOptions | undefined,
): Promise<string[]> {
  const named = Object.entries(options ?? {})
    .filter(([option, value]) => option.endsWith("_path") && typeof value === "string")
    .map(([, value]) => normalize(value as string));
  const entries = await readdir(directory).catch(() => []);
  return entries.filter((entry) => {
    const path = join(directory, entry);
    return !entry.startsWith(".") && !named.some((file) => file === path || file.startsWith(path + sep));
  });
}
