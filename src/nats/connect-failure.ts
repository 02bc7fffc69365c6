/**
 * Why there is no connection to the NATS server, in words that say what to do. No secret is ever part of them.
 */
import { isIPv6 } from "node:net";
import { errors } from "@nats-io/transport-node";
import { HawserError, type HawserErrorOptions } from "../errors/index.js";
import type { Credentials } from "./credentials.js";

/** The server, as messages name it: host and port. */
export type ServerName = string & { readonly isServerName: true };

/** @param host name or address, without brackets */
export function serverName({ host, port }: { readonly host: string; readonly port: number }): ServerName {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}` as ServerName;
}

/** There is no connection. @param detail why, as a sentence without its full stop */
export function unavailable(server: ServerName, detail: string, options: HawserErrorOptions = {}): HawserError {
  const message = `there is no connection to the NATS server ${server}: ${detail}`;
  return new HawserError("nats_unavailable", message, { ...options, detail: sentence(detail) });
}

/** None of the servers that were tried took the connection. One that refuses us counts for more than one that is away. */
export function noServer(servers: readonly ServerName[], failures: readonly HawserError[]): HawserError {
  const told = failures.find(({ code }) => code === "nats_unauthorized") ?? failures[0]!;
  if (failures.length === 1) return told;
  const each = failures.map(({ detail = "" }, index) => `${servers[index]}: ${detail}`).join(" ");
  const message = `${told.message} (none of ${servers.length} NATS servers took the connection: ${servers.join(", ")})`;
  return new HawserError(told.code, message, { detail: each, remedy: told.remedy, cause: told });
}

/** One side does not accept the other. @param detail which one and why */
function unauthorized(server: ServerName, detail: string, options: HawserErrorOptions = {}): HawserError {
  const message = `not authorized at the NATS server ${server}: ${detail}`;
  return new HawserError("nats_unauthorized", message, { ...options, detail: sentence(detail) });
}

/** TLS is off, and the server demands it. */
export function tlsDemanded(server: ServerName): HawserError {
  return unavailable(server, "the server demands TLS, which is off", {
    remedy: "Set tls_ca_path to the file with the server's authorities (or, for development, tls_insecure 'true').",
  });
}

/** TLS is on, and the server has none. Nothing but this is known of it: no credentials were sent. */
export function tlsMissing(server: ServerName): HawserError {
  return unavailable(server, "the server does not offer TLS, which is on; no credentials were sent", {
    remedy: "Set up TLS on the server, or drop tls_ca_path and tls_insecure, which turn it on.",
  });
}

/** What went wrong with the server's certificate, by OpenSSL's name for it. */
const faultsOfCertificates: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "has expired",
  CERT_NOT_YET_VALID: "is not valid yet; check the clocks of both machines",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed, and tls_ca_path does not hold it",
  SELF_SIGNED_CERT_IN_CHAIN: "comes from an authority that tls_ca_path does not hold",
  UNABLE_TO_GET_ISSUER_CERT: "comes from an authority that tls_ca_path does not hold",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "comes from an authority that tls_ca_path does not hold",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "comes from an authority that tls_ca_path does not hold",
  CERT_SIGNATURE_FAILURE: "was not signed by the authority of that name in tls_ca_path",
  INVALID_PURPOSE: "is not made for servers (its extended key usage lacks serverAuth)",
};

/** What the server says of our certificate: the alerts of TLS, by the end of OpenSSL's names for them. */
const faultsOfOurs: Readonly<Record<string, string>> = {
  UNKNOWN_CA: "the server does not know its authority",
  BAD_CERTIFICATE: "the server finds it bad",
  CERTIFICATE_EXPIRED: "it has expired",
  CERTIFICATE_REVOKED: "it has been revoked",
  CERTIFICATE_UNKNOWN: "the server does not accept it",
  UNSUPPORTED_CERTIFICATE: "the server does not accept certificates of its kind",
  CERTIFICATE_REQUIRED: "the server demands one",
};

/** What is known of the TLS that failed. */
interface TlsFacts {
  /** Whether we had a certificate to show. */
  readonly hasCertificate: boolean;
  /** Whether the server said in its greeting that it demands one. */
  readonly demandsCertificate: boolean;
}

/**
 * TLS that was not established, or ended before the server had answered our greeting, which is when TLS 1.3 lets the
 * server refuse a certificate.
 *
 * @param cause of the socket; undefined if the server just closed
 */
export function tlsFailure(server: ServerName, facts: TlsFacts, cause: Error | undefined): HawserError {
  const { code = "", reason } = (cause ?? {}) as { readonly code?: string; readonly reason?: string };
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    // Without its cause, which is full of the certificate.
    return unauthorized(server, `the server's certificate is for another host: ${reason ?? "it names none"}`);
  }
  const fault = faultsOfCertificates[code];
  if (fault !== undefined) return unauthorized(server, `the server's certificate ${fault}`, { cause });
  const alert = /_ALERT_(.+)$/.exec(code)?.[1];
  if (alert !== undefined && alert in faultsOfOurs) return oursRefused(server, facts, faultsOfOurs[alert]!, cause);
  if (code.startsWith("ERR_SSL_")) return unavailable(server, `TLS failed: ${wordsOf(cause!)}`, { cause });
  // Having refused the certificate, a server may close so fast that its alert is lost.
  if (facts.demandsCertificate) return oursRefused(server, facts, "the server closed when it was to accept it", cause);
  return unavailable(server, `the connection ended before TLS was established: ${closing(cause)}`, { cause });
}

function oursRefused(server: ServerName, facts: TlsFacts, why: string, cause: Error | undefined): HawserError {
  const options = cause === undefined ? {} : { cause };
  if (facts.hasCertificate)
    return unauthorized(server, `our certificate of tls_cert_path was refused: ${why}`, options);
  return unauthorized(server, "the server demands a client certificate (mutual TLS), and the options have none", {
    ...options,
    remedy: "Set tls_cert_path and tls_key_path.",
  });
}

/** A socket that could not be connected, or that ended before the server had greeted. */
export function socketFailure(server: ServerName, cause: Error | undefined): HawserError {
  return unavailable(server, closing(cause), cause === undefined ? {} : { cause });
}

/** The words for a socket that ended. @param cause undefined if the other side just closed it */
export function closing(cause: Error | undefined): string {
  if (cause === undefined) return "the server closed the connection";
  const { code, errors: each } = cause as NodeJS.ErrnoException & { readonly errors?: NodeJS.ErrnoException[] };
  // One for each address of the name that was tried.
  const codes = new Set([code, ...(each ?? []).map((error) => error.code)].filter((one) => one !== undefined));
  const list = [...codes].join(", ");
  if (codes.has("ECONNREFUSED")) return `nothing listens there (${list})`;
  if (codes.has("ENOTFOUND") || codes.has("EAI_AGAIN")) return `the host name cannot be resolved (${list})`;
  if (codes.has("ECONNRESET") || codes.has("EPIPE")) return `the server cut the connection (${list})`;
  return list === "" ? cause.message : `the network failed (${list})`;
}

/**
 * What the server said when it was greeted, or later, as an error of Hawser. nats.js's own error is no cause of it: a
 * hostile server may have put our secret into its words.
 *
 * @param error of nats.js; undefined if the server said nothing
 */
export function refusal(server: ServerName, credentials: Credentials, error: unknown): HawserError | undefined {
  if (error instanceof HawserError) return error;
  if (!(error instanceof Error)) return undefined;
  const words = shown(credentials.conceal(error.message));
  const refused = /authorization violation|authentication (expired|revoked)|credentials? (expired|revoked)/i.test(
    words,
  );
  if (refused) {
    const { why, remedy } = credentials.fault?.() ?? {};
    const which = why === undefined ? credentials.words : `${credentials.words} (${why})`;
    return unauthorized(server, `the server refused ${which}: "${words}"`, { remedy });
  }
  if (/secure connection|tls required/i.test(error.message)) return tlsDemanded(server);
  if (error instanceof errors.AuthorizationError || error instanceof errors.ProtocolError) {
    return unavailable(server, `the server said: "${words}"`);
  }
  return undefined;
}

const maxShownCharacters = 200;

/** The server's words on one line, and not too many of them. */
export function shown(words: string): string {
  const line = words.replace(/[^\x20-\x7e]+/g, " ").trim();
  return line.length > maxShownCharacters ? `${line.slice(0, maxShownCharacters)}…` : line;
}

/** An error of OpenSSL without its numbers and files. */
function wordsOf(error: Error): string {
  const { reason } = error as { readonly reason?: string };
  return reason ?? shown(error.message);
}

function sentence(detail: string): string {
  return `${detail[0]!.toUpperCase()}${detail.slice(1)}.`;
}
