/**
 * Order in which a process tries the NATS servers of option `host`.
 *
 * Processes of one database connect to different servers if possible: messages that one process misses because its
 * server fails are then received by another. Each process prefers the server with the fewest other processes; among
 * equals, it ranks them by a hash of process and server, so that processes that do not know of each other spread as
 * well. A server that could not be reached is tried last for `natsServerAwayMs`.
 *
 * If a server has too many processes, as after a restart of its cluster, one process after another moves to a server
 * with fewer. See `NatsPlacement` in `serve`, which passes the servers of other processes to `setOthers`.
 */
import { createHash, randomUUID } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { type ServerName, serverName } from "./connect-failure.js";

/** For this long, a NATS server that could not be reached, or whose connection has ended, is tried after the others. */
export const natsServerAwayMs = 15_000;

/** Address of a NATS server. */
export interface NatsAddress {
  /** Host name or address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly name: ServerName;
}

/** Servers of the options in order, without duplicates. */
export function natsAddresses({ host, port }: Pick<CompleteNatsServerOptions, "host" | "port">): NatsAddress[] {
  const addresses = new Map<ServerName, NatsAddress>();
  for (const entry of host.split(",")) {
    const address = addressOf(entry, port);
    addresses.set(address.name, address);
  }
  return [...addresses.values()];
}

/** Parses an entry of option `host`: more than one colon without brackets is an IPv6 address without a port. */
function addressOf(entry: string, defaultPort: number): NatsAddress {
  const [, bracketed, plain, ownPort] = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? [];
  const host = bracketed ?? plain ?? entry;
  const port = ownPort === undefined ? defaultPort : Number(ownPort);
  return { host, port, name: serverName({ host, port }) };
}

/** Server order of one process, for all its connections. */
export class ServerChoice {
  /** Number of other processes by server. */
  #others: ReadonlyMap<string, number> = new Map();
  /** Time until which a server counts as unavailable, on the clock `now`. */
  readonly #unavailableUntil = new Map<ServerName, number>();

  readonly #process: string;
  readonly #now: () => number;

  /**
   * @param process random id of the process
   * @param now clock in milliseconds
   */
  constructor(process: string = randomUUID(), now: () => number = () => performance.now()) {
    this.#process = process;
    this.#now = now;
  }

  /** Servers in the order in which they should be tried. */
  order(servers: readonly NatsAddress[]): NatsAddress[] {
    if (servers.length === 1) return [...servers];
    const ranked = servers.map((server) => ({
      server,
      key: [Number(this.#isUnavailable(server)), this.#othersOn(server), hash(this.#process, server.name)] as const,
    }));
    ranked.sort((one, other) => compare(one.key, other.key));
    return ranked.map(({ server }) => server);
  }

  /**
   * A server that would be a better choice than `own`, because at least two fewer processes use it; undefined if there
   * is none.
   */
  better(servers: readonly NatsAddress[], own: ServerName): NatsAddress | undefined {
    const [best] = this.order(servers);
    if (best === undefined || this.#isUnavailable(best)) return undefined;
    return this.#othersOn(best) < (this.#others.get(own) ?? 0) ? best : undefined;
  }

  /** Sets the servers of all other processes, one name per process. */
  setOthers(servers: readonly string[]): void {
    const others = new Map<string, number>();
    for (const name of servers) others.set(name, (others.get(name) ?? 0) + 1);
    this.#others = others;
  }

  /** Records that a connection to the server failed or was lost. */
  markUnavailable({ name }: NatsAddress): void {
    this.#unavailableUntil.set(name, this.#now() + natsServerAwayMs);
  }

  /** Records that a connection to the server was made. */
  markAvailable({ name }: NatsAddress): void {
    this.#unavailableUntil.delete(name);
  }

  #isUnavailable({ name }: NatsAddress): boolean {
    return (this.#unavailableUntil.get(name) ?? Number.NEGATIVE_INFINITY) > this.#now();
  }

  #othersOn({ name }: NatsAddress): number {
    return this.#others.get(name) ?? 0;
  }
}

/** Rendezvous hashing: each process has its own order, which stays the same when other servers are added or removed. */
function hash(process: string, name: string): string {
  return createHash("sha256").update(`${process} ${name}`).digest("hex");
}

type Key = readonly [away: number, others: number, hash: string];

function compare(one: Key, other: Key): number {
  return one[0] - other[0] || one[1] - other[1] || (one[2] < other[2] ? -1 : 1);
}
