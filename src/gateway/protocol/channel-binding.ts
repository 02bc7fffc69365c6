/**
 * `tls-server-end-point` (RFC 5929): the client proves which certificate it was shown, as a hash of it. Who ends TLS with
 * another certificate in between cannot pass a login on.
 */
import { createHash, timingSafeEqual } from "node:crypto";

/** The one kind of binding, as it stands in the client's first message. */
export const bindingFlag = "p=tls-server-end-point";

/** By the length of the hash. MD5 and SHA-1 count as SHA-256. */
const algorithms: Readonly<Record<number, string>> = { 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512" };

/**
 * Whether it is the hash of the certificate. The algorithm that the certificate was signed with decides which one is
 * sent; any of those that are safe proves the same, so this looks at nothing but the length.
 *
 * @param certificate DER
 */
export function isHashOf(certificate: Uint8Array, hash: Uint8Array): boolean {
  const algorithm = algorithms[hash.length];
  return algorithm !== undefined && timingSafeEqual(createHash(algorithm).update(certificate).digest(), hash);
}

/** How certificates end that were signed with Ed25519 and Ed448, up to the signature: its algorithm, its length. */
const hashless = [
  { end: Buffer.from("300506032b6570034100", "hex"), signatureBytes: 64 },
  { end: Buffer.from("300506032b6571037300", "hex"), signatureBytes: 114 },
];

/**
 * Whether libpq can bind a connection to the certificate: not where its authority signs with Ed25519 or Ed448, which
 * name no hash.
 *
 * @param certificate DER
 */
export function isBindable(certificate: Uint8Array): boolean {
  return !hashless.some(({ end, signatureBytes }) => {
    const at = certificate.length - signatureBytes - end.length;
    return at >= 0 && end.equals(certificate.subarray(at, at + end.length));
  });
}
