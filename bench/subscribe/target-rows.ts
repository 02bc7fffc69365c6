/**
 * The rows that messages become: the functions that insert them, when all are there, and whether they are as they should be.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { BenchFailure } from "../bench-failure.js";
import { systemMs } from "../clock.js";
import { numberDigits } from "./numbered-payload.js";

/** What is subscribed. Marks are of another function, on the same connection to NATS: what was sent before is there. */
export const subjects = { row: "bench.subscribe.row", ping: "bench.subscribe.ping", mark: "bench.subscribe.mark" };

/** Where a row of `bench_ping` is announced, with its number. */
export const pingChannel = "bench_pings";

/** How often the sequence is looked at: little against a run, and little work for Postgres. */
const lookEveryMs = 5;

/** How long rows may take that do not come. */
const patienceMs = 120_000;

/** What the rows of a run say of the transactions that inserted them. */
export interface Transactions {
  readonly count: number;
  /** Rows of the largest one. */
  readonly largest: number;
}

/** See above. */
export class TargetRows {
  readonly #client: pg.Client;
  readonly #holder: pg.Client;

  private constructor(client: pg.Client, holder: pg.Client) {
    this.#client = client;
    this.#holder = holder;
  }

  /** Makes table and functions, and subscribes. */
  static async create(databaseUrl: string): Promise<TargetRows> {
    const [client, holder] = await Promise.all([connected(databaseUrl), connected(databaseUrl)]);
    await client.query(`
      CREATE TABLE bench_rows (id bigint GENERATED ALWAYS AS IDENTITY, payload bytea NOT NULL);
      CREATE TABLE bench_marks (payload bytea NOT NULL);
      CREATE FUNCTION bench_row(payload bytea) RETURNS void LANGUAGE sql
        AS 'INSERT INTO bench_rows (payload) VALUES (payload)';
      CREATE FUNCTION bench_ping(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO bench_rows (payload) VALUES (payload);
             SELECT pg_notify('${pingChannel}', convert_from(substring(payload FOR ${numberDigits}), 'UTF8'))$$;
      CREATE FUNCTION bench_mark(payload bytea) RETURNS void LANGUAGE sql
        AS 'INSERT INTO bench_marks (payload) VALUES (payload)';
      SELECT nats_subscribe('${subjects.row}', 'bench_row');
      SELECT nats_subscribe('${subjects.ping}', 'bench_ping');
      SELECT nats_subscribe('${subjects.mark}', 'bench_mark')`);
    return new TargetRows(client, holder);
  }

  /** Forgets the rows of the run before. */
  async clear(): Promise<void> {
    await this.#client.query("TRUNCATE bench_rows RESTART IDENTITY");
  }

  /** Keeps everyone from inserting until it is released. */
  async hold(): Promise<void> {
    await this.#holder.query("BEGIN; LOCK TABLE bench_rows IN ACCESS EXCLUSIVE MODE");
  }

  /** @returns when, in ms of the system's clock */
  async release(): Promise<number> {
    const releasedMs = systemMs();
    await this.#holder.query("ROLLBACK");
    return releasedMs;
  }

  /** Whether the message has come that was sent to the subject of marks. */
  async isMarked(mark: string): Promise<boolean> {
    const text = "SELECT FROM bench_marks AS m WHERE m.payload = $1";
    return (await this.#client.query({ name: "bench.mark", text, values: [Buffer.from(mark)] })).rows.length > 0;
  }

  /** Resolves when so many rows are committed. @returns when, in ms of the system's clock */
  async committed(count: number): Promise<number> {
    const giveUpMs = systemMs() + patienceMs;
    for (;;) {
      // The sequence tells what is inserted and not yet committed, too, and costs nothing.
      const text = "SELECT s.last_value AS inserted FROM bench_rows_id_seq AS s";
      const { rows } = await this.#client.query<{ inserted: string }>({ name: "bench.inserted", text });
      if (Number(rows[0]!.inserted) >= count) {
        // Whoever inserts has a lock until the commit.
        await this.#client.query("BEGIN; LOCK TABLE bench_rows IN SHARE MODE; COMMIT");
        const nowMs = systemMs();
        if ((await this.#count()) >= count) return nowMs;
      }
      if (systemMs() > giveUpMs) {
        throw new BenchFailure(`${await this.#count()} of ${count} rows were there after ${patienceMs / 1000} s`);
      }
      await delay(lookEveryMs);
    }
  }

  /** @throws BenchFailure if anything is missing, doubled, or not in order where it should be */
  async check(count: number, payloadBytes: number, inOrder: boolean): Promise<Transactions> {
    const { rows } = await this.#client.query<Record<string, string>>(
      `WITH numbered AS (
         SELECT convert_from(substring(r.payload FOR ${numberDigits}), 'UTF8')::integer AS number,
                octet_length(r.payload) AS bytes, row_number() OVER (ORDER BY r.id) AS place, r.xmin::text AS transaction
           FROM bench_rows AS r
       ), sizes AS (SELECT count(*) AS rows FROM numbered AS n GROUP BY n.transaction)
       SELECT count(*) AS rows, count(DISTINCT n.number) AS numbers, count(*) FILTER (WHERE n.bytes <> $1) AS "wrongSize",
              count(*) FILTER (WHERE n.number <> n.place) AS misplaced, (SELECT count(*) FROM sizes) AS transactions,
              (SELECT max(s.rows) FROM sizes AS s) AS largest
         FROM numbered AS n`,
      [payloadBytes],
    );
    const found = Object.fromEntries(Object.entries(rows[0]!).map(([name, value]) => [name, Number(value)]));
    const { rows: there, numbers, wrongSize, misplaced, transactions, largest } = found;
    if (there !== count || numbers !== count || wrongSize !== 0 || (inOrder && misplaced !== 0)) {
      throw new BenchFailure(
        `of ${count} messages there are ${there} rows, ${numbers} different ones, ${misplaced} not in their place, ${wrongSize} of another length`,
      );
    }
    return { count: transactions!, largest: largest! };
  }

  async close(): Promise<void> {
    await Promise.all([this.#client.end(), this.#holder.end()]);
  }

  async #count(): Promise<number> {
    const { rows } = await this.#client.query<{ count: string }>("SELECT count(*) FROM bench_rows");
    return Number(rows[0]!.count);
  }
}

async function connected(databaseUrl: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}
