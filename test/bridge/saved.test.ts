/**
 * Messages that a process has received and not run at its end are not lost: the next process runs them first.
 */
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { type HawserServer, type ServeOptions, serve as startServer } from "../../src/nats/serve/index.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { withEnoughTime } from "../support/timers.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";
import {
  bufferBytes,
  lock,
  numbers,
  overloadLosesNothing,
  queuedBytes,
  receivedBy,
  takeSql,
  upTo,
} from "./support/overload.js";

/** Publishes so many, and waits until the process has them. */
async function publish(world: BridgeWorld, subject: string, from: number, to: number): Promise<void> {
  for (let n = from; n <= to; n += 1) world.nats.publish(subject, `${n}`);
  await world.nats.flush();
}

/** `subscribe` sends one, and returns when the NATS server has it. */
const probe = 1;

/** Locks what the function reads, once the probe has run. */
async function lockAfterProbe(world: BridgeWorld): Promise<pg.Client> {
  await eventually("the probe has run", async () => {
    return (await receivedBy(world.serve)) === probe && (await queuedBytes(world)) === 0;
  });
  return await lock(world);
}

const start = (world: BridgeWorld, options: Pick<ServeOptions, "bufferBytes"> = {}) =>
  startServer({
    ...options,
    databaseUrl: world.database.url,
    listen: "127.0.0.1:0",
    monitor: "127.0.0.1:0",
    stopTimeoutMs: 2_000,
  });

/** Age of the oldest message, in seconds. */
async function lagOf(serve: HawserServer): Promise<number> {
  const metrics = await (await fetch(`http://${serve.monitorAddress}/metrics`)).text();
  const ages = [...metrics.matchAll(/^hawser_bridge_oldest_message_age_seconds\{.*\} (\S+)/gm)];
  return Math.max(0, ...ages.map(([, age]) => Number(age)));
}

describe("a process that ends alone while its function waits for a lock", () => {
  it("saves what it has received; the next one runs that first, in order, and nothing is left in the table", async () => {
    // Within its deadline it has to write them.
    const { world, subject, locked } = await withEnoughTime(1_000, async (stopTimeoutMs) => {
      const world = await bridgeWorld({ sql: takeSql, stopTimeoutMs, monitor: "127.0.0.1:0" });
      onTestFinished(() => world[Symbol.asyncDispose]());
      const subject = `${world.prefix}.alone`;
      await world.subscribe(subject, "take(bytea)");
      const locked = await lockAfterProbe(world);
      await publish(world, subject, 1, 500);
      await eventually("it has received them", async () => (await receivedBy(world.serve)) === probe + 500);
      await world.serve.stop();
      const saved = "saved messages that were received and not run; the next leader runs them";
      if (world.log.messages("info").includes(saved)) return { world, subject, locked };
      await locked.end();
      return undefined;
    });
    expect(await world.count("SELECT count(*) FROM hawser_bridge_data.saved_messages")).toBe(500);
    await using next = await start(world);
    await eventually("what waits in the table counts for the lag", async () => (await lagOf(next)) >= 1);
    await locked.query("ROLLBACK");
    await locked.end();
    await world.live(subject);
    await publish(world, subject, 501, 600);
    await eventually("the last one has run", async () => (await numbers(world)).includes(600));
    expect(next.gatewayUrl).not.toBe("");
    expect(await numbers(world)).toEqual(upTo(600));
    await world.counts(0, "SELECT count(*) FROM hawser_bridge_data.saved_messages");
  });

  slowIt("logs what is lost by subject if Postgres is unavailable", async () => {
    await using world = await bridgeWorld({ sql: takeSql, stopTimeoutMs: 1_500, monitor: "127.0.0.1:0" });
    const subject = `${world.prefix}.away`;
    await world.subscribe(subject, "take(bytea)");
    const locked = await lockAfterProbe(world);
    await publish(world, subject, 1, 20);
    await eventually("it has received them", async () => (await receivedBy(world.serve)) === probe + 20);
    await locked.query("SELECT 1");
    const other = new pg.Client(world.database.url);
    await other.connect();
    await other.query("BEGIN; LOCK TABLE hawser_bridge_data.saved_messages");
    await world.serve.stop();
    const [line] = world.log.lines.filter(({ level }) => level === "error");
    expect(line?.message).toContain("could neither be run nor saved before the deadline");
    expect(line?.details).toMatchObject({ lost: 20, bySubject: { [subject]: 20 } });
    await other.end();
    await locked.end();
  });
});

it("a saved message that fails becomes a dead letter and leaves the table; only who has the token deletes others", async () => {
  await using world = await bridgeWorld({
    sql: `CREATE FUNCTION refuse(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN IF payload = 'bad' THEN RAISE EXCEPTION 'bad' USING ERRCODE = 'ZZ001'; END IF; END $$`,
  });
  const subject = `${world.prefix}.refused`;
  await world.subscribe(subject, "refuse(bytea)");
  await world.serve.stop();
  const [handler] = await world.rows<{ id: string; token: Buffer }>(
    "SELECT id, token FROM hawser_bridge_data.nats_handlers WHERE subject = $1",
    [subject],
  );
  const save = (payload: string) =>
    world.value<string>(
      `INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, message_id)
       VALUES ($1, $2, convert_to($3, 'UTF8'), $3) RETURNING id`,
      [handler!.id, subject, payload],
    );
  const left = async (id: string, token: Buffer) => {
    await world.value("SELECT state FROM hawser.mark_handled($1, $3, '{}', $2, NULL, NULL, NULL, NULL, NULL, NULL)", [
      ...[handler!.id, [id], token],
    ]);
    return await world.count("SELECT count(*) FROM hawser_bridge_data.saved_messages");
  };
  const id = await save("good");
  expect(await left(id, Buffer.from("wrong"))).toBe(1);
  expect(await left(id, handler!.token)).toBe(0);
  for (const payload of ["one", "bad", "two"]) await save(payload);
  await using next = await start(world);
  expect(next.gatewayUrl).not.toBe("");
  await world.counts(0, "SELECT count(*) FROM hawser_bridge_data.saved_messages");
  expect(await world.rows("SELECT convert_from(payload, 'UTF8') AS payload FROM hawser_data.dead_letters")).toEqual([
    { payload: "bad" },
  ]);
});

it("a process reads of the saved messages no more at once than a small part of its memory has room for", async () => {
  await using world = await bridgeWorld({ sql: takeSql });
  const subject = `${world.prefix}.page`;
  await world.subscribe(subject, "take(bytea)");
  await world.serve.stop();
  await world.rows(
    `INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, message_id)
     SELECT h.id, h.subject, convert_to(rpad(n::text, 5000), 'UTF8'), n::text
       FROM hawser_bridge_data.nats_handlers AS h, generate_series(1, 100) AS n WHERE h.subject = $1`,
    [subject],
  );
  const locked = await lock(world);
  await using next = await start(world, { bufferBytes });
  let bytes = 0;
  await eventually("it has read some", async () => (bytes = await queuedBytes({ serve: next })) > 0);
  expect(bytes).toBeLessThan(bufferBytes / 16);
  await locked.query("ROLLBACK");
  await locked.end();
  await eventually("the last one has run", async () => (await numbers(world)).includes(100));
  expect(await numbers(world)).toEqual(upTo(100));
});

describe("a function that is slower than its messages arrive", () => {
  it("loses nothing: the table takes what memory has no room for, and all is run in order", () =>
    overloadLosesNothing({ messages: 60, messageBytes: 40_000 }));
});
