/**
 * Where plaintext may go. The handshake authenticates, but only TLS protects what follows it: so without TLS only
 * loopback is dialled and accepted, unless the network is said to be trusted.
 */
import { lookup as resolve } from "node:dns";
import type { LookupFunction } from "node:net";
import { TransportError } from "../errors/index.js";
import { isLoopback } from "../wire/index.js";

/** The error for an address that is not loopback. */
export function plaintextRefused(address: string): TransportError {
  return new TransportError(
    "plaintext_refused",
    `${address} is not a loopback address, and the connection would not be encrypted; ` +
      "set tls, use a loopback address, or set allowPlaintext where the network is trusted",
  );
}

/**
 * Resolves host names for `net`, and refuses those that lead elsewhere than to this machine: before anything is dialled
 * or bound.
 */
export const lookupLoopback: LookupFunction = (hostname, options, callback) => {
  resolve(hostname, options, (error, address, family) => {
    const found = typeof address === "string" ? [address] : (address ?? []).map((entry) => entry.address);
    if (error === null && !found.every(isLoopback)) {
      callback(plaintextRefused(`${hostname} (${found.join(", ")})`), address, family);
    } else {
      callback(error, address, family);
    }
  });
};
