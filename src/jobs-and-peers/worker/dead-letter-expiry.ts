/**
 * Deletion of dead letters that are older than the database's retention, at the start of the peer and every hour. Each
 * peer deletes those of the database roles that its login is a member of. A peer does nothing while another one is
 * deleting.
 */
import { storeConstants } from "../../../generated/ts/settings/peer.js";
import { type Clock, type Logger, Repeated } from "../../foundation/runtime/index.js";
import type { QueueStore } from "../peer-store/index.js";

/** Interval at which a running peer deletes expired dead letters, in addition to its start. */
export const deadLetterExpiryMs = 3_600_000;

/** Log and store that the expiry uses. */
export interface ExpiryContext {
  readonly logger: Logger;
  readonly store: { readonly deadLetters: Pick<QueueStore["deadLetters"], "expire"> };
}

export class DeadLetterExpiry extends Repeated {
  readonly #context: ExpiryContext;

  constructor(context: ExpiryContext, clock?: Clock) {
    super(deadLetterExpiryMs, () => this.#expire(), clock);
    this.#context = context;
  }

  start(): void {
    this.soon();
  }

  async #expire(): Promise<void> {
    const { store, logger } = this.#context;
    let total = 0;
    try {
      let deleted: number | undefined = storeConstants.deadLetterRows;
      while (!this.isStopped && deleted === storeConstants.deadLetterRows) {
        deleted = await store.deadLetters.expire();
        total += deleted ?? 0;
      }
    } catch (err) {
      logger.debug({ err }, "could not delete expired dead letters; retrying later");
    }
    if (total > 0) logger.info({ deleted: total }, "deleted dead letters older than the retention");
  }
}
