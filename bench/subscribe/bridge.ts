/**
 * Everything that a run of the suite `subscribe` needs.
 */
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { connected } from "../postgres.js";
import type { ServeRequests, Usage } from "../serve-process.js";
import { type BenchServers, installFunctions } from "../servers.js";
import { BenchFailure, type SuiteContext } from "../suite.js";
import { systemMs, Worker } from "../worker.js";
import type { Load, PublishingRequests } from "./process.js";
import { numberDigits, pingChannel, subjects } from "./subjects.js";

/** Time and resource usage of a load. */
export interface Run {
  readonly seconds: number;
  readonly usage: Usage;
  readonly transactions: Transactions;
}

/** Holds a load of 100,000 waiting messages of 1 KiB. */
const bufferBytes = 256 << 20;

const markEveryMs = 20;
const markTimeoutMs = 60_000;

/** The rows, a process that runs the bridge, and one that publishes. */
export class BridgeUnderTest {
  #marks = 0;

  readonly rows: TargetRows;
  readonly publishing: Worker<PublishingRequests>;
  readonly #serve: Worker<ServeRequests>;

  private constructor(rows: TargetRows, publishing: Worker<PublishingRequests>, serve: Worker<ServeRequests>) {
    this.rows = rows;
    this.publishing = publishing;
    this.#serve = serve;
  }

  /** Starts the processes; the subscriptions are live when this resolves. @param natsOptions of the NATS server */
  static async start(
    servers: BenchServers,
    { source, signal }: SuiteContext,
    natsOptions: Readonly<Record<string, unknown>> = {},
  ): Promise<BridgeUnderTest> {
    const { databaseUrl, natsUrl } = servers;
    await installFunctions(servers, source, natsOptions);
    const rows = await TargetRows.create(databaseUrl);
    const serve = Worker.start<ServeRequests>("serve", new URL("../serve-process.ts", import.meta.url), {
      source,
      signal,
    });
    const publishing = Worker.start<PublishingRequests>("publishing", new URL("./process.ts", import.meta.url), {
      signal,
    });
    const bridge = new BridgeUnderTest(rows, publishing, serve);
    try {
      await serve.request("open", { databaseUrl, bufferBytes });
      await publishing.request("open", { databaseUrl, natsUrl });
      await bridge.#marked();
      return bridge;
    } catch (error) {
      await bridge.stop();
      throw error;
    }
  }

  /** Publishes, and waits until all rows are committed: from the first publish to the last commit. */
  async run(load: Load): Promise<Run> {
    await this.rows.clear();
    await this.#serve.request("watch", undefined);
    const published = this.publishing.request("publish", load);
    const [beganMs, endedMs] = await Promise.all([published, this.rows.committed(load.messages)]);
    return await this.#ended(load, endedMs - beganMs);
  }

  /** All messages are received before any row can be inserted: from then to the last commit. */
  async runBacklog(load: Load): Promise<Run> {
    await this.rows.clear();
    await this.rows.hold();
    await this.publishing.request("publish", load);
    await this.#marked();
    await this.#serve.request("watch", undefined);
    const beganMs = await this.rows.release();
    return await this.#ended(load, (await this.rows.committed(load.messages)) - beganMs);
  }

  /** Waits while nothing is published. @returns CPU time of the process that runs functions, in ms per second */
  async rest(ms: number): Promise<number> {
    await this.#serve.request("watch", undefined);
    await delay(ms);
    const { cpuSeconds, seconds } = await this.#serve.request("usage", undefined);
    return (cpuSeconds * 1000) / seconds;
  }

  /** The baseline. @returns seconds */
  async insert(load: Load, connections: number): Promise<number> {
    await this.rows.clear();
    const [beganMs, endedMs] = await this.publishing.request("insert", { ...load, connections });
    await this.rows.check(load.messages, load.payloadBytes, connections === 1);
    return (endedMs - beganMs) / 1000;
  }

  async stop(): Promise<void> {
    await Promise.all([this.publishing.stop(), this.#serve.stop()]);
    await this.rows.close();
  }

  async #ended({ messages, payloadBytes, over }: Load, tookMs: number): Promise<Run> {
    const usage = await this.#serve.request("usage", undefined);
    const transactions = await this.rows.check(messages, payloadBytes, over === undefined);
    return { seconds: tookMs / 1000, usage, transactions };
  }

  /** Resolves when the bridge has received what was published until now. */
  async #marked(): Promise<void> {
    const giveUpAt = performance.now() + markTimeoutMs;
    const name = `mark ${(this.#marks += 1)}`;
    // The first ones may come before the subscription is there.
    while (!(await this.rows.isMarked(name))) {
      if (performance.now() > giveUpAt) throw new BenchFailure(`the bridge has not received "${name}"`);
      await this.publishing.request("mark", name);
      await delay(markEveryMs);
    }
  }
}

/** Poll interval of the sequence: short against a run, and a small load for Postgres. */
const lookEveryMs = 5;

/** Time limit until all rows are committed. */
const rowsTimeoutMs = 120_000;

/** Number and size of the transactions that inserted the rows of a run. */
interface Transactions {
  readonly count: number;
  /** Rows of the largest one. */
  readonly largest: number;
}

/** The rows that messages become: the functions that insert them, when all are there, and whether they are as they should be. */
class TargetRows {
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

  /** True if the message that was published to the subject of marks has arrived. */
  async isMarked(mark: string): Promise<boolean> {
    const text = "SELECT FROM bench_marks AS m WHERE m.payload = $1";
    return (await this.#client.query({ name: "bench.mark", text, values: [Buffer.from(mark)] })).rows.length > 0;
  }

  /** Resolves when so many rows are committed. @returns when, in ms of the system's clock */
  async committed(count: number): Promise<number> {
    const giveUpMs = systemMs() + rowsTimeoutMs;
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
        throw new BenchFailure(`${await this.#count()} of ${count} rows were there after ${rowsTimeoutMs / 1000} s`);
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
