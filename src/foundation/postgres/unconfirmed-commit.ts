/**
 * Commits that no synchronous standby has confirmed. If the wait for the standby is cancelled, by
 * `pg_cancel_backend` for example, Postgres commits, and says so only by a warning: a failover may undo what was committed.
 */
import type pg from "pg";

/** C function of Postgres that waits for the synchronous standbys. Its warning has no SQLSTATE of its own. */
const waitRoutine = "SyncRepWaitForLSN";

/** Watches a client for the warning. {@link end} must be called before the client is given back. */
export class CommitWatch {
  readonly #client: pg.ClientBase;
  #warning: string | undefined;

  constructor(client: pg.ClientBase) {
    this.#client = client;
    client.on("notice", this.#onNotice);
  }

  /** @throws Error if a COMMIT since the last call was not confirmed. It proves no failure: the outcome is unknown */
  check(): void {
    const warning = this.#warning;
    if (warning === undefined) return;
    this.#warning = undefined;
    throw new Error(`the commit was not confirmed by a synchronous standby: ${warning}`);
  }

  end(): void {
    this.#client.off("notice", this.#onNotice);
  }

  readonly #onNotice = ({ routine, message }: Partial<Record<"routine" | "message", string | undefined>>): void => {
    if (routine === waitRoutine) this.#warning = message ?? "";
  };
}
