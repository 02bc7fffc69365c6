/**
 * Keeps the processes of a database on different NATS servers, where several are named.
 *
 * Each process enters in its row of `hawser.gateways` which server it stands on, and reads the rows of the others from
 * time to time. Where more stand on its server than on another one, one of them moves, before the connection that it has
 * ends: the process whose owner comes first after one check, the next one after another, and so on, so that they do not all
 * move at once. The one that leads the subscriptions stays, since for a moment a move delivers messages twice; another one
 * is there to move. A server may have just started, and not know its cluster yet: so it is tried one check before the move.
 */
import type { GatewayEntry, GatewayStanding } from "../gateway/index.js";
import { type NatsAddress, type NatsConnector, natsAddresses, type ServerChoice } from "../nats/index.js";
import type { Logger } from "../runtime/index.js";

/** What is placed. */
export interface PlacedProcess {
  readonly choice: ServerChoice;
  readonly logger: Logger;
  /** Where a loss counts: it receives the subscriptions. */
  readonly subscriptions: NatsConnector;
  readonly others: readonly NatsConnector[];
  isLeading(): boolean;
}

/** Places one process. */
export class NatsPlacement {
  /** Checks in a row that found a better server. */
  #checks = 0;
  /** The server that was tried at the last check, and took the connection. */
  #tried: NatsAddress | undefined;

  readonly #process: PlacedProcess;

  constructor(process: PlacedProcess) {
    this.#process = process;
  }

  /** The server that this process stands on; undefined: none. */
  get standing(): GatewayStanding | undefined {
    const { server, connection } = this.#process.subscriptions;
    const serverId = connection?.info?.server_id;
    return server && { server: server.name, serverId };
  }

  /** Takes where others stand, and moves if it is to. Does not reject. */
  async heed(owner: string, others: readonly GatewayEntry[]): Promise<void> {
    const { choice, subscriptions, logger } = this.#process;
    const present = others.filter(({ isStale }) => !isStale);
    choice.setOthers(present.flatMap(({ natsServer }) => natsServer ?? []));
    const { options, server: own } = subscriptions;
    const better = options && own && choice.better(natsAddresses(options), own.name);
    if (better === undefined || own === undefined || this.#process.isLeading()) {
      this.#checks = 0;
      this.#tried = undefined;
      return;
    }
    const before = present.filter((other) => other.natsServer === own.name && other.owner < owner);
    this.#checks += 1;
    if (this.#checks <= before.length) return;
    try {
      if (this.#tried?.name === better.name) {
        logger.info({ from: own.name, to: better.name }, "moves to a NATS server that fewer processes stand on");
        this.#checks = 0;
        this.#tried = undefined;
        await this.#move(better);
      } else {
        await subscriptions.probe(better);
        this.#tried = better;
      }
    } catch (err) {
      this.#tried = undefined;
      logger.debug({ err, server: better.name }, "stays with its NATS server: the one that fewer stand on is away");
    }
  }

  /** The subscriptions first: if that fails, the others stay as well. */
  async #move(server: NatsAddress): Promise<void> {
    await this.#process.subscriptions.move(server);
    await Promise.all(this.#process.others.map((connector) => connector.move(server)));
  }
}
