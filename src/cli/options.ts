/**
 * Options that several commands have: the database, TLS, and those of a peer.
 */
import { hostname } from "node:os";
import type { ArgsDef } from "citty";
import pc from "picocolors";
import { errorTable, HawserError } from "../errors/index.js";
import type { Peer, PeerOptions, PeerStatus } from "../peer/index.js";
import { urlFromEnvironment } from "../postgres/index.js";
import { RareLog, silentLogger } from "../runtime/index.js";
import { print, printable } from "./output.js";

/** Options as they were given. */
export type Given<Options extends ArgsDef> = {
  readonly [Name in keyof Options]?: (Options[Name]["type"] extends "boolean" ? boolean : string) | undefined;
};

/** Which database a command works on. Spread it into its `args`. */
export const databaseOption = {
  "database-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The database, postgres://user@host:5432/name. Default: HAWSER_DATABASE_URL, else the PG* variables of libpq " +
      "(PGHOST, PGUSER, PGPASSWORD, …). A password belongs in one of these: others can read a command line",
  },
} as const satisfies ArgsDef;

/**
 * The connection URI that the arguments or HAWSER_DATABASE_URL name; undefined for the PG* variables.
 *
 * @throws HawserError `invalid_argument` for an empty one, which a shell makes of a variable that is not set
 */
export function databaseUrlOf(args: Given<typeof databaseOption>): string | undefined {
  return notEmpty("database-url", args["database-url"]) ?? urlFromEnvironment("HAWSER_DATABASE_URL");
}

function notEmpty(flag: string, url: string | undefined): string | undefined {
  if (url !== "") return url;
  const remedy = "give it a URL such as postgres://user@host:5432/name, or leave it out";
  throw new HawserError("invalid_argument", `--${flag} is empty; ${remedy}`);
}

/** Beside {@link databaseOption}, for commands that run a peer: it needs a session. Spread it into their `args`. */
const sessionOption = {
  "session-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The server of the same database itself, where --database-url leads through a transaction pooler. Default: " +
      "HAWSER_SESSION_URL, unless --database-url is given; it belongs to HAWSER_DATABASE_URL",
  },
} as const satisfies ArgsDef;

/**
 * The connection URI that the arguments or HAWSER_SESSION_URL name; undefined if the session goes where the pool goes. The
 * variable is not for a database that the arguments name: that may be another one.
 *
 * @throws HawserError `invalid_argument` for an empty one
 */
function sessionUrlOf(args: Given<typeof databaseOption & typeof sessionOption>): string | undefined {
  const url = notEmpty("session-url", args["session-url"]);
  if (url !== undefined || args["database-url"] !== undefined) return url;
  return urlFromEnvironment("HAWSER_SESSION_URL");
}

/** Errors that a database other than the one that was meant would explain. */
const ofTheDatabase: ReadonlySet<string> = new Set(["store_failed", "startup_failed", "schema_missing"]);

/**
 * The error of a command; where it is about the database, and nobody had said which, it says where that was looked for.
 *
 * @param definition the command's arguments
 * @param rawArgs as they were given
 */
export function namingDefaults(error: unknown, definition: ArgsDef, rawArgs: readonly string[]): unknown {
  if (!(error instanceof HawserError) || !ofTheDatabase.has(error.code) || !("database-url" in definition))
    return error;
  const given = rawArgs.some((argument) => /^--database-url(=|$)/.test(argument));
  if (given || process.env["HAWSER_DATABASE_URL"]) return error;
  const { code, message, outcome } = error;
  const why = "no --database-url and no HAWSER_DATABASE_URL were given: libpq's defaults were used";
  return new HawserError(code, `${message}; ${why}`, { cause: error, ...(outcome !== undefined && { outcome }) });
}

/** TLS for commands that run a peer. All peers of a mesh speak it, or none. */
const tlsOption = {
  "tls-cert": {
    type: "string",
    valueHint: "FILE",
    description: "Speak TLS, with this certificate (PEM). Where the mesh has TLS, so must the command",
  },
  "tls-key": { type: "string", valueHint: "FILE", description: "The certificate's private key (PEM)" },
  "tls-ca": {
    type: "string",
    valueHint: "FILE",
    description: "The authorities of the other peers' certificates (PEM). Default: those that Node trusts",
  },
  "tls-mutual": { type: "boolean", description: "A peer that dials must show a certificate, too" },
  "tls-server-name": {
    type: "string",
    valueHint: "HOST",
    description: "The name in the other peers' certificates. Default: the host of their address",
  },
} as const satisfies ArgsDef;

/** The peer's option; empty without a certificate. @throws HawserError `invalid_argument` for a part without the rest */
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
  throw new HawserError("invalid_argument", `--${given} needs both --tls-cert and --tls-key; give them, too`);
}

/** The options of commands that run a peer. Spread it into a command's `args`. */
export const peerOptions = {
  ...databaseOption,
  ...sessionOption,
  listen: {
    type: "string",
    valueHint: "HOST:PORT",
    default: "127.0.0.1:0",
    description: "The address to listen on; port 0 takes a free one",
  },
  advertise: {
    type: "string",
    valueHint: "HOST:PORT",
    description: "The address that others dial, if it is not the one listened on",
  },
  "allow-plaintext": {
    type: "boolean",
    description: "Dial and accept other machines without TLS: the network is trusted",
  },
  ...tlsOption,
} as const satisfies ArgsDef;

/** This machine's name as part of a peer's name. */
export function hostPart(): string {
  return (
    hostname()
      .replace(/[:\p{Cc}]/gu, "_")
      .slice(0, 100) || "localhost"
  );
}

/** What a peer is told beside name and topic. */
export function settingsOf(
  args: Given<typeof peerOptions> & { readonly listen: string },
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

/** Whether a kind of status is nothing to worry about. */
export const isOrdinary: { readonly [K in PeerStatus["kind"]]: boolean } = {
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

/** Problems of a peer as lines on standard error. */
export interface Watched {
  /** The error if the peer has lost its name. */
  lostName(): HawserError | undefined;
  /** Prints how often lines were left out, and ends. */
  end(): void;
}

/** Prints what goes wrong on standard error. Others can cause it by the thousand: the same again is only counted for a while. */
export function watch(peer: Peer): Watched {
  let lost: HawserError | undefined;
  const rareLog = new RareLog({ ...silentLogger, warn: printProblem }, peer.name);
  peer.on("status", (status) => {
    const { kind, message } = status;
    if (kind === "name_lost") lost = status.error;
    if (isOrdinary[kind] || kind === "name_lost") return;
    // By the code: whoever is refused chooses words of the message.
    if (kind !== "handshake_refused") rareLog.warn(kind, message, { said: message });
    else if (!passes(status)) rareLog.warn(kind, status.code, { said: message });
  });
  return { lostName: () => lost, end: () => rareLog.end() };
}

/** Prints a line of {@link RareLog}. @param what the kind of status; a sentence if the log only counted */
function printProblem({ said, times }: { readonly said?: string; readonly times?: number }, what: string): void {
  const count = times === undefined ? "" : ` (${times} more)`;
  const line = said === undefined ? `${what}${count}` : `${printable(said)}${count} ${pc.dim(`[${what}]`)}`;
  print(process.stderr, `${pc.yellow("hawser:")} ${line}`);
}

/** A peer that was refused because of the moment tries again by itself. */
function passes({ code }: Extract<PeerStatus, { readonly kind: "handshake_refused" }>): boolean {
  return errorTable[code].retryable;
}

/** The value of an option that has only these. @throws HawserError `invalid_argument`, naming the option and the value */
export function oneOf<Value extends string>(
  option: string,
  value: string | undefined,
  known: readonly Value[],
): Value | undefined {
  const found = known.find((each) => each === value);
  if (found !== undefined || value === undefined) return found;
  throw new HawserError("invalid_argument", `--${option} "${value}" is none of ${known.join(", ")}`);
}
