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

describe("a process that ends alone while its function waits for a lock", () => {
  it("saves what it has received; the next one runs that first, in order, and nothing is left in the table", async () => {
    await using world = await bridgeWorld({ sql, stopDeadlineMs: 2_000, monitorListen: "127.0.0.1:0" });
    const subject = `${world.prefix}.alone`;
    await world.subscribe(subject, "take(bytea)");
    const before = await receivedBy(world.serve);
    const locked = await lock(world);
    await publish(world, subject, 1, 500);
    await eventually("it has received them", async () => (await receivedBy(world.serve)) === before + 500);
    await world.serve.stop();
    expect(world.log.messages("info")).toContain(
      "saved messages that were received and not run: whoever leads next runs them",
    );
    expect(await world.count("SELECT count(*) FROM hawser.saved_messages")).toBe(500);
    await locked.query("ROLLBACK");
    await locked.end();
    await using next = await start(world);
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

it("three processes that are restarted one after the other while a backlog stands lose nothing and keep the order", async () => {
  await using world = await bridgeWorld({
    sql: sql.replace("PERFORM FROM gate;", "PERFORM pg_sleep(0.002);"),
    stopDeadlineMs: 2_000,
  });
  const subject = `${world.prefix}.rolling`;
  await world.subscribe(subject, "take(bytea)");
  let serves = [world.serve, await start(world), await start(world)];
  let published = 0;
  let isOver = false;
  const publishing = (async () => {
    while (!isOver) {
      await publish(world, subject, published + 1, published + 20);
      published += 20;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  for (const serve of [...serves]) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    await serve.stop();
    serves = [...serves.filter((one) => one !== serve), await start(world)];
  }
  isOver = true;
  await publishing;
  await eventually(
    "the last one has run",
    async () => (await world.count(`SELECT count(*) FROM ran WHERE n = ${published}`)) > 0,
    60_000,
  );
  const all = await numbers(world);
  const first = new Map<number, number>();
  for (const [at, n] of all.entries()) if (!first.has(n)) first.set(n, at);
  expect([...first.keys()]).toEqual(upTo(published));
  console.log(`rolling restart: ${published} messages, ${all.length - published} repeated`);
  await Promise.all(serves.map((serve) => serve.stop()));
});
