/**
 * What a process has received and not run when it ends is not lost: the next one runs it first.
 */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

const sql = `
  CREATE TABLE ran (id bigserial, n int);
  CREATE TABLE gate (open bool);
  INSERT INTO gate VALUES (true);
  CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF payload = '' THEN RETURN; END IF;
    PERFORM FROM gate;
    INSERT INTO ran (n) VALUES (convert_from(payload, 'UTF8')::int);
  END $$`;

/** Publishes so many, and waits until the process has them. */
async function publish(world: BridgeWorld, subject: string, from: number, to: number): Promise<void> {
  for (let n = from; n <= to; n += 1) world.nats.publish(subject, `${n}`);
  await world.nats.flush();
}

/** A session in which the table that the function reads is locked. */
async function lock(world: BridgeWorld): Promise<pg.Client> {
  const client = new pg.Client(world.database.url);
  client.on("error", () => undefined);
  await client.connect();
  await client.query("BEGIN; LOCK TABLE gate");
  return client;
}

const start = (world: BridgeWorld) =>
  Serve.start({
    databaseUrl: world.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
    stopDeadlineMs: 2_000,
  });

const numbers = async (world: BridgeWorld) =>
  (await world.rows<{ n: number }>("SELECT n FROM ran ORDER BY id")).map(({ n }) => n);
const upTo = (last: number) => Array.from({ length: last }, (_, at) => at + 1);

async function receivedBy(serve: Serve): Promise<number> {
  const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  return [...metrics.matchAll(/^hawser_bridge_messages_received_total\{.*\} (\d+)/gm)].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

/** Of its oldest message, in seconds. */
async function lagOf(serve: Serve): Promise<number> {
  const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  const ages = [...metrics.matchAll(/^hawser_bridge_oldest_message_age_seconds\{.*\} (\S+)/gm)];
  return Math.max(0, ...ages.map(([, age]) => Number(age)));
}

describe("a process that ends alone while its function waits for a lock", () => {
  it("saves what it has received; the next one runs that first, in order, and nothing is left in the table", async () => {
    await using world = await bridgeWorld({ sql, stopDeadlineMs: 1_000, monitorListen: "127.0.0.1:0" });
    const subject = `${world.prefix}.alone`;
    await world.subscribe(subject, "take(bytea)");
    const before = await receivedBy(world.serve);
    const locked = await lock(world);
    await publish(world, subject, 1, 500);
    await eventually("it has received them", async () => (await receivedBy(world.serve)) === before + 500);
    await world.serve.stop();
    expect(world.log.messages("info")).toContain(
      "saved messages that were received and not run: the next leader runs them",
    );
    expect(await world.count("SELECT count(*) FROM hawser.saved_messages")).toBe(500);
    await using next = await start(world);
    await eventually("what waits in the table counts for the lag", async () => (await lagOf(next)) >= 1);
    await locked.query("ROLLBACK");
    await locked.end();
    await world.live(subject);
    await publish(world, subject, 501, 600);
    await eventually("the last one has run", async () => (await numbers(world)).includes(600));
    expect(next.gatewayUrl).not.toBe("");
    expect(await numbers(world)).toEqual(upTo(600));
    await eventually(
      "the table is empty",
      async () => (await world.count("SELECT count(*) FROM hawser.saved_messages")) === 0,
    );
  });

  it("where Postgres is away says what is lost, by subject", async () => {
    await using world = await bridgeWorld({ sql, stopDeadlineMs: 1_500, monitorListen: "127.0.0.1:0" });
    const subject = `${world.prefix}.away`;
    await world.subscribe(subject, "take(bytea)");
    const before = await receivedBy(world.serve);
    const locked = await lock(world);
    await publish(world, subject, 1, 20);
    await eventually("it has received them", async () => (await receivedBy(world.serve)) === before + 20);
    await locked.query("SELECT 1");
    const other = new pg.Client(world.database.url);
    await other.connect();
    await other.query("BEGIN; LOCK TABLE hawser.saved_messages");
    await world.serve.stop();
    const [line] = world.log.lines.filter(({ level }) => level === "error");
    expect(line?.message).toContain("could neither be run nor saved before the end");
    expect(line?.details).toMatchObject({ lost: 20, bySubject: { [subject]: 20 } });
    await other.end();
    await locked.end();
  });
});

describe("a function that is slower than its messages arrive", () => {
  const slow = sql.replace("PERFORM FROM gate;", "PERFORM pg_sleep(0.0002);");
  /** Memory is full soon. */
  const messageBytes = 1_000;

  const metricsOf = async ({ serve }: BridgeWorld) => (await fetch(`http://${serve.monitorAddress}/metrics`)).text();

  /** As fast as memory allows, of which the table takes what is over half of it. */
  async function overload(world: BridgeWorld, subject: string, messages: number): Promise<void> {
    const queued = async () => Number(/^hawser_bridge_queue_bytes\{.*\} (\d+)/m.exec(await metricsOf(world))?.[1]);
    const before = await receivedBy(world.serve);
    for (let n = 1; n <= messages; n += 1) {
      world.nats.publish(subject, `${n}`.padEnd(messageBytes));
      if (n % 100 > 0) continue;
      await world.nats.flush();
      await eventually("they are there", async () => (await receivedBy(world.serve)) >= before + n);
      await eventually("there is room", async () => (await queued()) < 550_000);
    }
    await world.nats.flush();
  }

  /** Faster than that. */
  async function flood(world: BridgeWorld, subject: string, messages: number): Promise<void> {
    for (let n = 1; n <= messages; n += 1) {
      world.nats.publish(subject, `${n}`.padEnd(messageBytes));
      if (n % 100 > 0) continue;
      await world.nats.flush();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  it("loses nothing: the table takes what memory has no room for, and all is run in order", async () => {
    await using world = await bridgeWorld({ sql, bufferBytes: 1_048_576, monitorListen: "127.0.0.1:0" });
    const subject = `${world.prefix}.slow`;
    await world.subscribe(subject, "take(bytea)");
    const messages = 1_200;
    const locked = await lock(world);
    await overload(world, subject, messages);
    expect(await world.count("SELECT count(*) FROM hawser.saved_messages")).toBeGreaterThan(0);
    const metrics = await metricsOf(world);
    expect(metrics).toMatch(/^hawser_bridge_saved_messages\{.*\} [1-9]/m);
    expect(metrics).toMatch(/^hawser_bridge_saved_bytes\{.*\} [1-9]/m);
    await locked.query("ROLLBACK");
    await locked.end();
    await eventually("the last one has run", async () => (await world.count(lastIs(messages))) > 0, 60_000);
    expect(await numbers(world)).toEqual(upTo(messages));
    await eventually("the table is empty", async () => (await world.count(waiting)) === 0);
    expect(world.log.messages("error")).toEqual([]);
  });

  it("and no room in the table either: what was run and what was counted is what was published", async () => {
    const options = { bufferBytes: 1_048_576, savedBytes: 300_000, monitorListen: "127.0.0.1:0" };
    await using world = await bridgeWorld({ sql: slow, ...options });
    const subject = `${world.prefix}.full`;
    await world.subscribe(subject, "take(bytea)");
    const messages = 2_000;
    await flood(world, subject, messages);
    const bytes = await world.count(
      "SELECT sum(octet_length(payload) + octet_length(subject) + 256) FROM hawser.saved_messages",
    );
    expect(bytes).toBeGreaterThan(150_000);
    expect(bytes).toBeLessThanOrEqual(300_000);
    await world.nats.flush();
    const discarded = async () => {
      const metrics = await metricsOf(world);
      return Number(/^hawser_bridge_messages_discarded_total\{.*buffer_full.*\} (\d+)/m.exec(metrics)?.[1]);
    };
    await eventually(
      "nothing waits",
      async () => {
        return (await world.count("SELECT count(*) FROM ran")) + (await discarded()) === messages;
      },
      60_000,
    );
    const ran = await numbers(world);
    expect(ran).toEqual([...ran].sort((one, other) => one - other));
    expect(new Set(ran).size).toBe(messages - (await discarded()));
    expect(await discarded()).toBeGreaterThan(0);
    // It says so, now and then, and at its end.
    await world.serve.stop();
    const said = world.log.lines.findLast(({ details }) => (details as { inAll?: number }).inAll !== undefined);
    expect(said).toMatchObject({ level: "error", details: { bySubject: { [subject]: expect.any(Number) } } });
  });
});

const waiting = "SELECT count(*) FROM hawser.saved_messages";
const lastIs = (n: number) => `SELECT count(*) FROM ran WHERE n = ${n}`;

it("a role whose function is too slow leaves room in the table for the messages of the others", async () => {
  const mib = 1_048_576;
  await using world = await bridgeWorld({
    bufferBytes: mib,
    savedBytes: 4 * mib,
    sql: `
      CREATE TABLE ran (n int, who text);
      CREATE TABLE gate (open bool);
      GRANT INSERT ON ran TO PUBLIC; GRANT SELECT ON gate TO PUBLIC;
      CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF payload = '' THEN RETURN; END IF;
        PERFORM FROM public.gate;
        INSERT INTO public.ran VALUES (convert_from(payload, 'UTF8')::int, current_user);
      END $$`,
  });
  const [greedy, other] = [await world.user(), await world.user()];
  const subjects = { greedy: `${world.prefix}.greedy`, other: `${world.prefix}.other` };
  await greedy.client.query("SELECT nats_subscribe($1, 'public.take(bytea)'::regprocedure)", [subjects.greedy]);
  await other.client.query("SELECT nats_subscribe($1, 'public.take(bytea)'::regprocedure)", [subjects.other]);
  for (const subject of Object.values(subjects)) await world.live(subject);
  const locked = await lock(world);
  const publish = async (subject: string, messages: number) => {
    for (let n = 1; n <= messages; n += 1) {
      world.nats.publish(subject, `${n}`.padEnd(1_000));
      if (n % 20 > 0) continue;
      await world.nats.flush();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  // Far more than there is room for; and 350 messages, which are a tenth of it.
  await publish(subjects.greedy, 6_000);
  await publish(subjects.other, 350);
  await locked.query("ROLLBACK");
  await locked.end();
  const ran = `SELECT count(DISTINCT n) FROM ran WHERE who = '${other.role}'`;
  await eventually("all of the other one's have run", async () => (await world.count(ran)) === 350);
});
