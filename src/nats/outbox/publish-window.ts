/**
 * Messages that can be published now, and messages in flight to NATS.
 *
 * Roles alternate, and so do the routes of a role; within a route, messages are in the order of ids. Each role has a
 * share of the in-flight limit, and each of its routes has a share of the share of the role ({@link shareOf}), so that
 * a slow or busy role or route delays only itself. A single message always fits.
 *
 * A failure costs the process far more than an accepted message. So each role and route also has a **trust**: the
 * number of its messages that may be in flight, even if its share is larger. Each accepted message adds one to the
 * trust, each failure halves it.
 */
import { Fifo, RoundRobin, shareOf } from "../../foundation/runtime/index.js";

/** Message that waits to be published. */
interface WindowEntry {
  readonly message: { readonly id: bigint; readonly role: string; readonly route: string; readonly bytes: number };
}

/** Settings of {@link PublishWindow} by default. */
export const windowDefaults = {
  /**
   * Maximum number of messages in flight to NATS of one destination of one role if these are the only ones; with k
   * roles, each has four times that divided by k + 1, and likewise the destinations of a role.
   */
  maxUnderWay: 5_000,
  /** Maximum memory of these messages; a single message always fits. */
  maxUnderWayBytes: 16 * 1024 * 1024,
  /**
   * Initial maximum of messages in flight of a role and of a route. Each accepted message adds one, each failure halves
   * it.
   */
  firstUnderWay: 512,
  /** Minimum of that maximum, after any number of failures. */
  leastUnderWay: 4,
};

export type WindowSettings = Readonly<typeof windowDefaults>;

/** Load of a role or route: its messages and bytes in flight, and its trust. */
interface Load {
  inFlight: number;
  bytes: number;
  trust: number;
}

interface RouteQueue<E> extends Load {
  readonly ready: Fifo<E>;
  /** Entries whose pause has ended, the lowest id last. */
  retries: E[];
}

interface RoleQueue<E> extends Load {
  readonly routes: Map<string, RouteQueue<E>>;
  /**
   * Routes that may have a message to publish. A route that has none, or is at its limit, leaves at its turn, until it
   * gets one or one of its messages completes.
   */
  readonly turns: RoundRobin<RouteQueue<E>>;
}

export class PublishWindow<E extends WindowEntry> {
  readonly #total: number;
  readonly #totalBytes: number;
  readonly #firstTrust: number;
  readonly #leastTrust: number;
  readonly #roles = new Map<string, RoleQueue<E>>();
  /** Roles that may have a message to publish. They leave as routes do. */
  readonly #turns = new RoundRobin<RoleQueue<E>>();

  constructor({ maxUnderWay, maxUnderWayBytes, firstUnderWay, leastUnderWay }: WindowSettings) {
    // With one role and one route, `shareOf` halves the total twice: once for the role, once for the route.
    this.#total = maxUnderWay * 4;
    this.#totalBytes = maxUnderWayBytes * 4;
    this.#firstTrust = firstUnderWay;
    this.#leastTrust = leastUnderWay;
  }

  /** Appends a message to its route. */
  push(entry: E): void {
    const { role, route } = this.#queuesOf(entry);
    route.ready.push(entry);
    this.#enter(role, route);
  }

  /** Inserts messages into their routes, in the order of ids. */
  pushRetries(entries: readonly E[]): void {
    const routes = new Map<RouteQueue<E>, RoleQueue<E>>();
    for (const entry of entries) {
      const { role, route } = this.#queuesOf(entry);
      route.retries.push(entry);
      routes.set(route, role);
    }
    for (const [route, role] of routes) {
      route.retries.sort((one, other) => Number(other.message.id - one.message.id));
      this.#enter(role, route);
    }
  }

  /** Takes the next message, which is in flight from now on; undefined if there is none or all shares are used up. */
  take(): E | undefined {
    const limit = shareOf(this.#total, this.#roles.size);
    const limitBytes = shareOf(this.#totalBytes, this.#roles.size);
    return this.#turns.next((role) => {
      const entry = fits(role, limit, limitBytes) ? takeOf(role, limit, limitBytes) : undefined;
      if (entry === undefined) this.#turns.delete(role);
      return entry;
    });
  }

  /**
   * Records that a message is no longer in flight.
   *
   * @param isPublished false if NATS refused it or its route did not answer; undefined if the result says nothing about
   * its role
   */
  complete(entry: E, isPublished?: boolean): void {
    const { role, route } = this.#queuesOf(entry);
    for (const load of [role, route]) {
      load.inFlight -= 1;
      load.bytes -= entry.message.bytes;
      if (isPublished === true) load.trust = Math.min(load.trust + 1, this.#total);
      else if (isPublished === false) load.trust = Math.max(this.#leastTrust, Math.floor(load.trust / 2));
    }
    this.#enter(role, route);
    this.#removeIdle(entry.message.role, entry.message.route);
  }

  /** Removes the messages of a route that are not in flight. */
  clear(roleName: string, routeName: string): void {
    const route = this.#roles.get(roleName)?.routes.get(routeName);
    if (route === undefined) return;
    route.ready.clear();
    route.retries = [];
    this.#removeIdle(roleName, routeName);
  }

  #queuesOf({ message }: E): { role: RoleQueue<E>; route: RouteQueue<E> } {
    let role = this.#roles.get(message.role);
    if (role === undefined) {
      role = { routes: new Map(), turns: new RoundRobin(), inFlight: 0, bytes: 0, trust: this.#firstTrust };
      this.#roles.set(message.role, role);
    }
    let route = role.routes.get(message.route);
    if (route === undefined) {
      route = { ready: new Fifo(), retries: [], inFlight: 0, bytes: 0, trust: this.#firstTrust };
      role.routes.set(message.route, route);
    }
    return { role, route };
  }

  #enter(role: RoleQueue<E>, route: RouteQueue<E>): void {
    role.turns.add(route);
    this.#turns.add(role);
  }

  /** Removes an idle role or route, so that it has no share. */
  #removeIdle(roleName: string, routeName: string): void {
    const role = this.#roles.get(roleName);
    const route = role?.routes.get(routeName);
    if (role === undefined || route === undefined || route.inFlight > 0 || lengthOf(route) > 0) return;
    role.routes.delete(routeName);
    if (role.routes.size === 0) this.#roles.delete(roleName);
  }
}

/** Takes the next message of a role, which is in flight from now on. The limits are those of the role. */
function takeOf<E extends WindowEntry>(role: RoleQueue<E>, limit: number, limitBytes: number): E | undefined {
  const limitOfRoute = shareOf(limit, role.routes.size);
  const limitBytesOfRoute = shareOf(limitBytes, role.routes.size);
  return role.turns.next((route) => {
    if (lengthOf(route) === 0 || !fits(route, limitOfRoute, limitBytesOfRoute)) {
      role.turns.delete(route);
      return undefined;
    }
    const entry = firstOf(route);
    for (const load of [role, route]) {
      load.inFlight += 1;
      load.bytes += entry.message.bytes;
    }
    return entry;
  });
}

function lengthOf({ ready, retries }: RouteQueue<unknown>): number {
  return ready.length + retries.length;
}

function firstOf<E extends WindowEntry>({ ready, retries }: RouteQueue<E>): E {
  const [first, retried] = [ready.at(0), retries.at(-1)];
  const isRetried = retried !== undefined && (first === undefined || retried.message.id < first.message.id);
  return isRetried ? retries.pop()! : ready.shift()!;
}

function fits({ inFlight, bytes, trust }: Load, limit: number, limitBytes: number): boolean {
  return inFlight === 0 || (inFlight < Math.min(limit, trust) && bytes < limitBytes);
}
