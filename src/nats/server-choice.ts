/**
 * Which of the NATS servers of option `host` a process connects to.
 *
 * Processes of one database stand on different servers where they can: what one process does not receive because its
 * server dies, another one has. Each prefers the server that the fewest others stand on; of several, the one that comes
 * first by a hash of the process and the server, so that processes that know nothing of each other part as well. A server
 * that could not be reached is tried last for `nats_server_away_ms`.
 *
 * Where more stand on one server than need be, as after its cluster was restarted, one after the other moves to a server
 * with fewer: see `NatsPlacement` in `serve`, which tells this object where others stand.
 */
import { createHash, randomUUID } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type ServerName, serverName } from "./connect-failure.js";

const { natsServerAwayMs } = gatewayConstants;

/** Where a NATS server listens. */
export interface NatsAddress {
  /** Name or address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly name: ServerName;
}

/** The servers of the options, in their order, each once. */
export function natsAddresses({ host, port }: Pick<CompleteNatsServerOptions, "host" | "port">): NatsAddress[] {
  const addresses = new Map<ServerName, NatsAddress>();
  for (const entry of host.split(",")) {
    const address = addressOf(entry, port);
    addresses.set(address.name, address);
  }
  return [...addresses.values()];
}

/** As the pattern of option `host` has it: more than one colon without brackets is IPv6, and has no port of its own. */
function addressOf(entry: string, defaultPort: number): NatsAddress {
  const [, bracketed, plain, ownPort] = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? [];
  const host = bracketed ?? plain ?? entry;
  const port = ownPort === undefined ? defaultPort : Number(ownPort);
  return { host, port, name: serverName({ host, port }) };
}

/** The choice of one process, for all of its connections. */
export class ServerChoice {
  /** How many other processes stand on a server. */
  #others: ReadonlyMap<string, number> = new Map();
  /** Until when a server counts as away, by `now`. */
  readonly #awayUntil = new Map<ServerName, number>();

  readonly #process: string;
  readonly #now: () => number;

  /**
   * @param process a random name of the process
   * @param now a clock in milliseconds
   */
  constructor(process: string = randomUUID(), now: () => number = () => performance.now()) {
    this.#process = process;
    this.#now = now;
  }

  /** The order in which the servers are tried. */
  order(servers: readonly NatsAddress[]): NatsAddress[] {
    if (servers.length === 1) return [...servers];
    const ranked = servers.map((server) => ({
      server,
      key: [Number(this.#isAway(server)), this.#othersOn(server), hash(this.#process, server.name)] as const,
    }));
    ranked.sort((one, other) => compare(one.key, other.key));
    return ranked.map(({ server }) => server);
  }

  /** The server that it would be better to stand on than on that one, because two fewer do; undefined: there is none. */
  better(servers: readonly NatsAddress[], own: ServerName): NatsAddress | undefined {
    const [best] = this.order(servers);
    if (best === undefined || this.#isAway(best)) return undefined;
    return this.#othersOn(best) < (this.#others.get(own) ?? 0) ? best : undefined;
  }

  /** Takes where other processes stand: the name of a server for each of them. */
  heed(servers: readonly string[]): void {
    const others = new Map<string, number>();
    for (const name of servers) others.set(name, (others.get(name) ?? 0) + 1);
    this.#others = others;
  }

  /** A connection to the server could not be made, or has ended. */
  failed({ name }: NatsAddress): void {
    this.#awayUntil.set(name, this.#now() + natsServerAwayMs);
  }

  /** A connection to the server was made. */
  reached({ name }: NatsAddress): void {
    this.#awayUntil.delete(name);
  }

  #isAway({ name }: NatsAddress): boolean {
    return (this.#awayUntil.get(name) ?? Number.NEGATIVE_INFINITY) > this.#now();
  }

  #othersOn({ name }: NatsAddress): number {
    return this.#others.get(name) ?? 0;
  }
}

/** Rendezvous hashing: each process has an order of its own, which a server that is added or taken away leaves as it is. */
function hash(process: string, name: string): string {
  return createHash("sha256").update(`${process} ${name}`).digest("hex");
}

type Key = readonly [away: number, others: number, hash: string];

function compare(one: Key, other: Key): number {
  return one[0] - other[0] || one[1] - other[1] || (one[2] < other[2] ? -1 : 1);
}
