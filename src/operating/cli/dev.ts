/** `hawser dev`: runs Postgres, nats-server, the schema, and the server of `hawser serve`, until it is stopped. */
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import {
  type DevStack,
  furtherUrls,
  libpqVariables,
  type PortWish,
  startDevStack,
} from "../../development/dev/index.js";
import { HawserError, shellWord, withoutPasswords } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { checkServeOptions, type HawserServer, serve as startServer } from "../../nats/serve/index.js";
import { type InstallReport, install } from "../installation/index.js";
import { type DefinedNatsServer, defineNatsServer, restoreNatsServer } from "../operate/index.js";
import { defineCommand, flag, option, optional, refusal } from "./command-line.js";
import { type CommandLine, commandLineOf, runProgram, statusOfStop } from "./dev-program.js";
import { LogOutput } from "./log-output.js";
import { awaitStopRequest, type StopRequest } from "./long-running.js";
import { jsonText, print, printable, styled } from "./output.js";
import { wholeNumber } from "./quantities.js";
import { loadTelemetry, type Telemetry } from "./telemetry.js";

/** Line that `--json` prints. */
interface DevAnnouncement {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  /** URL at which the SQL functions are answered, without the password; null if they could not be installed. */
  readonly gatewayUrl: string | null;
  /** Directory of data and logs; null if no server was started here. */
  readonly directory: string | null;
  /** HOST:PORT of metrics and health; null without --monitor. */
  readonly monitorAddress: string | null;
}

/** Ports of the servers at each start, unless another program uses them; below the ephemeral ports. */
const usualPorts = { port: 15_432, "nats-port": 14_222 } as const;

/** Time that a second Ctrl-C leaves for restoring the database's definition of the NATS server. */
const hurriedRestoreMs = 1_000;

/** Log file of the server of `hawser serve`, beside the logs of Postgres and nats-server. */
const serveLog = "serve.log";

export const command = defineCommand({
  details:
    "They stop on SIGINT and SIGTERM, and when the program that started this command ends. With `-- COMMAND` they " +
    "run for that command, which gets their URLs in its environment, and end with it. HAWSER_DATABASE_URL and " +
    "HAWSER_NATS_URL name servers to use instead",
  args: {
    command: optional("After --: a program to run, with its arguments. `hawser dev` exits with its status", {
      multiple: true,
      valueHint: "COMMAND…",
    }),
    json: flag(
      "Print one line of JSON when all servers answer, and nothing else. Not with a command, whose output is printed",
    ),
    directory: option("DIR", "Keep data and logs in DIR for the next start, instead of a temporary directory"),
    port: option(
      "PORT",
      `Port of Postgres; 0 selects a free one. Default ${usualPorts.port}, or another one if that is in use. Not with HAWSER_DATABASE_URL`,
    ),
    "nats-port": option(
      "PORT",
      `Port of nats-server; 0 selects a free one. Default ${usualPorts["nats-port"]}. Not with HAWSER_NATS_URL`,
    ),
    monitor: option(
      "HOST:PORT",
      "Address that serves metrics and health, as of `hawser serve`; port 0 takes a free port. Not served if it is not set",
    ),
  },
  run: async (args, rawArgs) => {
    const ports = portsOf(args);
    const { json = false, directory, monitor } = args;
    const nameOf = (): string => "--monitor";
    checkServeOptions({ monitor }, { nameOf, timeText: String });
    const commandLine = commandLineOf(rawArgs, args.command);
    if (commandLine !== undefined && json) {
      throw refusal(
        "dev",
        "-- COMMAND",
        "--json does not go with a command, whose output is printed instead; remove it",
      );
    }
    const telemetry = await loadTelemetry();
    const request = awaitStopRequest({ parent: true, standardInput: commandLine === undefined });
    try {
      await runUntil(request, { json, directory, monitor, telemetry, commandLine, ...ports });
    } catch (error) {
      // A stop request during the start is not a failure; everything has been stopped again.
      if (!request.signal.aborted) throw error;
    } finally {
      request.close();
    }
    // A command that has not run has not succeeded.
    if (commandLine !== undefined && request.signal.aborted) process.exitCode ??= statusOfStop(request.signal.reason);
    // Nothing stopped the server of `hawser serve`, which would keep the process alive.
    if (request.hurry.aborted) process.exit();
    telemetry?.leave();
  },
  examples: [
    ["hawser dev", "Until Ctrl-C, which removes the data"],
    ["hawser dev --directory .hawser", "Keep the data for the next start"],
    ["hawser dev -- npm test", "Servers for one command, with its exit status"],
    ["hawser dev --directory .hawser --port 15433 --nats-port 14223", "Beside the one of another project"],
    ["hawser dev --monitor 127.0.0.1:9464", "With metrics and health, as `hawser serve` has them"],
  ],
});

type PortFlag = keyof typeof usualPorts;

/** Variables that name a server to use instead of starting one. */
const externalServers = {
  port: { variable: "HAWSER_DATABASE_URL", server: "Postgres" },
  "nats-port": { variable: "HAWSER_NATS_URL", server: "nats-server" },
} as const;

/** @throws HawserError `invalid_argument`, also for the port of a server that is not started */
function portsOf(
  args: Readonly<Partial<Record<PortFlag, string | undefined>>>,
): Pick<DevOptions, "postgresPort" | "natsPort"> {
  const postgresPort = portOf("port", args.port);
  const natsPort = portOf("nats-port", args["nats-port"]);
  if (postgresPort === undefined || postgresPort.port !== natsPort?.port) return { postgresPort, natsPort };
  // The default port gives way to the port that the user chose.
  if (natsPort.orAnother) return { postgresPort, natsPort: undefined };
  if (postgresPort.orAnother) return { postgresPort: undefined, natsPort };
  throw new HawserError(
    "invalid_argument",
    `--port and --nats-port are both ${natsPort.port}; set one of them to another port, or to 0 for a free one`,
  );
}

function portOf(flag: PortFlag, given: string | undefined): PortWish | undefined {
  const port = wholeNumber(`--${flag}`, given, { min: 0, max: 65_535 });
  const { variable, server } = externalServers[flag];
  if (given !== undefined && process.env[variable]) {
    throw new HawserError(
      "invalid_argument",
      `--${flag} is for a ${server} that \`hawser dev\` starts, and ${variable} names one to use instead; remove --${flag} ` +
        `or unset ${variable}`,
    );
  }
  if (port === 0) return undefined;
  return { port: port ?? usualPorts[flag], orAnother: port === undefined };
}

interface DevOptions {
  readonly directory: string | undefined;
  readonly postgresPort: PortWish | undefined;
  readonly natsPort: PortWish | undefined;
  /** HOST:PORT of metrics and health. */
  readonly monitor: string | undefined;
  readonly telemetry: Telemetry | undefined;
}

async function runUntil(
  request: StopRequest,
  options: DevOptions & { readonly json: boolean; readonly commandLine: CommandLine | undefined },
): Promise<void> {
  const { stack, gateway, log } = await start(request, options);
  const stop = async (how: { readonly immediately: boolean }) => {
    if (how.immediately) {
      log.closeNow();
      await Promise.race([gateway.restore(), setTimeout(hurriedRestoreMs, undefined, { ref: false })]);
    } else {
      await gateway
        .stop()
        .finally(() => options.telemetry?.stop())
        .finally(() => log.close());
    }
    await stack.stop(how);
  };
  request.hurry.addEventListener("abort", () => void stop({ immediately: true }));
  try {
    if (options.commandLine !== undefined) {
      const environment = environmentOf(stack, gateway);
      if (!request.signal.aborted)
        process.exitCode = await runProgram(options.commandLine, { environment, request, failed: stack.closed });
    } else {
      announce(stack, gateway, options.json);
      request.started();
      if (!request.signal.aborted) await Promise.race([once(request.signal, "abort"), stack.closed]);
    }
  } finally {
    await stop({ immediately: request.hurry.aborted });
  }
}

/** Starts the servers, prepares the database, and starts to answer its SQL functions. */
async function start(
  request: StopRequest,
  options: DevOptions,
): Promise<{ stack: DevStack; gateway: DevGateway; log: LogOutput }> {
  const onProgress = (message: string) => print(process.stderr, styled("dim", printable(message)));
  // A second Ctrl-C ends the process at once; the watchdog cleans up.
  const leave = () => process.exit(130);
  request.hurry.addEventListener("abort", leave);
  try {
    const { directory, postgresPort, natsPort, monitor, telemetry } = options;
    const stack = await startDevStack({ directory, postgresPort, natsPort, onProgress, signal: request.signal });
    let log: LogOutput | undefined;
    try {
      onProgress("Preparing the database");
      const { databaseUrl, natsUrl } = stack;
      // External servers have no directory here, so only warnings are logged, to the terminal.
      log =
        stack.directory === undefined ? new LogOutput("warn") : new LogOutput("info", join(stack.directory, serveLog));
      const { logger } = log;
      telemetry?.start(logger);
      const gateway = await startDevGateway({
        databaseUrl,
        isDatabaseGiven: Boolean(process.env["HAWSER_DATABASE_URL"]),
        natsUrl: natsUrl!,
        isNatsGiven: Boolean(process.env["HAWSER_NATS_URL"]),
        monitor,
        logger,
        onProgress,
      });
      return { stack, gateway, log };
    } catch (error) {
      await telemetry?.stop();
      await log?.close();
      await stack.stop();
      throw error;
    }
  } finally {
    request.hurry.removeEventListener("abort", leave);
  }
}

/** Variables with which programs find the stack, except those that the user has set; undefined removes one. */
function environmentOf(stack: DevStack, { otherNats }: DevGateway): Record<string, string | undefined> {
  // A user with an external server has set the variable, but psql does not read it.
  const isDatabaseOurs = !process.env["HAWSER_DATABASE_URL"];
  // Omitted if the SQL functions use another server: messages of programs would not reach them.
  const isNatsOurs = !process.env["HAWSER_NATS_URL"] && otherNats === undefined;
  // A part that the user's URL lacks stays as in the shell. Without its parameters, psql could send the password unverified.
  const isPlain = !stack.databaseUrl.includes("?");
  return {
    ...(isDatabaseOurs && { ...furtherUrls, HAWSER_DATABASE_URL: stack.databaseUrl }),
    ...((isDatabaseOurs || isPlain) && libpqVariables(stack.databaseUrl)),
    ...(isNatsOurs && { NATS_URL: stack.natsUrl! }),
  };
}

function announce(stack: DevStack, gateway: DevGateway, json: boolean): void {
  const { serve, otherNats } = gateway;
  const gatewayUrl = serve?.gatewayUrl ?? null;
  const monitorAddress = serve?.monitorAddress ?? null;
  if (json) {
    const { databaseUrl, natsUrl, directory = null } = stack;
    const line: DevAnnouncement = { databaseUrl, natsUrl: natsUrl!, gatewayUrl, directory, monitorAddress };
    process.stdout.write(`${jsonText(line)}\n`);
    return;
  }
  const lines = stack.servers.map(
    ({ name, version = "", url, origin }) =>
      `${styled("bold", name)} ${version}  ${styled("cyan", shown(url))}\n  from ${printable(origin)}`,
  );
  if (gatewayUrl !== null) {
    lines.push(`${styled("bold", "hawser serve")}  ${styled("cyan", shown(gatewayUrl))}  (for the SQL functions only)`);
  }
  if (monitorAddress !== null) lines.push(`Metrics  ${styled("cyan", `http://${monitorAddress}/metrics`)}`);
  if (otherNats !== undefined) lines.push(`The SQL functions use ${printable(otherNats)}, not the nats-server above`);
  if (stack.directory !== undefined) {
    lines.push(`Data and logs  ${printable(stack.directory)}`);
    if (serve !== undefined) lines.push(`Log of hawser serve  ${printable(join(stack.directory, serveLog))}`);
  }
  const { HAWSER_DATABASE_URL: databaseUrl, NATS_URL: natsUrl, ...ofPsql } = environmentOf(stack, gateway);
  if (databaseUrl !== undefined) {
    lines.push(`For programs and the other commands:\n  export HAWSER_DATABASE_URL=${databaseUrl}`);
    const variables = Object.entries(ofPsql).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}=${shellWord(value)}`],
    );
    lines.push(`For psql, without an argument:\n  export ${variables.join(" ")}`);
  }
  if (natsUrl !== undefined) lines.push(`For the nats command:\n  export NATS_URL=${natsUrl}`);
  print(process.stdout, `${lines.join("\n")}\nAll servers answer. Ctrl-C stops them.`);
}

/** URL without its password, which is printed only once, where it is needed. */
function shown(url: string): string {
  return printable(withoutPasswords(url));
}

/** Servers and settings of {@link startDevGateway}. */
interface DevGatewayOptions {
  readonly databaseUrl: string;
  /** True if the user named the database, which outlives `hawser dev`. */
  readonly isDatabaseGiven: boolean;
  readonly natsUrl: string;
  /** True if the user named the NATS server, which then replaces the one that the database defines. */
  readonly isNatsGiven: boolean;
  /** HOST:PORT of metrics and health. */
  readonly monitor: string | undefined;
  readonly logger: Logger;
  /** Called with a message for each step. */
  readonly onProgress: (message: string) => void;
}

/** Running gateway for the SQL functions. */
interface DevGateway {
  /** Undefined if the SQL functions are not installed. */
  readonly serve: HawserServer | undefined;
  /** NATS server of the SQL functions, in words, if it differs from that of {@link DevGatewayOptions}. */
  readonly otherNats: string | undefined;
  /** Stops answering, and restores the definition that the database had. */
  stop(): Promise<void>;
  /** Restores the definition that the database had, without waiting for pending answers. */
  restore(): Promise<void>;
}

/**
 * Prepares the database, defines the NATS server in it, and starts to answer. An external database may contain objects
 * that prevent the SQL functions; it is then prepared for peers only. It may also define a NATS server, which is used
 * unless HAWSER_NATS_URL names another.
 */
async function startDevGateway(options: DevGatewayOptions): Promise<DevGateway> {
  const { databaseUrl, monitor, logger, onProgress } = options;
  const { nats, missingPrivileges } = await prepare(databaseUrl, onProgress);
  for (const { what, meaning } of missingPrivileges) onProgress(`Left out: ${what}; ${meaning}`);
  if (nats === null || nats.functions === 0) {
    if (monitor !== undefined) onProgress("Without metrics and health: nothing answers SQL functions");
    return { serve: undefined, otherNats: undefined, stop: async () => undefined, restore: async () => undefined };
  }
  // Before anything connects to NATS, so that nothing uses a definition that is being replaced.
  const { otherNats, restore } = await define(options);
  try {
    const serve = await startServer({ databaseUrl, listen: "127.0.0.1:0", monitor, logger });
    return { serve, otherNats, restore, stop: () => serve.stop().finally(restore) };
  } catch (error) {
    await restore();
    throw error;
  }
}

const loopback = "127.0.0.1";

/** Defines the NATS server in the database, and returns a function that undoes it. */
async function define(options: DevGatewayOptions): Promise<Pick<DevGateway, "otherNats" | "restore">> {
  const { databaseUrl, isDatabaseGiven, natsUrl, isNatsGiven, onProgress } = options;
  const { hostname, port } = new URL(natsUrl);
  const wanted = { host: hostname, port: port || "4222" };
  const isDefined = ({ options: present }: DefinedNatsServer) =>
    Object.keys(present).length === 2 && present["host"] === wanted.host && present["port"] === wanted.port;
  // A kept directory has the definition of the last start, with its port.
  const isLeftover = ({ options: present, foreignServer }: DefinedNatsServer) =>
    !isDatabaseGiven &&
    foreignServer === null &&
    Object.keys(present).toSorted().join() === "host,port" &&
    present["host"] === loopback;
  const { before, isSet } = await defineNatsServer({
    databaseUrl,
    options: wanted,
    replaces: (present) => !isDefined(present) && (isNatsGiven || isLeftover(present)),
  });
  if (before !== undefined && !isSet) {
    if (isDefined(before)) return { otherNats: undefined, restore: async () => undefined };
    const otherNats = inWords(before);
    onProgress(
      `The SQL functions use ${otherNats}, as the database defines it; the definition stays. To use another server while ` +
        "`hawser dev` runs, name it in HAWSER_NATS_URL; SELECT hawser.set_nats_server(NULL) removes a definition by that function",
    );
    return { otherNats, restore: async () => undefined };
  }
  const isKept = before !== undefined && !isLeftover(before);
  if (isKept) {
    onProgress(
      `The SQL functions use the NATS server of HAWSER_NATS_URL while \`hawser dev\` runs, then ${inWords(before)} again`,
    );
  }
  // An embedded database ends with this process, and the next start recognizes this definition.
  if (!isDatabaseGiven && !isNatsGiven) return { otherNats: undefined, restore: async () => undefined };
  const undo = async (): Promise<void> => {
    try {
      await restoreNatsServer({ databaseUrl, options: wanted }, isKept ? before : undefined);
    } catch (error) {
      const what = isKept ? `set back to ${inWords(before)}` : "removed";
      onProgress(`The NATS server that \`hawser dev\` defined could not be ${what}: ${(error as Error).message}`);
    }
  };
  let undone: Promise<void> | undefined;
  return { otherNats: undefined, restore: () => (undone ??= undo()) };
}

/** Description of a definition, without secrets. */
function inWords({ options, foreignServer }: DefinedNatsServer): string {
  const { host, port } = options;
  const place =
    host === undefined ? "the NATS server" : `the NATS server ${host}${port === undefined ? "" : `:${port}`}`;
  return `${place} of ${foreignServer === null ? "hawser.set_nats_server" : `the foreign server ${foreignServer}`}`;
}

/** Codes of errors that prevent the installation of the SQL functions, but not of the objects of peers. */
const functionErrorCodes: ReadonlySet<string> = new Set([
  "native_extension",
  "dblink_shared",
  "name_occupied",
  "not_supported",
]);

async function prepare(databaseUrl: string, onProgress: (message: string) => void): Promise<InstallReport> {
  try {
    return await install({ databaseUrl });
  } catch (error) {
    if (!(error instanceof HawserError) || !functionErrorCodes.has(error.code)) throw error;
    onProgress(`Without NATS from SQL: ${error.message}`);
    return install({ databaseUrl, nats: false });
  }
}
