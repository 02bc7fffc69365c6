/**
 * Handshakes under way whose dialler has not proved anything yet: how many there are, and which one gives way.
 *
 * Strangers can open connections faster than they time out. The origin with most of them loses its oldest to a newcomer: an
 * honest dialler needs milliseconds, and is rarely the oldest of an address that has many.
 */
import { isIPv6 } from "node:net";

/** Handshakes by where they come from, each in the order of its coming. */
export class PendingHandshakes<T> {
  readonly #byOrigin = new Map<string, Set<T>>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** @param host the dialler's IP address; empty if unknown */
  add(one: T, host: string): void {
    const origin = originOf(host);
    const same = this.#byOrigin.get(origin) ?? new Set();
    this.#byOrigin.set(origin, same.add(one));
    this.#count += 1;
  }

  /** Does nothing if it is not there (any more). */
  delete(one: T, host: string): void {
    const origin = originOf(host);
    const same = this.#byOrigin.get(origin);
    if (!same?.delete(one)) return;
    this.#count -= 1;
    if (same.size === 0) this.#byOrigin.delete(origin);
  }

  /** The oldest of the origin that has most; undefined if there is none. */
  get expendable(): T | undefined {
    let most: Set<T> | undefined;
    for (const same of this.#byOrigin.values()) if (same.size > (most?.size ?? 0)) most = same;
    return most?.values().next().value;
  }

  /** All, to be ended. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const same of this.#byOrigin.values()) yield* same;
  }
}

/** One machine may have a whole IPv6 network of 64 bits: that counts as one. */
function originOf(host: string): string {
  if (!isIPv6(host)) return host;
  if (host.toLowerCase().startsWith("::ffff:") && host.includes(".")) return host.slice("::ffff:".length);
  const [head = "", tail] = host.split("%")[0]!.split("::");
  const groups = head === "" ? [] : head.split(":");
  const rest = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - groups.length - rest.length);
  return [...groups, ...new Array<string>(zeros).fill("0"), ...rest].slice(0, 4).join(":").toLowerCase();
}
