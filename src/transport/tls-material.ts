/**
 * Certificate, key and authorities as read, and whether they can be used together. Pure: PEM in, material out.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { invalid } from "./tls-options.js";

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
 * @throws TransportError `invalid_argument`: no certificate or key in the PEM, an encrypted key without its passphrase,
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
