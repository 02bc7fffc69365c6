/**
 * A login without any right that holds each advisory lock that a version of Hawser has taken.
 */
import pg from "pg";
import { login } from "../installation/support/logins.js";

/** Disposing ends its session and drops it. */
export class LockHolder implements AsyncDisposable {
  readonly #client: pg.Client;
  readonly #login: AsyncDisposable;
  readonly #since = performance.now();
  /** Number of locks that it holds. */
  readonly count: number;

  private constructor(client: pg.Client, login: AsyncDisposable, count: number) {
    this.#client = client;
    this.#login = login;
    this.count = count;
  }

  /**
   * Takes the locks.
   *
   * @param names whose locks are taken besides those of the database: peers and relays
   * @param handlers the functions and subjects whose locks are taken
   */
  static async take(
    databaseUrl: string,
    names: readonly string[],
    handlers: readonly string[] = [],
  ): Promise<LockHolder> {
    const own = await login(databaseUrl);
    const client = new pg.Client({ connectionString: own.url });
    await client.connect();
    const { rowCount } = await client.query(
      "SELECT pg_advisory_lock(hashtextextended(k, 0)) FROM unnest($1::text[]) AS k",
      [
        [
          ...names.flatMap((name) => [`hawser:lease:${name}`, `hawser:fence:${name}`]),
          ...handlers.map((name) => `hawser:handlers:${name}`),
          ...["listeners", "dead_letters", "migrate"].map((what) => `hawser:${what}`),
          ...Array.from({ length: 32 }, (_, bucket) => `hawser:queue:${bucket}`),
        ],
      ],
    );
    return new LockHolder(client, own, rowCount!);
  }

  /** For how long it has held all of them, in milliseconds. @throws Error if it has lost one */
  async heldMs(): Promise<number> {
    const { rows } = await this.#client.query(
      "SELECT count(*)::int AS held FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted",
    );
    if (rows[0].held !== this.count) throw new Error(`it holds ${rows[0].held} of ${this.count} locks`);
    return performance.now() - this.#since;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end();
    await this.#login[Symbol.asyncDispose]();
  }
}
