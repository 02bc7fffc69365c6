/** Errors of failed connections with their remedies, and their exchange between peers. */
import { limits } from "../../../generated/ts/rules/peer/frames.js";
import { errorOfWireCode, errorTable, HawserError, shortened } from "../../foundation/errors/index.js";
import type { Refuse } from "../wire/index.js";

/** Converts an error to a Refuse: its code, and its message within the limit. The cause is left out. */
export function refuseOf(error: HawserError): Refuse {
  const message = shortened(error.message.replaceAll("\0", ""), limits.Refuse.message.maxBytes);
  return { code: errorTable[error.code].wireCode, message };
}

/** Converts a Refuse to an error. An unknown code of a newer version becomes `connection_lost` with the message. */
export function errorOfRefuse({ code, message }: Refuse): HawserError {
  const known = errorOfWireCode(code)?.code;
  if (known !== undefined) return new HawserError(known, `the other side refused: ${message}`);
  return new HawserError("connection_lost", `the other side refused with the unknown code ${code}: ${message}`);
}

/** Error for an address that is not loopback. */
export function plaintextRefused(address: string): HawserError {
  return new HawserError(
    "plaintext_refused",
    `${address} is not a loopback address, and the connection would not be encrypted; ` +
      "set tls, use a loopback address, or set allowPlaintext where the network is trusted",
  );
}

/** Error for a connection that closed without a Refuse. @param cause error of the socket, if any */
export function connectionEnded(cause: Error | undefined): HawserError {
  if (isTlsError(cause)) return new HawserError("tls_failed", `TLS failed: ${reasonOf(cause)}`, { cause });
  const why = cause === undefined ? "the other side closed it" : describe(cause);
  return new HawserError("connection_lost", `the connection ended: ${why}`, cause && { cause });
}

/**
 * Describes a socket error. An AggregateError, with one error per address of a host name, has no message of its own.
 */
function describe(error: Error): string {
  return error instanceof AggregateError ? error.errors.map((one) => String(one.message)).join(", ") : error.message;
}

/** Descriptions of certificate errors, by OpenSSL error name. */
const faultsOfCertificates: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "has expired; renew it",
  CERT_NOT_YET_VALID: "is not valid yet; check the clocks of both machines",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed, and not trusted; tls.ca must hold it",
  SELF_SIGNED_CERT_IN_CHAIN: "comes from an authority that is not trusted; tls.ca must hold it",
  UNABLE_TO_GET_ISSUER_CERT: "comes from an authority that is not trusted; tls.ca must hold it",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "comes from an authority that is not trusted; tls.ca must hold it",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "comes from an authority that is not trusted; tls.ca must hold it, and tls.cert the intermediate certificates",
  CERT_SIGNATURE_FAILURE: "was not signed by the authority of that name in tls.ca",
  INVALID_PURPOSE:
    "is not valid for this side of a connection; its extended key usage must include serverAuth and clientAuth",
};

/** OpenSSL error names for an answer that is not TLS. */
const noTls = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_HTTP_REQUEST", "ERR_SSL_PACKET_LENGTH_TOO_LONG"]);

/** Describes a certificate error, to follow "its certificate". @param code OpenSSL error name */
export function certificateFault(code: string): string {
  return faultsOfCertificates[code] ?? `was refused: ${code}`;
}

/** Returns true if a socket error comes from TLS. */
function isTlsError(error: unknown): error is Error & { readonly code: string } {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" && (code.startsWith("ERR_SSL_") || code.startsWith("ERR_TLS_"));
}

/** Error for a failed TLS handshake of a dialler. @param cause error of the socket; undefined if it closed */
export function dialTlsFailure(address: string, cause: Error | undefined): HawserError {
  const code = (cause as { readonly code?: string } | undefined)?.code ?? "";
  const options = cause === undefined ? {} : { cause };
  if (noTls.has(code)) {
    const message = `${address} does not use TLS; set the option tls for that peer too, or for no peer of the mesh`;
    return new HawserError("tls_mismatch", message, options);
  }
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    const { reason = "" } = cause as { readonly reason?: string };
    const remedy =
      'give that peer a certificate with this name or address, publish another address (advertise), or set tls.serverName, or tls.verify: "ca"';
    return new HawserError("tls_failed", `the certificate of ${address} is for another host: ${reason}; ${remedy}`, {
      cause,
    });
  }
  if (code in faultsOfCertificates) {
    return new HawserError("tls_failed", `the certificate of ${address} ${certificateFault(code)}`, options);
  }
  if (isTlsError(cause)) {
    return new HawserError("tls_failed", `TLS with ${address} failed: ${reasonOf(cause)}`, options);
  }
  const why = cause === undefined ? "the other side closed it" : cause.message;
  return new HawserError("connection_lost", `the connection ended before TLS was established: ${why}`, options);
}

/** Error for a failed TLS handshake of a listener. */
export function acceptTlsFailure(cause: Error | undefined): HawserError {
  if (isTlsError(cause)) return new HawserError("tls_failed", `TLS failed: ${reasonOf(cause)}`, { cause });
  return new HawserError(
    "connection_lost",
    "the dialler ended the connection before TLS was established; perhaps it does not accept this peer's certificate",
    cause === undefined ? {} : { cause },
  );
}

/** Extracts the reason from an OpenSSL message: "80FC…:error:0A000102:SSL routines:function:unsupported protocol:…". */
function reasonOf(error: Error): string {
  return /error:[0-9A-F]+:[^:]*:[^:]*:([^:]+)/.exec(error.message)?.[1] ?? error.message.trim();
}
