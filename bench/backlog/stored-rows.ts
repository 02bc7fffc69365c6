/**
 * Makes backlogs: stores messages for a listener that is away, in a sender's name, without a sender; and the same rows
 * for the loop of statements.
 */
import { randomFillSync } from "node:crypto";
import pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type Lease, openStore, type Store } from "../../src/store/index.js";
import { BenchFailure } from "../bench-failure.js";

const sender = { name: "bench-sender-1", sourceTopic: "bench-sender" };

/** Rows that are there for a drain. */
export class StoredRows {
  #stored = 0;

  readonly #store: Store;
  readonly #lease: Lease;
  readonly #client: pg.Client;
  readonly #keys: { readonly connectionKey: number; readonly topicKey: number };

  private constructor(
    store: Store,
    lease: Lease,
    client: pg.Client,
    keys: { readonly connectionKey: number; readonly topicKey: number },
  ) {
    this.#store = store;
    this.#lease = lease;
    this.#client = client;
    this.#keys = keys;
  }

  /** Makes the channel from the sender to the listener, and the table of the loop. */
  static async open(databaseUrl: string, listener: { name: string; topic: string }): Promise<StoredRows> {
    const store = await openStore({ databaseUrl });
    const client = new pg.Client({ connectionString: databaseUrl });
    client.on("error", () => undefined);
    try {
      await client.connect();
      await store.migrate();
      const lease = await store.takeName(sender.name, { waitMs: 0 });
      const { connectionKey } = await store.connectionKey(sender, listener.name);
      const topicKey = await store.topicKey(listener.topic);
      await client.query("CREATE TABLE bench_backlog (id bigserial PRIMARY KEY, payload bytea NOT NULL)");
      return new StoredRows(store, lease, client, { connectionKey, topicKey });
    } catch (error) {
      await client.end();
      await store.close();
      throw error;
    }
  }

  /** Stores messages for the listener. */
  async addForListener(rows: number, payloadBytes: number): Promise<void> {
    const { connectionKey, topicKey } = this.#keys;
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const insert = Array.from({ length: storeConstants.insertRows }, () => ({ topicKey, payload }));
    for (let left = rows; left > 0; left -= insert.length) {
      const messages = left < insert.length ? insert.slice(0, left) : insert;
      const outcome = await this.#store.storeMessages(this.#lease, connectionKey, this.#stored + 1, messages);
      if (outcome !== "stored") throw new BenchFailure(`the backlog could not be stored: ${outcome}`);
      this.#stored += messages.length;
    }
    await this.#vacuum();
  }

  /** Fills the table of the loop. */
  async addForLoop(rows: number, payloadBytes: number): Promise<void> {
    const payload = randomFillSync(Buffer.alloc(payloadBytes));
    await this.#client.query("INSERT INTO bench_backlog (payload) SELECT $1 FROM generate_series(1, $2::int)", [
      payload,
      rows,
    ]);
    await this.#vacuum();
  }

  async close(): Promise<void> {
    await this.#lease.release({ clean: true });
    await this.#store.close();
    await this.#client.end();
  }

  /** As autovacuum would while the listener is away. */
  async #vacuum(): Promise<void> {
    await this.#client.query("VACUUM ANALYZE");
  }
}
