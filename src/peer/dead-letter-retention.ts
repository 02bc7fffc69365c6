/**
 * Deletes dead letters that are older than the retention of the database: when the peer starts, and every hour from then on. All
 * peers of a database do it for the roles that their login is in; one that comes while another is at work leaves it to that one.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type Clock, systemClock } from "../runtime/index.js";
import type { PeerContext } from "./context.js";

/** What the retention needs of a running peer. */
export type RetentionContext = Pick<PeerContext, "logger"> & {
  readonly store: { readonly deadLetters: Pick<PeerContext["store"]["deadLetters"], "expire"> };
};

export class DeadLetterRetention {
  #cancel: () => void = () => undefined;
  #stopped = false;

  readonly #context: RetentionContext;
  readonly #clock: Clock;

  constructor(context: RetentionContext, clock: Clock = systemClock) {
    this.#context = context;
    this.#clock = clock;
  }

  start(): void {
    void this.#expire();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  async #expire(): Promise<void> {
    const { store, logger } = this.#context;
    let total = 0;
    try {
      let deleted: number | undefined = storeConstants.deadLetterRows;
      while (!this.#stopped && deleted === storeConstants.deadLetterRows) {
        deleted = await store.deadLetters.expire();
        total += deleted ?? 0;
      }
    } catch (err) {
      logger.debug({ err }, "could not delete old dead letters; trying again later");
    }
    if (total > 0) logger.info({ deleted: total }, "deleted dead letters that were older than the retention");
    if (!this.#stopped) {
      this.#cancel = this.#clock.setTimeout(() => void this.#expire(), storeConstants.deadLetterExpiryMs);
    }
  }
}
