/**
 * The options of commands that run a peer, and what such a peer says on standard error.
 */
import { hostname } from "node:os";
import type { ArgsDef } from "citty";
import pc from "picocolors";
import { errorTable, type HawserError } from "../errors/index.js";
import type { Peer, PeerOptions, PeerStatus } from "../peer/index.js";
import { databaseOption, databaseUrlOf, sessionOption, sessionUrlOf } from "./database-option.js";
import { print } from "./output.js";
import { printable } from "./printable.js";
import { type TlsArguments, tlsOf, tlsOption } from "./tls-option.js";

/** Spread it into a command's `args`. */
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
  args: TlsArguments & {
    readonly "database-url"?: string | undefined;
    readonly "session-url"?: string | undefined;
    readonly listen: string;
    readonly advertise?: string | undefined;
    readonly "allow-plaintext"?: boolean | undefined;
  },
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

/** Kinds of status that are nothing to worry about. */
const ordinary: ReadonlySet<PeerStatus["kind"]> = new Set([
  "peer_connected",
  "peer_disconnected",
  "peer_subscribed",
  "peer_unsubscribed",
  "sender_route_lost",
  "sender_busy",
  "fenced",
]);

/** Prints what goes wrong on standard error. `lostName` has the error if the peer has lost its name. */
export function watch(peer: Peer): { readonly lostName: () => HawserError | undefined } {
  let lost: HawserError | undefined;
  peer.on("status", (status) => {
    if (status.kind === "name_lost") lost = status.error;
    else if (!ordinary.has(status.kind) && !passes(status)) {
      print(process.stderr, `${pc.yellow("hawser:")} ${printable(status.message)} ${pc.dim(`[${status.kind}]`)}`);
    }
  });
  return { lostName: () => lost };
}

/** Whoever was turned away because of the moment tries again by itself. */
function passes(status: PeerStatus): boolean {
  return status.kind === "handshake_refused" && errorTable[status.code].retryable;
}
