/**
 * TLS options of a peer, and the check that its certificate, key and authorities fit together. Pure: PEM in, material
 * out.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { checkOptionNames, errorMessageOf, invalidArgument } from "../errors/index.js";

/** PEM as text or bytes, or the path of a PEM file. Files are reloaded while the peer runs. */
export type PemSource = string | Uint8Array;

/**
 * TLS between peers. With it, a peer accepts and dials only TLS 1.3 or newer: set it for all peers of a mesh or for
 * none.
 */
export interface TlsOptions {
  /** Certificate of this peer, followed by its intermediate certificates, if any. */
  readonly cert: PemSource;
  /** Private key of the certificate. */
  readonly key: PemSource;
  /** Passphrase of an encrypted `key`. */
  readonly passphrase?: string | undefined;
  /** Authorities that must have issued the other peers' certificates. Default: those that Node.js trusts. */
  readonly ca?: PemSource | undefined;
  /** Mutual TLS: a dialling peer must present a certificate issued by `ca`, which is then required. Default false. */
  readonly mutual?: boolean | undefined;
  /**
   * Check of the certificate of a dialled peer. `"full"` (default): it must contain the host of the published address,
   * a name or an IP address. `"ca"`: it is sufficient that `ca` issued it.
   */
  readonly verify?: "full" | "ca" | undefined;
  /** Host name that certificates of dialled peers must contain, instead of the host of the address. */
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
 * Checks the form of the options. {@link loadTlsMaterial} checks the content of the PEM.
 *
 * @throws HawserError `invalid_argument`
 */
export function checkTlsOptions(options: TlsOptions): void {
  if (typeof options !== "object" || options === null) throw invalidArgument("tls must be an object with cert and key");
  checkOptionNames(options, "tls", Object.keys(rules));
  for (const [name, value] of Object.entries(options)) {
    const [holds, must] = rules[name as keyof TlsOptions];
    // The message omits the value, which may be secret.
    if (value !== undefined && !holds(value)) throw invalidArgument(`tls.${name} ${must}`);
  }
  const { cert, key, ca, mutual, verify, serverName } = options;
  if (cert === undefined || key === undefined) {
    throw invalidArgument(
      "tls needs both cert and key: every peer listens, and shows its certificate to peers that dial it",
    );
  }
  if (mutual && ca === undefined) {
    throw invalidArgument("tls.mutual needs tls.ca: the authority that the certificates of diallers must come from");
  }
  if (verify === "ca" && serverName !== undefined) {
    throw invalidArgument('tls.serverName is not checked with tls.verify "ca"; leave one of the two out');
  }
}

/** PEM sources, each with its origin for error messages: "tls.cert /etc/hawser/tls.crt". */
export interface TlsPem {
  readonly cert: NamedPem;
  readonly key: NamedPem;
  readonly ca: NamedPem | undefined;
  readonly passphrase: string | undefined;
}

/** PEM with its origin. */
export interface NamedPem {
  readonly origin: string;
  readonly pem: Buffer;
}

/** TLS material for new connections. */
export interface TlsMaterial {
  /** Options for servers; the same as in `context`. */
  readonly contextOptions: SecureContextOptions;
  /** Context for diallers. Created once, because that costs as much as a handshake. */
  readonly context: SecureContext;
  /** Expiry of this peer's certificate in ms since 1970. */
  readonly validUntil: number;
}

/**
 * Checks that certificate, key and authorities are complete, valid at `now` and fit together.
 *
 * @param now time in ms since 1970
 * @throws HawserError `invalid_argument`: no certificate or key in the PEM, an encrypted key without passphrase, a
 * key of another certificate, a certificate that is expired or not yet valid
 */
export function loadTlsMaterial({ cert, key, ca, passphrase }: TlsPem, now: number): TlsMaterial {
  const [own] = certificatesOf(cert);
  if (ca !== undefined) certificatesOf(ca);
  const privateKey = privateKeyOf(key, passphrase);
  if (own === undefined || !own.checkPrivateKey(privateKey)) {
    throw invalidArgument(`${key.origin} is not the key of ${cert.origin}; use a matching pair`);
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
    throw invalidArgument(`${cert.origin} and ${key.origin} cannot be used: ${errorMessageOf(cause)}`, cause);
  }
}

const certificateForm = /-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs;

function certificatesOf({ origin, pem }: NamedPem): X509Certificate[] {
  const texts = pem.toString("latin1").match(certificateForm);
  if (texts === null) {
    throw invalidArgument(
      `${origin} holds no certificate; it must have one between BEGIN CERTIFICATE and END CERTIFICATE`,
    );
  }
  return texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch (cause) {
      throw invalidArgument(`${origin} holds a damaged certificate: ${errorMessageOf(cause)}`, cause);
    }
  });
}

function privateKeyOf({ origin, pem }: NamedPem, passphrase: string | undefined): KeyObject {
  try {
    return createPrivateKey({ key: pem, format: "pem", ...(passphrase === undefined ? {} : { passphrase }) });
  } catch (cause) {
    if (passphrase === undefined && pem.includes("ENCRYPTED")) {
      throw invalidArgument(`${origin} is encrypted; give tls.passphrase`, cause);
    }
    const opens = passphrase === undefined ? "" : " with tls.passphrase";
    throw invalidArgument(`${origin} cannot be read as a private key${opens}: ${errorMessageOf(cause)}`, cause);
  }
}

function checkValidity(origin: string, { validFrom, validTo }: X509Certificate, now: number): void {
  if (now > Date.parse(validTo)) throw invalidArgument(`${origin} has expired on ${validTo}; renew it`);
  if (now < Date.parse(validFrom)) {
    throw invalidArgument(`${origin} is not valid before ${validFrom}; check the clock of this machine`);
  }
}
