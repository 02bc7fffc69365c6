/**
 * What Postgres knows of gateways, kept right while this one runs: its own address is there, and those that are gone are
 * not. Otherwise each new session would try them, and whoever takes the port of one would be asked.
 */
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type Address, formatAddress } from "../wire/index.js";
import type { Logger } from "./protocol/index.js";
import type { GatewayAddress, GatewayEntry, ServerWatch } from "./server-watch.js";
import { StaleAddresses } from "./stale-addresses.js";

const { optionsPollMs } = gatewayConstants;

/** See above. */
export class AddressBook {
  readonly #stale: StaleAddresses<GatewayEntry>;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param listen where the gateway listens
   * @param own where Postgres reaches it
   */
  constructor(
    private readonly watch: ServerWatch,
    listen: Address,
    private readonly own: GatewayAddress,
    private readonly logger: Logger,
  ) {
    this.#stale = new StaleAddresses(listen);
  }

  /** Enters the address, and looks at the others now and from time to time. @throws StoreError `store_failed` */
  async open(): Promise<void> {
    await this.watch.register(this.own);
    await this.#look();
    this.#lookLater();
  }

  /** Ends the looking. The address is taken out by the watch. */
  stop(): void {
    this.#stopping.abort();
    clearTimeout(this.#timer);
  }

  #lookLater(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#look()
        .catch((err: unknown) => this.logger.debug({ err }, "the addresses of gateways could not be looked at"))
        .finally(() => this.#lookLater());
    }, optionsPollMs);
  }

  async #look(): Promise<void> {
    const { signal } = this.#stopping;
    const entries = await this.watch.entries();
    const isOwn = ({ host, port }: GatewayEntry): boolean => host === this.own.host && port === this.own.port;
    // Another gateway may have found no way to us.
    if (!signal.aborted && !entries.some(isOwn)) await this.watch.register(this.own);
    const others = entries.filter((entry) => !isOwn(entry));
    for (const gone of await this.#stale.among(others, signal)) {
      if (signal.aborted) return;
      this.logger.info({ address: formatAddress(gone) }, "a gateway that does not answer any more is forgotten");
      await this.watch.forget(gone);
    }
  }
}
