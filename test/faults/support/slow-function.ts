/**
 * A workload: numbered messages for one subscription, whose function takes its time and notes each of them in the ledger.
 */
import { setTimeout as delay } from "node:timers/promises";
import { connect, type NatsConnection, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { testNatsUrl } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { audit, createLedger, effectsSoFar, type Findings, readDone } from "./ledger.js";
import { ServeGroup } from "./serve-group.js";
import type { ServeProcess } from "./serve-process.js";

/** The subscription, and a publisher for it. */
export class SlowFunction implements AsyncDisposable {
  readonly subject = `saved.${nuid.next()}`;
  published = 0;
  readonly databaseUrl: string;
  readonly #nats: NatsConnection;
  #publishing: Promise<unknown> | undefined;
  #isOver = false;

  private constructor(databaseUrl: string, nats: NatsConnection) {
    this.databaseUrl = databaseUrl;
    this.#nats = nats;
  }

  /** @param takesMs for each message */
  static async make(databaseUrl: string, takesMs: number, natsUrl = testNatsUrl()): Promise<SlowFunction> {
    const nats = await connect({ servers: natsUrl, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
    const made = new SlowFunction(databaseUrl, nats);
    await createLedger(databaseUrl);
    await made.query(`
      CREATE TABLE gate (open bool);
      CREATE FUNCTION run_slowly(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF payload = '' THEN RETURN; END IF;
        PERFORM FROM gate;
        PERFORM pg_sleep(${takesMs / 1_000});
        INSERT INTO done (consumer, id) VALUES ('slow', rtrim(convert_from(payload, 'UTF8')));
      END $$;
      SELECT nats_subscribe('${made.subject}', 'run_slowly')`);
    return made;
  }

  /** Starts so many `hawser serve`, and resolves when each receives. */
  async serve(count: number, flags: readonly string[] = []): Promise<ServeGroup> {
    const group = await ServeGroup.start(this.databaseUrl, count, ["--monitor", "127.0.0.1:0", ...flags]);
    for (const member of group.members) await this.reaches(member);
    return group;
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

  /** A session in which the table that the function reads is locked. */
  async lock(): Promise<pg.Client> {
    const client = await this.connect();
    await client.query("BEGIN; LOCK TABLE gate");
    return client;
  }

  /** Publishes so many, evenly. */
  async publish(count: number, perSecond: number, bytes = 100): Promise<void> {
    const began = performance.now();
    for (let made = 0; made < count && !this.#isOver; ) {
      const size = Math.min(count - made, Math.max(1, Math.ceil(perSecond / 100)));
      for (let n = 0; n < size; n += 1) this.#nats.publish(this.subject, `${(this.published += 1)}`.padEnd(bytes));
      made += size;
      await this.#nats.flush();
      await delay(Math.max(0, began + (made / perSecond) * 1_000 - performance.now()));
    }
  }

  /** Publishes to another subject. */
  publishTo(subject: string, payload: string): void {
    this.#nats.publish(subject, payload);
  }

  /** Publishes until {@link ends}. */
  begin(perSecond: number): void {
    this.#publishing = this.publish(Number.POSITIVE_INFINITY, perSecond);
  }

  /** Publishes as fast as they are run until {@link ends}, so that this many wait however fast the machine is. */
  keepWaiting(count: number): void {
    this.#publishing = (async () => {
      while (!this.#isOver) {
        const ran = await effectsSoFar(this.databaseUrl);
        if (this.published < ran + count) await this.publish(Math.ceil(ran + count - this.published), 20_000);
        else await delay(10);
      }
    })();
  }

  async ends(): Promise<void> {
    this.#isOver = true;
    await this.#publishing;
    this.#isOver = false;
  }

  /** Resolves when the process receives what is published: until then it is sent what counts for nothing. */
  async reaches(serve: ServeProcess): Promise<void> {
    await eventually("it receives", async () => {
      this.#nats.publish(this.subject);
      await this.#nats.flush();
      return (await serve.received()) > 0;
    });
  }

  /** Publishes so many, and resolves when each of the processes has them. */
  async publishFor(serves: readonly ServeProcess[], count: number, bytes?: number): Promise<void> {
    const before = await Promise.all(serves.map((serve) => serve.received()));
    await this.publish(count, 20_000, bytes);
    await eventually("they are received", async () => {
      const now = await Promise.all(serves.map((serve) => serve.received()));
      return now.every((messages, at) => messages - before[at]! >= count);
    });
  }

  /** Number of messages in the table of those that were received and not run. */
  async saved(): Promise<number> {
    const rows = await this.query<{ n: number }>(
      "SELECT count(*)::integer AS n FROM hawser_bridge_data.saved_messages",
    ).catch(() => []);
    return rows[0]?.n ?? Number.NaN;
  }

  /** Waits until each of the messages has run, and none is in the table, and looks at everything. */
  async finish(limitMs = 150_000): Promise<Findings> {
    const isDone = async (): Promise<boolean> => {
      // Counting all rows is slow and would take CPU time from the functions, so the sequence is checked first.
      if ((await effectsSoFar(this.databaseUrl)) < this.published) return await delay(200, false);
      const sql = "SELECT count(DISTINCT id)::integer AS n FROM done WHERE consumer = 'slow'";
      const rows = await this.query<{ n: number }>(sql).catch(() => []);
      return rows[0]?.n === this.published && (await this.saved()) === 0;
    };
    await eventually("all have run, and none is left in the table", isDone, limitMs);
    const sent = Array.from({ length: this.published }, (_, index) => {
      return { id: `${index + 1}`, consumers: ["slow"], lane: "numbers" };
    });
    return audit(sent, await readDone(this.databaseUrl, "d.consumer = 'slow'"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ends();
    await this.#nats.close();
  }
}
