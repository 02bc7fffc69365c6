/**
 * TCP addresses as text: `host:port`, with an IPv6 host in brackets.
 */
import { isIPv4, isIPv6 } from "node:net";
import { HawserError } from "../errors/index.js";

/** A TCP address. */
export interface Address {
  /** An IPv4 address, an IPv6 address without brackets, or a host name. */
  readonly host: string;
  /** 0 to 65535. 0 asks for a free port and is of use only for listening. */
  readonly port: number;
}

const form = /^(?:\[([^[\]]+)\]|([^:[\]\s/]+)):(\d{1,5})$/;

/**
 * Reads `127.0.0.1:4100`, `[::1]:4100` or `orders.example:4100`.
 *
 * @throws HawserError `invalid_argument` for anything else
 */
export function parseAddress(text: string): Address {
  const match = form.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535 || (match?.[1] !== undefined && !isIPv6(host))) {
    throw new HawserError(
      "invalid_argument",
      `${JSON.stringify(text)} is no address; write host:port, such as 127.0.0.1:4100 or [::1]:4100`,
    );
  }
  return { host, port };
}

/** The text that {@link parseAddress} reads as this address. */
export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * True for a host that only this machine reaches: `localhost`, 127.0.0.0/8, ::1, and 127.0.0.0/8 written as an
 * IPv4-mapped IPv6 address. False for every other host name, whatever it resolves to.
 */
export function isLoopback(host: string): boolean {
  if (isIPv4(host)) return host.startsWith("127.");
  if (isIPv6(host)) return isLoopbackIpv6(host);
  const name = host.toLowerCase();
  return name === "localhost" || name === "localhost.";
}

function isLoopbackIpv6(host: string): boolean {
  // The URL parser gives the one shortest form, also for ::ffff:127.0.0.1 and 0:0:0:0:0:0:0:1. A zone is never loopback.
  if (host.includes("%")) return false;
  const { hostname } = new URL(`http://[${host}]`);
  return hostname === "[::1]" || /^\[::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}\]$/.test(hostname);
}
