/**
 * Errors of connecting to the NATS server: their texts say what failed and what to do, and never contain a secret.
 */
import { isIPv6 } from "node:net";
import { errors } from "@nats-io/transport-node";
import { HawserError, type HawserErrorOptions } from "../../foundation/errors/index.js";
import type { Credentials } from "./credentials.js";

/** Host and port of a server, as error messages name it. */
export type ServerName = string & { readonly isServerName: true };

/** @param host name or address, without brackets */
export function serverName({ host, port }: { readonly host: string; readonly port: number }): ServerName {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}` as ServerName;
}

/** Error when there is no connection to the server. @param detail reason, as a sentence without its full stop */
export function unavailable(server: ServerName, detail: string, options: HawserErrorOptions = {}): HawserError {
  const message = `there is no connection to the NATS server ${server}: ${detail}`;
  return new HawserError("nats_unavailable", message, { ...options, detail: sentence(detail) });
}

/** Error when no server accepted the connection. A refused authorization takes precedence over unavailable servers. */
export function noServer(servers: readonly ServerName[], failures: readonly HawserError[]): HawserError {
  const main = failures.find(({ code }) => code === "nats_unauthorized") ?? failures[0]!;
  if (failures.length === 1) return main;
  const each = failures.map(({ detail = "" }, index) => `${servers[index]}: ${detail}`).join(" ");
  const message = `${main.message} (none of ${servers.length} NATS servers accepted the connection: ${servers.join(", ")})`;
  return new HawserError(main.code, message, { detail: each, remedy: main.remedy, cause: main });
}

/** Error when one side does not accept the other. @param detail which side and why */
function unauthorized(server: ServerName, detail: string, options: HawserErrorOptions = {}): HawserError {
  const message = `not authorized at the NATS server ${server}: ${detail}`;
  return new HawserError("nats_unauthorized", message, { ...options, detail: sentence(detail) });
}

/** Error when the server requires TLS, which is off. */
export function tlsRequired(server: ServerName): HawserError {
  return unavailable(server, "the server requires TLS, which is off", {
    remedy: "Set tls_ca_path to the file with the server's authorities (or, for development, tls_insecure 'true').",
  });
}

/**
 * Error when TLS is on, and the server does not offer it. The server is not authenticated, and no credentials were
 * sent.
 */
export function tlsMissing(server: ServerName): HawserError {
  return unavailable(server, "the server does not offer TLS, which is on; no credentials were sent", {
    remedy: "Set up TLS on the server, or remove tls_ca_path and tls_insecure, which turn it on.",
  });
}

/** Faults of the server's certificate, by OpenSSL's error code. */
const certificateFaults: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "has expired",
  CERT_NOT_YET_VALID: "is not valid yet; check the clocks of both machines",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed, and not in tls_ca_path",
  SELF_SIGNED_CERT_IN_CHAIN: "is issued by an authority that is not in tls_ca_path",
  UNABLE_TO_GET_ISSUER_CERT: "is issued by an authority that is not in tls_ca_path",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "is issued by an authority that is not in tls_ca_path",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "is issued by an authority that is not in tls_ca_path",
  CERT_SIGNATURE_FAILURE: "was not signed by the authority of that name in tls_ca_path",
  INVALID_PURPOSE: "is not made for servers (its extended key usage lacks serverAuth)",
};

/** Reasons for which a server refuses the client certificate: TLS alerts, by the end of OpenSSL's error codes. */
const clientCertificateAlerts: Readonly<Record<string, string>> = {
  UNKNOWN_CA: "the server does not trust its authority",
  BAD_CERTIFICATE: "the server considers it invalid",
  CERTIFICATE_EXPIRED: "it has expired",
  CERTIFICATE_REVOKED: "it has been revoked",
  CERTIFICATE_UNKNOWN: "the server does not accept it",
  UNSUPPORTED_CERTIFICATE: "the server does not support certificates of this type",
  CERTIFICATE_REQUIRED: "the server requires one",
};

/** Facts about client certificates, for the error of a TLS failure. */
interface TlsFacts {
  /** True if the options name a client certificate. */
  readonly hasCertificate: boolean;
  /** True if the server's INFO requires a client certificate. */
  readonly requiresCertificate: boolean;
}

/**
 * Error of a TLS connection that was not established, or ended before the server answered CONNECT: in TLS 1.3, the
 * server may refuse the client certificate after the handshake.
 *
 * @param cause error of the socket; undefined if the server closed it
 */
export function tlsFailure(server: ServerName, facts: TlsFacts, cause: Error | undefined): HawserError {
  const { code = "", reason } = (cause ?? {}) as { readonly code?: string; readonly reason?: string };
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    // The cause is omitted, because it contains the certificate.
    return unauthorized(server, `the server's certificate is for another host: ${reason ?? "it names none"}`);
  }
  const fault = certificateFaults[code];
  if (fault !== undefined) return unauthorized(server, `the server's certificate ${fault}`, { cause });
  const alert = /_ALERT_(.+)$/.exec(code)?.[1];
  if (alert !== undefined && alert in clientCertificateAlerts)
    return clientCertificateRefused(server, facts, clientCertificateAlerts[alert]!, cause);
  if (code.startsWith("ERR_SSL_")) return unavailable(server, `TLS failed: ${opensslText(cause!)}`, { cause });
  // A server may close the connection so soon after refusing the certificate that its alert is lost.
  if (facts.requiresCertificate)
    return clientCertificateRefused(server, facts, "the server closed the connection instead of accepting it", cause);
  return unavailable(server, `the connection ended before TLS was established: ${closeReason(cause)}`, { cause });
}

function clientCertificateRefused(
  server: ServerName,
  facts: TlsFacts,
  why: string,
  cause: Error | undefined,
): HawserError {
  if (facts.hasCertificate)
    return unauthorized(server, `our certificate (tls_cert_path) was refused: ${why}`, { cause });
  return unauthorized(server, "the server requires a client certificate (mutual TLS), and the options have none", {
    cause,
    remedy: "Set tls_cert_path and tls_key_path.",
  });
}

/** Error of a socket that could not be connected, or has closed. @param cause undefined if the server closed it */
export function socketFailure(server: ServerName, cause: Error | undefined): HawserError {
  return unavailable(server, closeReason(cause), { cause });
}

/** Text for a socket that closed. @param cause undefined if the server closed it */
function closeReason(cause: Error | undefined): string {
  if (cause === undefined) return "the server closed the connection";
  const { code, errors: each } = cause as NodeJS.ErrnoException & { readonly errors?: NodeJS.ErrnoException[] };
  // An AggregateError has one error per address of the host name.
  const codes = new Set([code, ...(each ?? []).map((error) => error.code)].filter((one) => one !== undefined));
  const list = [...codes].join(", ");
  if (codes.has("ECONNREFUSED")) return `nothing listens there (${list})`;
  if (codes.has("ENOTFOUND") || codes.has("EAI_AGAIN")) return `the host name cannot be resolved (${list})`;
  if (codes.has("ECONNRESET") || codes.has("EPIPE")) return `the server reset the connection (${list})`;
  return list === "" ? cause.message : `the network failed (${list})`;
}

/**
 * Error of Hawser for an -ERR message of the server. The error of nats.js is not attached as its cause, because a
 * hostile server may have put our secret into the text.
 *
 * @param error error of nats.js, or of Hawser, which is returned unchanged
 * @returns undefined if `error` does not come from an -ERR message
 */
export function serverRefusal(server: ServerName, credentials: Credentials, error: unknown): HawserError | undefined {
  if (error instanceof HawserError) return error;
  if (!(error instanceof Error)) return undefined;
  const words = singleLine(credentials.conceal(error.message));
  const refused = /authorization violation|authentication (expired|revoked)|credentials? (expired|revoked)/i.test(
    words,
  );
  if (refused) {
    const { why, remedy } = credentials.fault?.() ?? {};
    const which = why === undefined ? credentials.description : `${credentials.description} (${why})`;
    return unauthorized(server, `the server refused ${which}: "${words}"`, { remedy });
  }
  if (/secure connection|tls required/i.test(error.message)) return tlsRequired(server);
  if (error instanceof errors.AuthorizationError || error instanceof errors.ProtocolError) {
    return unavailable(server, `the server reports: "${words}"`);
  }
  return undefined;
}

const maxShownCharacters = 200;

/** Converts a text of the server to one line of limited length, in printable ASCII. */
export function singleLine(words: string): string {
  const line = words.replace(/[^\x20-\x7e]+/g, " ").trim();
  return line.length > maxShownCharacters ? `${line.slice(0, maxShownCharacters)}…` : line;
}

/** Text of an OpenSSL error without its numbers and source files. */
function opensslText(error: Error): string {
  const { reason } = error as { readonly reason?: string };
  return reason ?? singleLine(error.message);
}

function sentence(detail: string): string {
  return `${detail[0]!.toUpperCase()}${detail.slice(1)}.`;
}
