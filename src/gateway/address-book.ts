/**
 * What Postgres knows of gateways, kept right while this one runs: it is entered, and those that are gone are not.
 * Otherwise each new session would try them, and whoever takes the port of one would be asked.
 */

import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { type Address, formatAddress } from "../wire/index.js";
import { type GatewayAddress, type GatewayEntry, type GatewayStanding, GatewayTable } from "./gateway-table.js";
import { refusingAmong } from "./stale-addresses.js";

const { optionsPollMs } = gatewayConstants;

/** Where this gateway is. */
export interface OwnAddress {
  /** Where it listens. */
  readonly listen: Address;
  /** Where Postgres reaches it. */
  readonly own: GatewayAddress;
  /** Postgres reaches it at another address than it listens at, which others may have, too. */
  readonly isAdvertised: boolean;
}

/** Where this process stands at NATS, and who hears where others do. */
export interface Placement {
  readonly standing: GatewayStanding | undefined;
  /** Does not reject. @param owner the name of this process */
  heed(owner: string, others: readonly GatewayEntry[]): Promise<void>;
}

/** See above. */
export class AddressBook {
  readonly #table: GatewayTable;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  readonly #address: OwnAddress;
  readonly #placement: Placement;
  readonly #logger: Logger;

  constructor(session: PostgresSession, address: OwnAddress, placement: Placement, logger: Logger) {
    this.#address = address;
    this.#placement = placement;
    this.#logger = logger;
    this.#table = new GatewayTable(session, address.own);
  }

  /** Enters the address, and looks at the others now and from time to time. */
  async open(): Promise<void> {
    await this.#look(true);
    this.#lookLater();
  }

  /** Says now where this process stands. Does not reject. */
  async tell(): Promise<void> {
    await this.#table.enter(this.#placement.standing).catch((err: unknown) => {
      this.#logger.debug({ err }, "the database was not told which NATS server this process stands on, and is later");
    });
  }

  /** Ends the looking, and takes the address out. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#table.leave().catch((err: unknown) => {
      this.#logger.warn({ err }, "the gateway's address could not be taken out of the database; other gateways will");
    });
  }

  #lookLater(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#look(false)
        .catch((err: unknown) => this.#logger.debug({ err }, "the addresses of gateways could not be looked at"))
        .finally(() => this.#lookLater());
    }, optionsPollMs);
  }

  async #look(isFirst: boolean): Promise<void> {
    const { signal } = this.#stopping;
    const { listen, isAdvertised } = this.#address;
    if (!(await this.#table.enter(this.#placement.standing)) || signal.aborted) return;
    if (isFirst && !isAdvertised) await this.#table.succeed();
    const others = await this.#table.others();
    const refusing = new Set(await refusingAmong(listen, others, signal));
    const [gone, present] = partition(others, (entry) => entry.isStale || refusing.has(entry));
    for (const entry of gone) {
      if (signal.aborted) return;
      const address = formatAddress(entry);
      this.#logger.info({ address }, "a gateway that does not answer any more is forgotten");
      await this.#table.forget(entry);
    }
    if (isFirst) this.#warnOfOtherTls(present);
    await this.#placement.heed(this.#table.owner, present);
  }

  #warnOfOtherTls(others: readonly GatewayEntry[]): void {
    const { sslmode, rootCertificate = null } = this.#address.own;
    const other = others.find((entry) => entry.sslmode !== sslmode || entry.rootCertificate !== rootCertificate);
    if (other === undefined) return;
    this.#logger.warn(
      { address: formatAddress(other), sslmode: other.sslmode, rootCertificate: other.rootCertificate },
      "another gateway of this database has other TLS settings: Postgres tries only those that have the settings of the " +
        "youngest, so neither takes over for the other; give all of them the same",
    );
  }
}

function partition<T>(all: readonly T[], belongs: (one: T) => boolean): [T[], T[]] {
  return [all.filter(belongs), all.filter((one) => !belongs(one))];
}
