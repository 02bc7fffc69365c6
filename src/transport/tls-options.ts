/**
 * What a user says of TLS between peers.
 */
import { TransportError } from "../errors/index.js";

/** PEM: its text or bytes, or the path of a file that holds it. Files are read again while the peer runs. */
export type PemSource = string | Uint8Array;

/**
 * TLS between peers. With it a peer accepts and dials nothing but TLS (1.3 or newer): give it to every peer of a mesh, or
 * to none.
 */
export interface TlsOptions {
  /** This peer's certificate, followed by those between it and its authority, if any. */
  readonly cert: PemSource;
  /** The private key of that certificate. */
  readonly key: PemSource;
  /** Opens an encrypted `key`. */
  readonly passphrase?: string | undefined;
  /** The authorities that the other peers' certificates must come from. Default: those that Node trusts. */
  readonly ca?: PemSource | undefined;
  /** Mutual TLS: whoever dials must show a certificate from `ca`, which must be given. Default false. */
  readonly mutual?: boolean | undefined;
  /**
   * What must stand in the certificate of a peer that is dialled. `"full"` (the default): the host of its published
   * address, a name or an IP address. `"ca"`: anything; that it comes from `ca` is enough.
   */
  readonly verify?: "full" | "ca" | undefined;
  /** The host name that must stand in the certificate of every peer that is dialled, instead of its address's host. */
  readonly serverName?: string | undefined;
}

type Rule = readonly [holds: (value: unknown) => boolean, must: string];

const isText = (value: unknown): boolean => typeof value === "string" && value !== "";
const isPem = (value: unknown): boolean => isText(value) || (value instanceof Uint8Array && value.length > 0);
const isBoolean = (value: unknown): boolean => typeof value === "boolean";
const pem = "must be PEM, as text or bytes, or the path of a file that holds it";

const rules: Readonly<Record<keyof TlsOptions, Rule>> = {
  cert: [isPem, pem],
  key: [isPem, pem],
  passphrase: [isText, "must be a text that is not empty"],
  ca: [isPem, pem],
  mutual: [isBoolean, "must be true or false"],
  verify: [(value) => value === "full" || value === "ca", 'must be "full" or "ca"'],
  serverName: [isText, "must be a host name"],
};

/** Checks the form of the options; what the PEM holds is for {@link loadTlsMaterial}. @throws TransportError `invalid_argument` */
export function checkTlsOptions(options: TlsOptions): void {
  if (typeof options !== "object" || options === null) throw invalid("tls must be an object with cert and key");
  for (const [name, value] of Object.entries(options)) {
    const rule = rules[name as keyof TlsOptions] as Rule | undefined;
    if (rule === undefined) throw invalid(`tls.${name} is unknown; use ${Object.keys(rules).join(", ")}`);
    // The value may be a secret.
    if (value !== undefined && !rule[0](value)) throw invalid(`tls.${name} ${rule[1]}`);
  }
  const { cert, key, ca, mutual, verify, serverName } = options;
  if (cert === undefined || key === undefined) {
    throw invalid("tls needs both cert and key: every peer listens, and shows its certificate to who dials it");
  }
  if (mutual && ca === undefined) {
    throw invalid("tls.mutual needs tls.ca: the authority that the certificates of those who dial must come from");
  }
  if (verify === "ca" && serverName !== undefined) {
    throw invalid('tls.serverName is not looked at with tls.verify "ca"; leave one of the two out');
  }
}

/** An error for what the user gave. */
export function invalid(message: string, cause?: unknown): TransportError {
  return new TransportError("invalid_argument", message, cause === undefined ? {} : { cause });
}
