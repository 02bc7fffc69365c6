/**
 * TLS for commands that run a peer. All peers of a mesh speak it, or none.
 */
import type { ArgsDef } from "citty";
import { CliError } from "../errors/index.js";
import type { PeerOptions } from "../peer/index.js";

/** Spread it into a command's `args`. */
export const tlsOption = {
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
  "tls-mutual": { type: "boolean", description: "Whoever dials must show a certificate, too" },
  "tls-server-name": {
    type: "string",
    valueHint: "HOST",
    description: "The name in the other peers' certificates. Default: the host of their address",
  },
} as const satisfies ArgsDef;

/** What {@link tlsOf} reads. */
export interface TlsArguments {
  readonly "tls-cert"?: string | undefined;
  readonly "tls-key"?: string | undefined;
  readonly "tls-ca"?: string | undefined;
  readonly "tls-mutual"?: boolean | undefined;
  readonly "tls-server-name"?: string | undefined;
}

/** The peer's option; empty without a certificate. @throws CliError `invalid_argument` for a part without the rest */
export function tlsOf(args: TlsArguments): Pick<PeerOptions, "tls"> {
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
  const given = (Object.keys(tlsOption) as (keyof TlsArguments)[]).find((name) => args[name] !== undefined);
  if (given === undefined) return {};
  throw new CliError("invalid_argument", `--${given} needs both --tls-cert and --tls-key; give them, too`);
}
