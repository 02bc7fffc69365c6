/**
 * What a user says of TLS between peers; certificate, key and authorities as read, and whether they can be used together.
 * Pure: PEM in, material out.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError, unknownOption } from "../errors/index.js";

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
  /** Mutual TLS: a peer that dials must show a certificate from `ca`, which must be given. Default false. */
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

/**
 * Checks the form of the options; what the PEM holds is for {@link loadTlsMaterial}.
 *
 * @throws HawserError `invalid_argument`
 */
export function checkTlsOptions(options: TlsOptions): void {
  if (typeof options !== "object" || options === null) throw invalid("tls must be an object with cert and key");
  const problem = unknownOption(options, "tls", Object.keys(rules));
  if (problem !== undefined) throw invalid(problem);
  for (const [name, value] of Object.entries(options)) {
    const [holds, must] = rules[name as keyof TlsOptions];
    // The value may be a secret.
    if (value !== undefined && !holds(value)) throw invalid(`tls.${name} ${must}`);
  }
  const { cert, key, ca, mutual, verify, serverName } = options;
  if (cert === undefined || key === undefined) {
    throw invalid("tls needs both cert and key: every peer listens, and shows its certificate to peers that dial it");
  }
  if (mutual && ca === undefined) {
    throw invalid("tls.mutual needs tls.ca: the authority that the certificates of diallers must come from");
  }
  if (verify === "ca" && serverName !== undefined) {
    throw invalid('tls.serverName is not checked with tls.verify "ca"; leave one of the two out');
  }
}

/** An error for what the user gave. */
export function invalid(message: string, cause?: unknown): HawserError {
  return new HawserError("invalid_argument", message, cause === undefined ? {} : { cause });
}

/** PEM, each with the words that say where it comes from: "tls.cert /etc/hawser/tls.crt". */
export interface TlsPem {
  readonly cert: NamedPem;
  readonly key: NamedPem;
  readonly ca: NamedPem | undefined;
  readonly passphrase: string | undefined;
}

/** PEM from one place. */
export interface NamedPem {
  readonly origin: string;
  readonly pem: Buffer;
}

/** What new connections are made with. */
export interface TlsMaterial {
  /** For servers; the same as in `context`. */
  readonly contextOptions: SecureContextOptions;
  /** For diallers, made once: making one costs as much as a handshake. */
  readonly context: SecureContext;
  /** Of this peer's own certificate: the time in milliseconds after which it is not valid any more. */
  readonly validUntil: number;
}

/**
 * Checks that everything is there and belongs together, as of `now`.
 *
 * @param now milliseconds since 1970
 * @throws HawserError `invalid_argument`: no certificate or key in the PEM, an encrypted key without its passphrase,
 * a key that does not belong to the certificate, a certificate that is not valid yet or any more
 */
export function loadTlsMaterial({ cert, key, ca, passphrase }: TlsPem, now: number): TlsMaterial {
  const [own] = certificatesOf(cert);
  if (ca !== undefined) certificatesOf(ca);
  const privateKey = privateKeyOf(key, passphrase);
  if (own === undefined || !own.checkPrivateKey(privateKey)) {
    throw invalid(`${key.origin} is not the key of ${cert.origin}; give the two that were made together`);
  }
  checkValidity(cert.origin, own, now);
  const contextOptions: SecureContextOptions = {
    cert: cert.pem,
    key: key.pem,
    minVersion: protocolConstants.tlsMinVersion,
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(ca === undefined ? {} : { ca: ca.pem }),
  };
  try {
    return { contextOptions, context: createSecureContext(contextOptions), validUntil: Date.parse(own.validTo) };
  } catch (cause) {
    throw invalid(`${cert.origin} and ${key.origin} cannot be used: ${reasonOf(cause)}`, cause);
  }
}

const certificateForm = /-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs;

function certificatesOf({ origin, pem }: NamedPem): X509Certificate[] {
  const texts = pem.toString("latin1").match(certificateForm);
  if (texts === null) {
    throw invalid(`${origin} holds no certificate; it must have one between BEGIN CERTIFICATE and END CERTIFICATE`);
  }
  return texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch (cause) {
      throw invalid(`${origin} holds a damaged certificate: ${reasonOf(cause)}`, cause);
    }
  });
}

function privateKeyOf({ origin, pem }: NamedPem, passphrase: string | undefined): KeyObject {
  try {
    return createPrivateKey({ key: pem, format: "pem", ...(passphrase === undefined ? {} : { passphrase }) });
  } catch (cause) {
    if (passphrase === undefined && pem.includes("ENCRYPTED")) {
      throw invalid(`${origin} is encrypted; give tls.passphrase`, cause);
    }
    const opens = passphrase === undefined ? "" : " with tls.passphrase";
    throw invalid(`${origin} cannot be read as a private key${opens}: ${reasonOf(cause)}`, cause);
  }
}

function checkValidity(origin: string, { validFrom, validTo }: X509Certificate, now: number): void {
  if (now > Date.parse(validTo)) throw invalid(`${origin} has expired on ${validTo}; renew it`);
  if (now < Date.parse(validFrom)) {
    throw invalid(`${origin} is not valid before ${validFrom}; check the clock of this machine`);
  }
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
