/** Options that several commands share: the database, TLS, and the options of a peer. */
import { hostname } from "node:os";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable, HawserError } from "../../foundation/errors/index.js";
import { RareLog, silentLogger } from "../../foundation/runtime/index.js";
import { urlFromEnvironment } from "../../foundation/sql-clients/index.js";
import type { Peer, PeerOptions, PeerStatus } from "../../jobs-and-peers/peer/index.js";
import { type Arguments, flag, type Given, option } from "./command-line.js";
import { print, printable, styled } from "./output.js";

/** Option for the database of a command. Spread it into its `args`. */
export const databaseOption = {
  "database-url": option(
    "URL",
    'URL of the database, postgres://user@host:5432/name, or keywords, "host=… dbname=…". Default: HAWSER_DATABASE_URL, else the PG* variables of libpq ' +
      "(PGHOST, PGUSER, PGPASSWORD, …). Set passwords in one of these: other users can read command lines",
  ),
} as const satisfies Arguments;

/**
 * Connection URI from the arguments or HAWSER_DATABASE_URL; undefined for the PG* variables.
 *
 * @throws HawserError `invalid_argument` for an empty URL, such as from an unset shell variable
 */
export function databaseUrlOf(args: Given<typeof databaseOption>): string | undefined {
  return notEmpty("database-url", args["database-url"]) ?? urlFromEnvironment("HAWSER_DATABASE_URL");
}

function notEmpty(flag: string, url: string | undefined): string | undefined {
  if (url !== "") return url;
  const remedy = "give it a URL such as postgres://user@host:5432/name, or remove it";
  throw new HawserError("invalid_argument", `--${flag} is empty; ${remedy}`);
}

/** Option for commands that check the files of the NATS server's options. Spread it into their `args`. */
export const secretsDirectoryOption = {
  "secrets-dir": option(
    "DIR",
    "Directory of files that options of the NATS server name (…_path), as for `hawser serve`; may be given several " +
      `times. Default ${gatewayConstants.secretsDirectory}`,
    { multiple: true },
  ),
} as const satisfies Arguments;

/** Directories of {@link secretsDirectoryOption}, or the default one. */
export function secretsDirectoriesOf(given: Given<typeof secretsDirectoryOption>): readonly string[] {
  return given["secrets-dir"] ?? [gatewayConstants.secretsDirectory];
}

/**
 * Option beside {@link databaseOption} for commands that run a peer, which needs a session. Spread it into their
 * `args`.
 */
const sessionOption = {
  "session-url": option(
    "URL",
    "URL of the same database without the pooler, if --database-url leads through a transaction pooler. Default: " +
      "HAWSER_SESSION_URL, unless --database-url is given; it belongs to HAWSER_DATABASE_URL",
  ),
} as const satisfies Arguments;

/**
 * Connection URI from the arguments or HAWSER_SESSION_URL; undefined if the session uses the pool's URL. The variable
 * is ignored for a database that the arguments name, because it may belong to another one.
 *
 * @throws HawserError `invalid_argument` for an empty URL
 */
function sessionUrlOf(args: Given<typeof databaseOption & typeof sessionOption>): string | undefined {
  const url = notEmpty("session-url", args["session-url"]);
  if (url !== undefined || args["database-url"] !== undefined) return url;
  return urlFromEnvironment("HAWSER_SESSION_URL");
}

/** TLS options of commands that run a peer. All peers of a mesh use TLS, or none does. */
const tlsOption = {
  "tls-cert": option("FILE", "Use TLS with this certificate (PEM). Required if the peers of the mesh use TLS"),
  "tls-key": option("FILE", "The certificate's private key (PEM)"),
  "tls-ca": option("FILE", "Authorities of the other peers' certificates (PEM). Default: those that Node.js trusts"),
  "tls-mutual": flag("Require a certificate from peers that connect"),
  "tls-server-name": option("HOST", "Name in the other peers' certificates. Default: the host of their address"),
} as const satisfies Arguments;

/**
 * TLS option of the peer; empty without a certificate. @throws HawserError `invalid_argument` for incomplete options
 */
function tlsOf(args: Given<typeof tlsOption>): Pick<PeerOptions, "tls"> {
  const { "tls-cert": cert, "tls-key": key, "tls-ca": ca, "tls-mutual": mutual, "tls-server-name": serverName } = args;
  if (cert !== undefined && key !== undefined) {
    return {
      tls: {
        cert,
        key,
        ...(ca !== undefined && { ca }),
        ...(mutual !== undefined && { mutual }),
        ...(serverName !== undefined && { serverName }),
      },
    };
  }
  const given = (Object.keys(tlsOption) as (keyof typeof tlsOption)[]).find((name) => args[name] !== undefined);
  if (given === undefined) return {};
  throw new HawserError("invalid_argument", `--${given} needs both --tls-cert and --tls-key; give them too`);
}

/** Options of commands that run a peer. Spread them into a command's `args`. */
export const peerOptions = {
  ...databaseOption,
  ...sessionOption,
  listen: option("HOST:PORT", "Address to listen on; port 0 selects a free one", { default: "127.0.0.1:0" }),
  advertise: option("HOST:PORT", "Address that other peers connect to, if it differs from the listening address"),
  "allow-plaintext": flag("Connect to and accept other machines without TLS: the network is trusted"),
  ...tlsOption,
} as const satisfies Arguments;

/** Name of this machine as part of a peer's name. */
export function hostPart(): string {
  return (
    hostname()
      .replace(/[:\p{Cc}]/gu, "_")
      .slice(0, 100) || "localhost"
  );
}

/** Peer options besides name and topic. */
export function settingsOf(
  args: Given<typeof peerOptions>,
): Pick<PeerOptions, "databaseUrl" | "sessionUrl" | "listen" | "advertise" | "allowPlaintext" | "tls"> {
  return {
    databaseUrl: databaseUrlOf(args),
    sessionUrl: sessionUrlOf(args),
    listen: args.listen,
    advertise: args.advertise,
    allowPlaintext: args["allow-plaintext"],
    ...tlsOf(args),
  };
}

/** True for kinds of status that are no problem; {@link watch} does not print them. */
const isOrdinary: { readonly [K in PeerStatus["kind"]]: boolean } = {
  peer_connected: true,
  peer_disconnected: true,
  peer_subscribed: true,
  peer_unsubscribed: true,
  sender_route_lost: true,
  sender_store_error: false,
  sender_send_error: false,
  sender_busy: true,
  listener_store_error: false,
  handshake_refused: false,
  gap: false,
  tls_reload_failed: false,
  fenced: true,
  name_lost: false,
  dead_letter: false,
  attempt_failed: false,
};

/** Reporter of a peer's problems on standard error. */
export interface Watched {
  /** Error if the peer has lost its name. */
  lostName(): HawserError | undefined;
  /** Prints the number of omitted lines, and ends the reporting. */
  end(): void;
}

/**
 * Prints problems on standard error. Repeated problems, which other peers can cause by the thousand, are only counted
 * for a while.
 */
export function watch(peer: Peer): Watched {
  let lost: HawserError | undefined;
  const rareLog = new RareLog({ ...silentLogger, warn: printProblem }, peer.name);
  peer.on("status", (status) => {
    const { kind, message } = status;
    if (kind === "name_lost") lost = status.error;
    if (isOrdinary[kind] || kind === "name_lost") return;
    // Grouped by code, because the refused peer chooses parts of the message.
    if (kind !== "handshake_refused") rareLog.warn(kind, message, { said: message });
    else if (!passes(status)) rareLog.warn(kind, status.code, { said: message });
  });
  return { lostName: () => lost, end: () => rareLog.end() };
}

/** Prints a line of {@link RareLog}. @param what kind of status; a sentence if the log only counted */
function printProblem({ said, times }: { readonly said?: string; readonly times?: number }, what: string): void {
  const count = times === undefined ? "" : ` (${times} more)`;
  const line = said === undefined ? `${what}${count}` : `${printable(said)}${count} ${styled("dim", `[${what}]`)}`;
  print(process.stderr, `${styled("yellow", "hawser:")} ${line}`);
}

/** True if a refused peer retries by itself, because the reason is temporary. */
function passes({ code }: Extract<PeerStatus, { readonly kind: "handshake_refused" }>): boolean {
  return errorTable[code].retryable;
}

/** Value of an option out of a fixed set. @throws HawserError `invalid_argument` with the option and the value */
export function oneOf<Value extends string>(
  option: string,
  value: string | undefined,
  known: readonly Value[],
): Value | undefined {
  const found = known.find((each) => each === value);
  if (found !== undefined || value === undefined) return found;
  throw new HawserError("invalid_argument", `--${option} "${value}" is not one of ${known.join(", ")}`);
}

/** Option of the commands that print payloads. */
export const descriptorsOption = {
  descriptors: option(
    "FILE",
    "Show typed messages as protobuf JSON, with an image of their types: buf build -o image.binpb",
  ),
} as const;

/** @throws HawserError `invalid_argument` */
export function idOf(text: string): bigint {
  if (/^[1-9]\d{0,18}$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text)) return BigInt(text);
  throw new HawserError("invalid_argument", `"${text}" is not the id of a message, as enqueue returns it`);
}
