/**
 * Placement: spreads the processes of a database over the named NATS servers.
 *
 * Each process writes the server that it is connected to into its row of `hawser_bridge_data.gateways`, and reads the rows of the
 * others periodically. If its server has more processes than another one, one process moves, and connects before it
 * drops the old connection: the process whose owner sorts first moves after one check, the next after two, and so on,
 * so that they do not all move at once. The leader of the subscriptions never moves, because a move briefly delivers
 * messages twice, and another process can move instead. A server that has just started may not know its cluster yet, so
 * it gets a test connection one check before the move.
 */

import type { Logger } from "../../foundation/runtime/index.js";
import type { Bridge } from "../bridge/index.js";
import { type NatsAddress, natsAddresses, type ServerChoice } from "../connections/index.js";
import type { Gateway, GatewayEntry, NatsPlace, Placement } from "../gateway/index.js";

/** Process to place. */
export interface PlacedProcess {
  readonly choice: ServerChoice;
  readonly logger: Logger;
  readonly gateway: Gateway;
  readonly bridge: Bridge;
}

export class NatsPlacement implements Placement {
  /** Number of consecutive checks that found a better server. */
  #checks = 0;
  /** Server that accepted a test connection at the last check. */
  #tried: NatsAddress | undefined;

  readonly #process: PlacedProcess;

  constructor(process: PlacedProcess) {
    this.#process = process;
  }

  /** Server that this process is connected to; undefined without a connection. */
  get natsPlace(): NatsPlace | undefined {
    const { server, connection } = this.#process.bridge.connectors.subscriptions;
    const serverId = connection?.info?.server_id;
    return server && { server: server.name, serverId };
  }

  get canLead(): boolean {
    return this.#process.bridge.succession.canLead;
  }

  async onOthers(owner: string, others: readonly GatewayEntry[]): Promise<void> {
    const canBeReplaced = others.some(({ isStale, canLead }) => canLead && !isStale);
    if (canBeReplaced) await this.#process.bridge.succession.yieldLeadership();
    await this.#balance(owner, others);
  }

  /** Moves this process if another server has fewer processes, as described above. Never rejects. */
  async #balance(owner: string, others: readonly GatewayEntry[]): Promise<void> {
    const { choice, bridge, logger } = this.#process;
    const { subscriptions } = bridge.connectors;
    const present = others.filter(({ isStale }) => !isStale);
    choice.setOthers(present.flatMap(({ natsServer }) => natsServer ?? []));
    const { options, server: own } = subscriptions;
    const better = options && own && choice.better(natsAddresses(options), own.name);
    if (better === undefined || own === undefined || bridge.stats.epoch !== undefined) {
      this.#checks = 0;
      this.#tried = undefined;
      return;
    }
    const before = present.filter((other) => other.natsServer === own.name && other.owner < owner);
    this.#checks += 1;
    if (this.#checks <= before.length) return;
    try {
      if (this.#tried?.name === better.name) {
        logger.info({ from: own.name, to: better.name }, "the process moves to a NATS server with fewer processes");
        this.#checks = 0;
        this.#tried = undefined;
        await this.#move(better);
      } else {
        await subscriptions.probe(better);
        this.#tried = better;
      }
    } catch (err) {
      this.#tried = undefined;
      logger.debug(
        { err, server: better.name },
        "the NATS server with fewer processes is unreachable; the process stays connected to its own",
      );
    }
  }

  /** Moves all connections, the subscriptions first: if that fails, the others stay as well. */
  async #move(server: NatsAddress): Promise<void> {
    const { gateway, bridge } = this.#process;
    const { subscriptions, ...others } = bridge.connectors;
    await subscriptions.move(server);
    await Promise.all([...Object.values(others), gateway.connector].map((connector) => connector.move(server)));
  }
}
