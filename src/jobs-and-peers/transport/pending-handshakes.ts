/**
 * Handshakes that are not authenticated yet: counts them, and selects the one to drop for a new one.
 *
 * Attackers can open connections faster than they time out. When the limit is reached, the oldest handshake of the
 * origin with the most handshakes is dropped. A legitimate dialler needs only milliseconds and is rarely the oldest of a busy
 * origin.
 */
import { isIPv6 } from "node:net";

/** Handshakes by origin, each in the order of arrival. */
export class PendingHandshakes<T> {
  readonly #byOrigin = new Map<string, Set<T>>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** @param host IP address of the dialler; empty if unknown */
  add(handshake: T, host: string): void {
    const origin = originOf(host);
    const same = this.#byOrigin.get(origin) ?? new Set();
    this.#byOrigin.set(origin, same.add(handshake));
    this.#count += 1;
  }

  /** Removes a handshake, if present. */
  delete(handshake: T, host: string): void {
    const origin = originOf(host);
    const same = this.#byOrigin.get(origin);
    if (!same?.delete(handshake)) return;
    this.#count -= 1;
    if (same.size === 0) this.#byOrigin.delete(origin);
  }

  /** Oldest handshake of the origin with the most handshakes; undefined if there is none. */
  get oldestOfBusiestOrigin(): T | undefined {
    let most: Set<T> | undefined;
    for (const same of this.#byOrigin.values()) if (same.size > (most?.size ?? 0)) most = same;
    return most?.values().next().value;
  }

  /** Iterates over all handshakes. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const same of this.#byOrigin.values()) yield* same;
  }
}

/** Origin of an address. A machine may own a whole /64 network, so IPv6 addresses count by network. */
function originOf(host: string): string {
  if (!isIPv6(host)) return host;
  if (host.toLowerCase().startsWith("::ffff:") && host.includes(".")) return host.slice("::ffff:".length);
  const [head = "", tail] = host.split("%")[0]!.split("::");
  const groups = head === "" ? [] : head.split(":");
  const rest = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - groups.length - rest.length);
  return [...groups, ...new Array<string>(zeros).fill("0"), ...rest].slice(0, 4).join(":").toLowerCase();
}
