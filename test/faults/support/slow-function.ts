/**
 * A subscription whose function takes its time, and the processes of `hawser serve` that run it: numbered messages, and a table
 * that shows the order of the runs.
 */
import { setTimeout as delay } from "node:timers/promises";
import { connect, type NatsConnection, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { expect } from "vitest";
import { testNatsUrl } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { ServeProcess } from "./serve-process.js";

/** The subscription, and a publisher for it. */
export class SlowFunction implements AsyncDisposable {
  readonly subject = `saved.${nuid.next()}`;
  published = 0;
  #publishing: Promise<number> | undefined;
  #isOver = false;

  readonly databaseUrl: string;
  readonly #nats: NatsConnection;

  private constructor(databaseUrl: string, nats: NatsConnection) {
    this.databaseUrl = databaseUrl;
    this.#nats = nats;
  }

  /** @param takesMs for each message */
  static async make(databaseUrl: string, takesMs: number, natsUrl = testNatsUrl()): Promise<SlowFunction> {
    const nats = await connect({ servers: natsUrl, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
    const made = new SlowFunction(databaseUrl, nats);
    await made.query(`
      CREATE TABLE ran (seq bigserial, n int);
      CREATE TABLE gate (open bool);
      CREATE FUNCTION run_slowly(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF payload = '' THEN RETURN; END IF;
        PERFORM FROM gate;
        PERFORM pg_sleep(${takesMs / 1_000});
        INSERT INTO ran (n) VALUES (convert_from(payload, 'UTF8')::int);
      END $$;
      SELECT nats_subscribe('${made.subject}', 'run_slowly')`);
    return made;
  }

  async connect(): Promise<pg.Client> {
    const client = new pg.Client(this.databaseUrl);
    client.on("error", () => undefined);
    await client.connect();
    return client;
  }

  async query<Row extends object>(sql: string): Promise<Row[]> {
    const client = await this.connect();
    try {
      return (await client.query<Row>(sql)).rows;
    } finally {
      await client.end();
    }
  }

  async count(sql: string): Promise<number> {
    const [row] = await this.query<{ count: string }>(sql).catch(() => []);
    return Number(row?.count ?? Number.NaN);
  }

  /** Publishes so many, evenly. @returns how many it were in a second */
  async publish(count: number, perSecond: number, bytes = 100): Promise<number> {
    const began = performance.now();
    for (let made = 0; made < count && !this.#isOver; ) {
      const size = Math.min(count - made, Math.max(1, Math.ceil(perSecond / 100)));
      for (let n = 0; n < size; n += 1) this.#nats.publish(this.subject, `${(this.published += 1)}`.padEnd(bytes));
      made += size;
      await this.#nats.flush();
      await delay(Math.max(0, began + (made / perSecond) * 1_000 - performance.now()));
    }
    return (count * 1_000) / (performance.now() - began);
  }

  /** Publishes to another subject. */
  publishTo(subject: string, payloads: readonly string[]): void {
    for (const payload of payloads) this.#nats.publish(subject, payload);
  }

  /** Publishes something that counts for nothing. */
  async probe(): Promise<void> {
    this.#nats.publish(this.subject);
    await this.#nats.flush();
  }

  /** Publishes until {@link ends}. */
  begin(perSecond: number): void {
    this.#publishing = this.publish(Number.POSITIVE_INFINITY, perSecond);
  }

  /** Publishes as fast as they are run until {@link ends}, so that this many wait however fast the machine is. */
  keepWaiting(count: number): void {
    this.#publishing = (async () => {
      while (!this.#isOver) {
        const ran = await this.count("SELECT last_value AS count FROM ran_seq_seq");
        if (this.published < ran + count) await this.publish(Math.ceil(ran + count - this.published), 20_000);
        else await delay(10);
      }
      return Number.NaN;
    })();
  }

  async ends(): Promise<void> {
    this.#isOver = true;
    await this.#publishing;
    this.#isOver = false;
  }

  async waiting(): Promise<number> {
    return this.count("SELECT count(*) FROM hawser_data.saved_messages");
  }

  /** Total number of messages ever saved to the table. */
  async saved(): Promise<number> {
    return this.count(
      "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS count FROM hawser_data.saved_messages_id_seq",
    );
  }

  /** Resolves when each of the messages has run, and the table is empty. */
  async done(limitMs: number): Promise<void> {
    // Counting all rows is slow and would take CPU time from the functions, so the sequence is checked first.
    const counted = `SELECT CASE WHEN last_value < ${this.published} THEN 0 ELSE (SELECT count(DISTINCT n) FROM ran) END FROM ran_seq_seq`;
    const isDone = async () => (await this.count(counted)) === this.published || (await delay(200, false));
    await eventually("all have run", isDone, limitMs);
    await eventually("the table is empty", async () => (await this.waiting()) === 0, limitMs);
  }

  /** Messages that never ran, the number of repeated runs, and messages whose first run was behind a later one's. */
  async audit() {
    const rows = await this.query<{ n: number }>("SELECT n FROM ran ORDER BY seq");
    const seen = new Set<number>();
    const disordered: number[] = [];
    let highest = 0;
    for (const { n } of rows) {
      if (seen.has(n)) continue;
      seen.add(n);
      if (n < highest) disordered.push(n);
      highest = Math.max(highest, n);
    }
    const missing: number[] = [];
    for (let n = 1; n <= this.published; n += 1) if (!seen.has(n)) missing.push(n);
    return { missing: missing.length, disordered: disordered.length, repeated: rows.length - seen.size };
  }

  /** A session in which the table that the function reads is locked. */
  async lock(): Promise<pg.Client> {
    const client = await this.connect();
    await client.query("BEGIN; LOCK TABLE gate");
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ends();
    await this.#nats.close();
  }
}

/** Messages that the process has received since its start. */
export const received = (serve: ServeProcess) => serve.metric("hawser_bridge_messages_received_total");

const monitored = ["--monitor", "127.0.0.1:0"];

/** Stops the process with SIGTERM. Resolves when it has ended. */
export async function stop(serve: ServeProcess): Promise<void> {
  serve.signal("SIGTERM");
  const { status, stderr } = await serve.ended;
  expect({ status, stderr }).toMatchObject({ status: 0 });
}

/** Resolves when it is subscribed at NATS: a message of those that are being published has come. */
export const hears = (serve: ServeProcess) => eventually("it receives", async () => (await received(serve)) > 0);

/** Starts processes one after another, until each receives. Publishes for it. */
export async function start(slow: SlowFunction, count: number, flags: readonly string[] = []): Promise<ServeProcess[]> {
  const serves: ServeProcess[] = [];
  for (let n = 0; n < count; n += 1) serves.push(await ServeProcess.start(slow.databaseUrl, [...monitored, ...flags]));
  await eventually("all receive", async () => {
    await slow.probe();
    return (await Promise.all(serves.map(received))).every((messages) => messages > 0);
  });
  return serves;
}
