/**
 * Export of traces and metrics by OTLP, for commands that run `hawser serve`. The variables of OpenTelemetry say whether
 * and where: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. The SDK reads them itself.
 * Its packages are loaded only if there is something to export.
 */
import { inspect } from "node:util";
import { HawserError, shortened, withoutPasswords } from "../../foundation/errors/index.js";
import { type Logger, RareLog, version, within } from "../../foundation/runtime/index.js";

/** Default of `service.name`. */
const serviceName = "hawser-serve";

type Environment = Readonly<Record<string, string | undefined>>;

/** Variables that ask for an export; undefined for what is not exported. */
export interface WantedExports {
  readonly traces: string | undefined;
  readonly metrics: string | undefined;
}

/** Traces are exported if an exporter or an endpoint is named, and metrics only if their exporter is. */
export function wantedExports(environment: Environment): WantedExports {
  // An empty variable counts as not set.
  const textOf = (name: string): string => environment[name]?.trim() ?? "";
  const isOff = (name: string): boolean =>
    textOf(name)
      .split(/\s*,\s*/)
      .includes("none");
  const firstOf = (...names: string[]): string | undefined =>
    textOf("OTEL_SDK_DISABLED").toLowerCase() === "true" || isOff(names[0]!)
      ? undefined
      : names.find((name) => textOf(name) !== "");
  return {
    traces: firstOf("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    metrics: firstOf("OTEL_METRICS_EXPORTER"),
  };
}

/** Masks the values of the variables with headers, which contain credentials, and passwords in URLs. */
export function withoutHeaders(text: string, environment: Environment): string {
  const secrets = Object.entries(environment)
    .filter(([name]) => /^OTEL_EXPORTER_OTLP_(?:[A-Z]+_)?HEADERS$/.test(name))
    .flatMap(([, list = ""]) => list.split(",").map((pair) => pair.slice(pair.indexOf("=") + 1).trim()))
    .flatMap((value) => [value, decoded(value)])
    .filter((value) => value !== "")
    // A value may be part of another one.
    .sort((a, b) => b.length - a.length);
  return secrets.reduce((masked, secret) => masked.replaceAll(secret, "***"), withoutPasswords(text));
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/**
 * Loads what the environment asks for.
 *
 * @returns undefined if it asks for nothing
 * @throws HawserError `not_supported` if the packages of OpenTelemetry are not installed
 */
export async function loadTelemetry(): Promise<Telemetry | undefined> {
  const wanted = wantedExports(process.env);
  const variable = wanted.traces ?? wanted.metrics;
  if (variable === undefined) return undefined;
  try {
    const [api, sdk, otel] = await Promise.all([
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-node"),
      import("../otel/index.js"),
    ]);
    return new Telemetry(wanted, { api, sdk, otel });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new HawserError(
      "not_supported",
      `${variable} asks for an export by OpenTelemetry, and its packages are not installed beside hawser: ` +
        `\`npm install @opentelemetry/api@1.9 @opentelemetry/sdk-node@0.223\`, or unset ${variable}`,
      { cause },
    );
  }
}

interface Modules {
  readonly api: typeof import("@opentelemetry/api");
  readonly sdk: typeof import("@opentelemetry/sdk-node");
  readonly otel: typeof import("../otel/index.js");
}

/** Time for which a stop waits for the last export of the SDK. */
const flushMs = 4_000;

const notExported = "the last traces or metrics were not exported";

/** Longest text of the SDK that is logged. */
const maxWordsBytes = 1_000;

/** The OpenTelemetry SDK of this process. */
export class Telemetry {
  readonly #wanted: WantedExports;
  readonly #modules: Modules;
  #running: { readonly shutdown: () => Promise<void>; readonly problems: RareLog } | undefined;
  /** False while the SDK may keep the process alive. */
  #hasEnded = true;

  constructor(wanted: WantedExports, modules: Modules) {
    this.#wanted = wanted;
    this.#modules = modules;
  }

  /** Starts to trace and to export. @param logger gets what the SDK reports */
  start(logger: Logger): void {
    const { api, sdk, otel } = this.#modules;
    const problems = new RareLog(logger, "opentelemetry");
    this.#listen(logger, problems);
    const environment = {
      // By this one, the SDK would log to standard output.
      OTEL_LOG_LEVEL: undefined,
      // Later ones take precedence. That of the process would export the command line, with the password in a URL.
      OTEL_NODE_RESOURCE_DETECTORS: "serviceinstance,host,env",
      // The user's attributes come last, and take precedence.
      OTEL_RESOURCE_ATTRIBUTES: `service.name=${serviceName},service.version=${version},${process.env["OTEL_RESOURCE_ATTRIBUTES"] ?? ""}`,
    };
    const node = withEnvironment(environment, () => {
      const started = new sdk.NodeSDK({
        logRecordProcessors: [],
        ...(this.#wanted.traces === undefined && { spanProcessors: [] }),
        ...(this.#wanted.metrics === undefined && { metricReaders: [] }),
      });
      started.start();
      return started;
    });
    const isTracing = this.#wanted.traces !== undefined;
    const instrumented = otel.instrument({ traces: isTracing, servers: this.#wanted.metrics !== undefined });
    const shutdown = async (): Promise<void> => {
      instrumented[Symbol.dispose]();
      await node.shutdown();
      api.diag.disable();
    };
    this.#running = { shutdown, problems };
    this.#hasEnded = false;
    logger.info({ traces: isTracing, metrics: this.#wanted.metrics !== undefined }, "exporting by OpenTelemetry");
  }

  /** Stops, and exports what has not been exported yet, as far as that succeeds in `flushMs`. Never rejects. */
  async stop(): Promise<void> {
    if (this.#running === undefined) return;
    const { shutdown, problems } = this.#running;
    this.#running = undefined;
    try {
      const ended = shutdown().then(() => true);
      this.#hasEnded = (await within(flushMs, ended)) ?? false;
      if (!this.#hasEnded) problems.warn(notExported, "the collector has not answered in time");
    } catch (error) {
      problems.warn(notExported, this.#words([error]));
    }
    problems.end();
  }

  /** Ends the process if only an export that was given up keeps it alive. The last call of a command. */
  leave(): void {
    if (!this.#hasEnded) setTimeout(() => process.exit(), 0).unref();
  }

  /** Logs what the SDK reports; by itself it writes to standard output. */
  #listen(logger: Logger, problems: RareLog): void {
    const { diag, DiagLogLevel } = this.#modules.api;
    const warn = (...words: unknown[]): void => problems.warn("OpenTelemetry reports a problem", this.#words(words));
    const debug = (...words: unknown[]): void => logger.debug({ words: this.#words(words) }, "OpenTelemetry reports");
    const named = process.env["OTEL_LOG_LEVEL"]?.trim().toUpperCase() as keyof typeof DiagLogLevel | undefined;
    const logLevel = (named && DiagLogLevel[named]) ?? DiagLogLevel.WARN;
    diag.setLogger(
      { error: warn, warn, info: debug, debug, verbose: debug },
      { logLevel, suppressOverrideMessage: true },
    );
  }

  #words(words: readonly unknown[]): string {
    return shortened(withoutHeaders(words.map(textOf).join(" "), process.env), maxWordsBytes);
  }
}

function textOf(word: unknown): string {
  if (word instanceof Error) return word.message;
  if (typeof word !== "string") return inspect(word, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
  // The SDK reports an error as JSON with its stack.
  const [, message] = /"message":("(?:[^"\\]|\\.)*")/.exec(word) ?? [];
  try {
    return message === undefined ? word : (JSON.parse(message) as string);
  } catch {
    return word;
  }
}

/** Calls a function with other variables of the environment; undefined removes one. */
function withEnvironment<T>(variables: Readonly<Record<string, string | undefined>>, call: () => T): T {
  const before = { ...process.env };
  const set = ([name, value]: readonly [string, string | undefined]): void => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  Object.entries(variables).forEach(set);
  try {
    return call();
  } finally {
    for (const name of Object.keys(variables)) set([name, before[name]]);
  }
}
