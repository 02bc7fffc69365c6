/**
 * The messages that can be published now, and those that are under way to NATS.
 *
 * Roles take turns, and so do the routes of a role; within a route the order is that of ids. Of what may be under way each role
 * has a share, and of that each of its routes ({@link shareOf}): who is slow, or has many, delays only itself. One message
 * always fits.
 *
 * A failure costs the process far more than a message that NATS takes. So each role and route also has a **trust**: how many of
 * its messages may be under way whatever its share is. Each message that NATS takes adds one, and each failure halves it.
 */
import type { OutboxConstants } from "../../generated/ts/settings/outbox.js";
import { Fifo } from "../runtime/index.js";
import { shareOf } from "./shares.js";

/** A message that waits for its publish. */
interface WindowEntry {
  readonly message: { readonly id: bigint; readonly role: string; readonly route: string; readonly bytes: number };
}

export type WindowSettings = Pick<
  OutboxConstants,
  "maxUnderWay" | "maxUnderWayBytes" | "firstUnderWay" | "leastUnderWay"
>;

/** A role, or a route: what of it is under way, and how many messages may be as far as NATS has taken them. */
interface Load {
  underWay: number;
  bytes: number;
  trust: number;
}

interface RouteQueue<E> extends Load {
  readonly ready: Fifo<E>;
  /** Entries whose pause is over, the one with the lowest id last. */
  again: E[];
  /** True while it is in the ring of its role. */
  isInRing: boolean;
}

interface RoleQueue<E> extends Load {
  readonly routes: Map<string, RouteQueue<E>>;
  /** Routes with ready messages. A route at its limit is left out until one of its messages settles. */
  readonly ring: Fifo<RouteQueue<E>>;
  isInRing: boolean;
}

export class PublishWindow<E extends WindowEntry> {
  readonly #total: number;
  readonly #totalBytes: number;
  readonly #firstTrust: number;
  readonly #leastTrust: number;
  readonly #roles = new Map<string, RoleQueue<E>>();
  /** Roles with routes in their ring. A role at its limit is left out until one of its messages settles. */
  readonly #ring = new Fifo<RoleQueue<E>>();

  constructor({ maxUnderWay, maxUnderWayBytes, firstUnderWay, leastUnderWay }: WindowSettings) {
    // Twice shared by one.
    this.#total = maxUnderWay * 4;
    this.#totalBytes = maxUnderWayBytes * 4;
    this.#firstTrust = firstUnderWay;
    this.#leastTrust = leastUnderWay;
  }

  /** Adds a message behind those of its route. */
  push(entry: E): void {
    const { role, route } = this.#queuesOf(entry);
    route.ready.push(entry);
    this.#enter(role, route);
  }

  /** Adds messages among those of their routes, by their ids. */
  pushAgain(entries: readonly E[]): void {
    const routes = new Map<RouteQueue<E>, RoleQueue<E>>();
    for (const entry of entries) {
      const { role, route } = this.#queuesOf(entry);
      route.again.push(entry);
      routes.set(route, role);
    }
    for (const [route, role] of routes) {
      route.again.sort((one, other) => Number(other.message.id - one.message.id));
      this.#enter(role, route);
    }
  }

  /** Takes the next message, which is under way from now on; undefined: there is none, or no share has room. */
  take(): E | undefined {
    for (let left = this.#ring.length; left > 0; left--) {
      const role = this.#ring.shift()!;
      role.isInRing = false;
      const roles = this.#roles.size;
      if (!fits(role, shareOf(this.#total, roles), shareOf(this.#totalBytes, roles))) continue;
      const entry = this.#takeOf(role);
      if (role.ring.length > 0) this.#enterRole(role);
      if (entry !== undefined) return entry;
    }
    return undefined;
  }

  /**
   * A message that was taken is not under way any more.
   *
   * @param isPublished false: NATS has refused it, or its route has not answered. undefined: neither says anything of its role
   */
  settle(entry: E, isPublished?: boolean): void {
    const { role, route } = this.#queuesOf(entry);
    for (const load of [role, route]) {
      load.underWay -= 1;
      load.bytes -= entry.message.bytes;
      if (isPublished === true) load.trust = Math.min(load.trust + 1, this.#total);
      else if (isPublished === false) load.trust = Math.max(this.#leastTrust, Math.floor(load.trust / 2));
    }
    if (lengthOf(route) > 0) this.#enter(role, route);
    else if (role.ring.length > 0) this.#enterRole(role);
    this.#forget(entry.message.role, entry.message.route);
  }

  /** Removes the messages of a route that are not under way. */
  clear(roleName: string, routeName: string): void {
    const route = this.#roles.get(roleName)?.routes.get(routeName);
    if (route === undefined) return;
    route.ready.clear();
    route.again = [];
    this.#forget(roleName, routeName);
  }

  #takeOf(role: RoleQueue<E>): E | undefined {
    for (let left = role.ring.length; left > 0; left--) {
      const route = role.ring.shift()!;
      route.isInRing = false;
      if (lengthOf(route) === 0) continue;
      const [roles, routes] = [this.#roles.size, role.routes.size];
      const limit = shareOf(shareOf(this.#total, roles), routes);
      if (!fits(route, limit, shareOf(shareOf(this.#totalBytes, roles), routes))) continue;
      const entry = firstOf(route);
      for (const load of [role, route]) {
        load.underWay += 1;
        load.bytes += entry.message.bytes;
      }
      if (lengthOf(route) > 0) this.#enter(role, route);
      return entry;
    }
    return undefined;
  }

  #queuesOf({ message }: E): { role: RoleQueue<E>; route: RouteQueue<E> } {
    let role = this.#roles.get(message.role);
    if (role === undefined) {
      role = { routes: new Map(), ring: new Fifo(), isInRing: false, underWay: 0, bytes: 0, trust: this.#firstTrust };
      this.#roles.set(message.role, role);
    }
    let route = role.routes.get(message.route);
    if (route === undefined) {
      route = { ready: new Fifo(), again: [], isInRing: false, underWay: 0, bytes: 0, trust: this.#firstTrust };
      role.routes.set(message.route, route);
    }
    return { role, route };
  }

  #enter(role: RoleQueue<E>, route: RouteQueue<E>): void {
    if (!route.isInRing) role.ring.push(route);
    route.isInRing = true;
    this.#enterRole(role);
  }

  #enterRole(role: RoleQueue<E>): void {
    if (!role.isInRing) this.#ring.push(role);
    role.isInRing = true;
  }

  /** An idle role or route has no share. */
  #forget(roleName: string, routeName: string): void {
    const role = this.#roles.get(roleName);
    const route = role?.routes.get(routeName);
    if (role === undefined || route === undefined || route.underWay > 0 || lengthOf(route) > 0) return;
    role.routes.delete(routeName);
    if (role.routes.size === 0) this.#roles.delete(roleName);
  }
}

function lengthOf({ ready, again }: RouteQueue<unknown>): number {
  return ready.length + again.length;
}

function firstOf<E extends WindowEntry>({ ready, again }: RouteQueue<E>): E {
  const [first, retried] = [ready.at(0), again.at(-1)];
  const isRetried = retried !== undefined && (first === undefined || retried.message.id < first.message.id);
  return isRetried ? again.pop()! : ready.shift()!;
}

function fits({ underWay, bytes, trust }: Load, limit: number, limitBytes: number): boolean {
  return underWay === 0 || (underWay < Math.min(limit, trust) && bytes < limitBytes);
}
