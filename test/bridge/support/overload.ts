/**
 * Overload of a subscription: more comes than its function can take, so that messages go to the table. With few large
 * messages for the fast tests, with many small ones for the slow.
 */
import pg from "pg";
import { expect } from "vitest";
import type { HawserServer } from "../../../src/nats/serve/index.js";
import { eventually } from "../../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./bridge-world.js";

/** The function reads a table that a test can lock. */
export const takeSql = `
  CREATE TABLE ran (id bigserial, n int);
  CREATE TABLE gate (open bool);
  INSERT INTO gate VALUES (true);
  CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF payload = '' THEN RETURN; END IF;
    PERFORM FROM gate;
    INSERT INTO ran (n) VALUES (convert_from(payload, 'UTF8')::int);
  END $$`;

/** A session in which the table that the function reads is locked. */
export async function lock(world: BridgeWorld): Promise<pg.Client> {
  const client = new pg.Client(world.database.url);
  client.on("error", () => undefined);
  await client.connect();
  await client.query("BEGIN; LOCK TABLE gate");
  return client;
}

export const numbers = async (world: BridgeWorld) =>
  (await world.rows<{ n: number }>("SELECT n FROM ran ORDER BY id")).map(({ n }) => n);
export const upTo = (last: number) => Array.from({ length: last }, (_, at) => at + 1);

export async function receivedBy(serve: HawserServer): Promise<number> {
  const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  return [...metrics.matchAll(/^hawser_bridge_messages_received_total\{.*\} (\d+)/gm)].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

export const metricsOf = async ({ serve }: Pick<BridgeWorld, "serve">) =>
  (await fetch(`http://${serve.monitorAddress}/metrics`)).text();

/** Size of the messages of all subscriptions that wait in memory. */
export async function queuedBytes(world: Pick<BridgeWorld, "serve">): Promise<number> {
  const values = [...(await metricsOf(world)).matchAll(/^hawser_bridge_queue_bytes\{.*\} (\d+)/gm)];
  return values.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}

/** Number and size of the messages. */
export interface Load {
  readonly messages: number;
  readonly messageBytes: number;
}

/** The least that there may be. */
export const bufferBytes = 1_048_576;
/** Longer than the function is held: what was tried in vain is tried with others, and what is being tried is not saved. */
export const subscriberTimeoutMs = 3_600_000;
const savedMessages = "SELECT count(*) FROM hawser_bridge_data.saved_messages";

/**
 * As fast as memory allows, of which the table takes what is over half of it. What is being tried stays in memory: the
 * first message alone, which waits for the lock before the others come.
 */
async function overload(world: BridgeWorld, subject: string, { messages, messageBytes }: Load): Promise<void> {
  const before = await receivedBy(world.serve);
  const together = Math.max(1, 100_000 / messageBytes);
  let published = 0;
  const publish = (payload: string): void => {
    world.nats.publish(subject, payload);
    published += 1;
  };
  for (let n = 1; n <= messages; n += 1) {
    publish(`${n}`.padEnd(messageBytes));
    if (n === 1) {
      await world.nats.flush();
      const waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass";
      await eventually("the first one waits", async () => (await world.count(waiting)) > 0);
    }
    if (n % together > 0) continue;
    await world.nats.flush();
    await eventually("they are there", async () => (await receivedBy(world.serve)) >= before + published);
    await eventually("there is room", async () => {
      if ((await queuedBytes(world)) < 550_000) return true;
      // A write to the table that was not possible a moment ago is tried again when more comes. The function skips this.
      publish("");
      await world.nats.flush();
      return false;
    });
  }
  await world.nats.flush();
}

/** The table takes what memory has no room for, and all is run in order. */
export async function overloadLosesNothing(load: Load): Promise<void> {
  await using world = await bridgeWorld({
    sql: takeSql,
    bufferBytes,
    subscriberTimeoutMs,
    monitor: "127.0.0.1:0",
  });
  const subject = `${world.prefix}.slow`;
  await world.subscribe(subject, "take(bytea)");
  const locked = await lock(world);
  await overload(world, subject, load);
  expect(await world.count(savedMessages)).toBeGreaterThan(0);
  const metrics = await metricsOf(world);
  expect(metrics).toMatch(/^hawser_bridge_saved_messages\{.*\} [1-9]/m);
  expect(metrics).toMatch(/^hawser_bridge_saved_bytes\{.*\} [1-9]/m);
  await locked.query("ROLLBACK");
  await locked.end();
  const last = `SELECT count(*) FROM ran WHERE n = ${load.messages}`;
  await eventually("the last one has run", async () => (await world.count(last)) > 0, 60_000);
  expect(await numbers(world)).toEqual(upTo(load.messages));
  await eventually("the table is empty", async () => (await world.count(savedMessages)) === 0);
  expect(world.log.messages("error")).toEqual([]);
}

/**
 * A role whose function is too slow leaves room in the table for the messages of the others.
 *
 * @param load far more than there is room for; the other role gets a twelfth of the room
 * @param savedBytes room in the table
 */
export async function slowRoleLeavesRoom({ messages, messageBytes }: Load, savedBytes: number): Promise<void> {
  const others = Math.floor(savedBytes / 12 / messageBytes);
  await using world = await bridgeWorld({
    bufferBytes,
    tuning: { savedBytes },
    subscriberTimeoutMs,
    monitor: "127.0.0.1:0",
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
  let published = await receivedBy(world.serve);
  const publish = async (subject: string, count: number, bytesAtOnce: number, hasRoom = async () => true) => {
    const together = Math.max(1, Math.floor(bytesAtOnce / messageBytes));
    for (let n = 1; n <= count; n += 1) {
      world.nats.publish(subject, `${n}`.padEnd(messageBytes));
      published += 1;
      if (n % together > 0 && n < count) continue;
      await world.nats.flush();
      await eventually("they are there", async () => (await receivedBy(world.serve)) >= published);
      await eventually("there is room", hasRoom);
    }
  };
  await publish(subjects.greedy, messages, bufferBytes / 10);
  await publish(subjects.other, others, 20_000, async () => {
    if ((await queuedBytes(world)) < 0.95 * bufferBytes) return true;
    // What could not be written a moment ago is tried again when more comes: for the greedy role, whose messages are
    // discarded now. Those of the other one would take up the room that it needs.
    world.nats.publish(subjects.greedy, "");
    published += 1;
    await world.nats.flush();
    return false;
  });
  await locked.query("ROLLBACK");
  await locked.end();
  const ran = `SELECT count(DISTINCT n) FROM ran WHERE who = '${other.role}'`;
  await eventually("all of the other one's have run", async () => (await world.count(ran)) === others);
}
