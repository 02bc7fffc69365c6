/** TCP addresses as text: `host:port`, with an IPv6 host in brackets. */
import { isIPv4, isIPv6 } from "node:net";
import { HawserError } from "../../foundation/errors/index.js";

/** TCP address. */
export interface Address {
  /** IPv4 address, IPv6 address without brackets, or host name. */
  readonly host: string;
  /** Port from 0 to 65535. When listening, 0 requests a free port. */
  readonly port: number;
}

const form = /^(?:\[([^[\]]+)\]|([^:[\]\s/]+)):(\d{1,5})$/;

/**
 * Parses `127.0.0.1:4100`, `[::1]:4100` or `orders.example:4100`.
 *
 * @throws HawserError `invalid_argument` for any other text
 */
export function parseAddress(text: string): Address {
  const match = form.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535 || (match?.[1] !== undefined && !isIPv6(host))) {
    throw new HawserError(
      "invalid_argument",
      `${JSON.stringify(text)} is not an address; write host:port, such as 127.0.0.1:4100 or [::1]:4100`,
    );
  }
  return { host, port };
}

/** Formats an address in the form that {@link parseAddress} reads. */
export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Returns true for a host that only this machine can reach: `localhost`, 127.0.0.0/8, ::1, and 127.0.0.0/8 as
 * IPv4-mapped IPv6 addresses. Returns false for other host names, even if they resolve to such an address.
 */
export function isLoopback(host: string): boolean {
  if (isIPv4(host)) return host.startsWith("127.");
  if (isIPv6(host)) return isLoopbackIpv6(host);
  const name = host.toLowerCase();
  return name === "localhost" || name === "localhost.";
}

function isLoopbackIpv6(host: string): boolean {
  // The URL parser normalises the address, also ::ffff:127.0.0.1 and 0:0:0:0:0:0:0:1. An address with a zone is never
  // loopback.
  if (host.includes("%")) return false;
  const { hostname } = new URL(`http://[${host}]`);
  return hostname === "[::1]" || /^\[::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}\]$/.test(hostname);
}
