/**
 * The option `tls`: from what the user gave to credentials that follow their files.
 */

import { PeerError } from "../errors/index.js";
import type { Logger } from "../runtime/index.js";
import { TlsCredentials, type TlsOptions } from "../transport/index.js";
import { asHawserError } from "./as-hawser-error.js";
import { checkKnownOptions } from "./known-options.js";
import type { StatusEmitter } from "./status.js";

/** Reads and checks certificate, key and authorities. @throws PeerError `invalid_argument` saying which, and why */
export function checkTls(tls: TlsOptions | undefined, allowPlaintext: boolean): TlsCredentials | undefined {
  if (tls === undefined) return undefined;
  if (typeof tls === "object") checkKnownOptions(tls, "tls");
  if (allowPlaintext) {
    throw new PeerError(
      "invalid_argument",
      "allowPlaintext true together with tls: a peer with tls speaks nothing else; leave one of the two out",
    );
  }
  try {
    return new TlsCredentials(tls);
  } catch (error) {
    const { code, message } = asHawserError(error);
    throw new PeerError(code, message, { cause: error });
  }
}

/** Tells of certificates that were read anew. @returns what ends it */
export function tellOfReloads(credentials: TlsCredentials, status: StatusEmitter, logger: Logger): () => void {
  return credentials.subscribe({
    onReloaded: ({ validUntil }) => {
      logger.info({ validUntil: new Date(validUntil) }, "read the certificate, key and authorities of TLS again");
    },
    onReloadFailed: (error) => {
      const message = `the files of TLS cannot be used; what was read before stays in use: ${error.message}`;
      logger.warn({ err: error }, message);
      status.tell({ kind: "tls_reload_failed", message, error });
    },
  });
}
