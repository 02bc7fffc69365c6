/**
 * What was received is not lost by a restart in order, by a function that is too slow, nor by what happens to processes and to
 * Postgres while it is saved and read back. One subscription, numbered messages, and a table that shows the order of the runs.
 */
import { setTimeout as delay } from "node:timers/promises";
import { connect, type NatsConnection, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import { ServeProcess } from "./support/serve-process.js";
import { sqlDatabase } from "./support/sql-database.js";

/** A subscription whose function takes its time, and a publisher for it. */
class SlowFunction implements AsyncDisposable {
  readonly subject = `saved.${nuid.next()}`;
  published = 0;
  #publishing: Promise<void> | undefined;
  #isOver = false;

  private constructor(
    readonly databaseUrl: string,
    private readonly nats: NatsConnection,
  ) {}

  /** @param takesMs for each message */
  static async make(databaseUrl: string, takesMs: number): Promise<SlowFunction> {
    const made = new SlowFunction(databaseUrl, await connect({ servers: testNatsUrl() }));
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

  async query<Row extends object>(sql: string): Promise<Row[]> {
    const client = new pg.Client(this.databaseUrl);
    client.on("error", () => undefined);
    await client.connect();
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

  /** Publishes so many, evenly. */
  async publish(count: number, perSecond: number): Promise<void> {
    const began = performance.now();
    for (let made = 0; made < count && !this.#isOver; ) {
      const size = Math.min(count - made, Math.max(1, Math.ceil(perSecond / 100)));
      for (let n = 0; n < size; n += 1) this.nats.publish(this.subject, `${(this.published += 1)}`.padEnd(100));
      made += size;
      await this.nats.flush();
      await delay(Math.max(0, began + (made / perSecond) * 1_000 - performance.now()));
    }
  }

  /** Publishes something that counts for nothing. */
  async probe(): Promise<void> {
    this.nats.publish(this.subject);
    await this.nats.flush();
  }

  /** Publishes until {@link ends}. */
  begin(perSecond: number): void {
    this.#publishing = this.publish(Number.POSITIVE_INFINITY, perSecond);
  }

  async ends(): Promise<void> {
    this.#isOver = true;
    await this.#publishing;
    this.#isOver = false;
  }

  async waiting(): Promise<number> {
    return this.count("SELECT count(*) FROM hawser.saved_messages");
  }

  /** Resolves when so many different messages have run, and none more does. */
  async done(limitMs: number): Promise<void> {
    await eventually(
      "the last one has run",
      async () => (await this.count(`SELECT count(*) FROM ran WHERE n = ${this.published}`)) > 0,
      limitMs,
    );
    await eventually("the table is empty", async () => (await this.waiting()) === 0, limitMs);
  }

  /** What became of them: those that were never run, the number of second runs, and those that first ran behind a later one. */
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
    const client = new pg.Client(this.databaseUrl);
    client.on("error", () => undefined);
    await client.connect();
    await client.query("BEGIN; LOCK TABLE gate");
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ends();
    await this.nats.close();
  }
}

const received = (serve: ServeProcess) => serve.metric("hawser_bridge_messages_received_total");

const monitored = ["--monitor-listen", "127.0.0.1:0"];

/** Tells it to end, and resolves when it has. */
async function stop(serve: ServeProcess): Promise<void> {
  serve.signal("SIGTERM");
  const { status, stderr } = await serve.ended;
  expect({ status, stderr }).toMatchObject({ status: 0 });
}

/** Resolves when it is subscribed at NATS: a message of those that are being published has come. */
const hears = (serve: ServeProcess) => eventually("it receives", async () => (await received(serve)) > 0, 30_000);

/** Starts processes one after another, until each receives. Publishes for it. */
async function start(slow: SlowFunction, count: number, flags: readonly string[] = []): Promise<ServeProcess[]> {
  const serves: ServeProcess[] = [];
  for (let n = 0; n < count; n += 1) serves.push(await ServeProcess.start(slow.databaseUrl, [...monitored, ...flags]));
  await eventually("all receive", async () => {
    await slow.probe();
    return (await Promise.all(serves.map(received))).every((messages) => messages > 0);
  });
  return serves;
}

const nothingWrong = { missing: 0, disordered: 0 };
const rounds = Math.max(1, atDepth(10));

describe("a restart in order while a backlog stands", () => {
  it(`of three processes, one after the other, ${rounds} times at 2,000 messages/s and 2 ms for each, loses nothing and keeps the order`, {
    timeout: patienceMs + rounds * 300_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    const serves = await start(slow, 3);
    slow.begin(2_000);
    for (let round = 0; round < rounds; round += 1) {
      for (const serve of serves) {
        await delay(1_000);
        await stop(serve);
        await serve.start();
        await hears(serve);
      }
    }
    await slow.ends();
    await slow.done(60_000 + slow.published * 5);
    const audit = await slow.audit();
    console.log(`rolling restart, ${rounds} rounds: ${slow.published} messages, ${JSON.stringify(audit)}`);
    expect(audit).toMatchObject(nothingWrong);
  });

  it(`of a process that is alone, ${rounds} times, loses nothing that it had received`, {
    timeout: patienceMs + rounds * 60_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    const [serve] = (await start(slow, 1)) as [ServeProcess];
    for (let round = 0; round < rounds; round += 1) {
      const before = (await received(serve)) - slow.published;
      await slow.publish(4_000, 2_000);
      await eventually("it has received them", async () => (await received(serve)) - before >= slow.published, 30_000);
      await stop(serve);
      expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
      await serve.start();
      await eventually("it receives", async () => {
        await slow.probe();
        return (await received(serve)) > 0;
      });
    }
    await slow.done(60_000 + slow.published * 5);
    const audit = await slow.audit();
    console.log(`restarted alone, ${rounds} rounds: ${slow.published} messages, ${JSON.stringify(audit)}`);
    expect(audit).toMatchObject(nothingWrong);
  });
});

describe("messages that come ten times as fast as they can be run", () => {
  const seconds = Math.max(3, atDepth(60));
  const messages = seconds * 20_000;

  it(`(20,000/s for ${seconds} s) are all run, in order, with room in the table`, {
    timeout: patienceMs + messages * 4,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    const [serve] = (await start(slow, 1, atDepth(10) < 10 ? ["--buffer-bytes", "4194304"] : [])) as [ServeProcess];
    await slow.publish(messages, 20_000);
    const saved = await serve.metric("hawser_bridge_saved_messages");
    await slow.done(60_000 + messages * 3);
    const audit = await slow.audit();
    console.log(`overload: ${messages} messages, ${saved} in the table at the end, ${JSON.stringify(audit)}`);
    expect(saved).toBeGreaterThan(0);
    expect(audit).toEqual({ ...nothingWrong, repeated: 0 });
    expect(await serve.metric("hawser_bridge_messages_discarded_total")).toBe(0);
  });

  it("are run or counted, exactly, where the table may have 64 MiB", {
    timeout: patienceMs + messages * 4,
  }, async () => {
    const isFull = atDepth(10) >= 10;
    const [buffer, table] = isFull ? [67_108_864, 67_108_864] : [4_194_304, 4_194_304];
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    const limits = ["--buffer-bytes", `${buffer}`, "--saved-bytes", `${table}`];
    const [serve] = (await start(slow, 1, limits)) as [ServeProcess];
    await slow.publish(messages, 20_000);
    const discarded = () => serve.metric("hawser_bridge_messages_discarded_total");
    const ran = () => slow.count("SELECT count(*) FROM ran");
    await eventually(
      "each is run or counted",
      async () => (await ran()) + (await discarded()) === messages,
      60_000 + messages * 3,
    );
    const audit = await slow.audit();
    console.log(
      `overload with ${table} bytes: ${messages} messages, ${await discarded()} discarded, ${JSON.stringify(audit)}`,
    );
    expect(audit).toEqual({ missing: await discarded(), disordered: 0, repeated: 0 });
    expect(audit.missing).toBeGreaterThan(0);
  });
});
