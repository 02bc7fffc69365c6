/**
 * Functions whose parameters are arrays: called once for a batch, which is halved until a message that fails is alone.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let manager: JetStreamManager;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE got (id bigserial, call bigint, who text DEFAULT current_user, payload text, subject text, headers jsonb);
      CREATE SEQUENCE calls;
      CREATE FUNCTION one(payloads bytea[]) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got (call, payload) SELECT nextval('calls'), convert_from(p, 'UTF8') FROM unnest(payloads) AS p WHERE p <> ''$$;
      CREATE FUNCTION two(payloads bytea[], subjects text[]) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        call bigint := nextval('calls');
      BEGIN
        IF EXISTS (SELECT FROM unnest(payloads) AS p WHERE convert_from(p, 'UTF8') ~ '^bad') AND NOT EXISTS (SELECT FROM got WHERE payload = 'mercy') THEN
          RAISE EXCEPTION 'a bad one' USING ERRCODE = 'ZZ001';
        END IF;
        INSERT INTO got (call, payload, subject)
          SELECT call, convert_from(m.p, 'UTF8'), m.s FROM unnest(payloads, subjects) AS m (p, s) WHERE m.p <> '';
      END $$;
      CREATE FUNCTION three(payloads bytea[], subjects text[], headers jsonb[]) RETURNS void LANGUAGE sql AS $$
        INSERT INTO got (call, payload, subject, headers)
          SELECT nextval('calls'), convert_from(m.p, 'UTF8'), m.s, m.h FROM unnest(payloads, subjects, headers) AS m (p, s, h) WHERE m.p <> ''$$;
      CREATE FUNCTION boast(payloads bytea[]) RETURNS void IMMUTABLE LANGUAGE plpgsql
        AS $$BEGIN RAISE EXCEPTION 'called with %', payloads; END$$;
      CREATE FUNCTION mixed(payloads bytea[], subject text) RETURNS void LANGUAGE sql AS 'SELECT';
    `,
  });
  manager = await jetstreamManager(world.nats);
});
afterAll(async () => world?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await world.client.query("TRUNCATE got");
});

const isDone = (subject: string, count: number) =>
  world.counts(count, `SELECT count(*) FROM got WHERE subject = '${subject}'`);
const order = (subject: string) =>
  world.value<string[]>("SELECT array_agg(payload ORDER BY id) FROM got WHERE subject = $1", [subject]);
const letters = (subject: string) =>
  world.rows(
    "SELECT id, convert_from(payload, 'UTF8') AS payload, source, error_code FROM hawser_data.dead_letters WHERE topic = $1",
    [subject],
  );
const numbered = (count: number) => Array.from({ length: count }, (_, n) => String(n));

describe("a function of arrays", () => {
  it("gets payloads, subjects and headers, those of each message at the same place", async () => {
    const base = `${world.prefix}.forms`;
    const targets = ["one(bytea[])", "two(bytea[], text[])", "three(bytea[], text[], jsonb[])"];
    for (const target of targets) await world.subscribe(`${base}.*`, target, `${base}.a`);
    await world.client.query("SELECT litmus_pgnats_reload_conf()");
    const given = headers();
    given.append("Tag", "x");
    world.nats.publish(`${base}.a`, "first", { headers: given });
    world.nats.publish(`${base}.b`, "second");
    await world.counts(6, "SELECT count(*) FROM got");
    expect(await world.rows("SELECT payload, subject, headers FROM got ORDER BY payload, subject, headers")).toEqual([
      { payload: "first", subject: `${base}.a`, headers: { Tag: ["x"] } },
      { payload: "first", subject: `${base}.a`, headers: null },
      { payload: "first", subject: null, headers: null },
      { payload: "second", subject: `${base}.b`, headers: null },
      { payload: "second", subject: `${base}.b`, headers: null },
      { payload: "second", subject: null, headers: null },
    ]);
  });

  it("is called once for many, and a message that fails becomes a dead letter alone; all others are done in order", async () => {
    const subject = `${world.prefix}.poison`;
    await world.subscribe(subject, "two(bytea[], text[])");
    await world.client.query("ALTER SEQUENCE calls RESTART");
    for (let n = 0; n < 1500; n++) world.nats.publish(subject, n === 987 ? "bad" : String(n));
    await isDone(subject, 1499);
    await eventually("it is dead", async () => (await letters(subject)).length === 1);
    expect(await order(subject)).toEqual(numbered(1500).filter((n) => n !== "987"));
    expect(await letters(subject)).toMatchObject([
      { payload: "bad", source: "public.two(bytea[], text[])", error_code: "ZZ001" },
    ]);
    expect(Number(await world.value("SELECT last_value FROM calls"))).toBeLessThan(400);
  });

  it("gets a dead letter that is retried, alone", async () => {
    const subject = `${world.prefix}.retried`;
    await world.subscribe(subject, "two(bytea[], text[])");
    world.nats.publish(subject, "bad");
    await eventually("it is dead", async () => (await letters(subject)).length === 1);
    await world.client.query("INSERT INTO got (payload) VALUES ('mercy')");
    const store = await openStore({ databaseUrl: world.database.url });
    await store.deadLetters.retry({ ids: [Number((await letters(subject))[0]!["id"])] });
    await store.close();
    await isDone(subject, 1);
    await world.client.query("DELETE FROM got WHERE payload = 'mercy'");
    expect(await letters(subject)).toEqual([]);
  });

  it("runs as the role that subscribed", async () => {
    const user = await world.user();
    const subject = `${world.prefix}.role`;
    await user.client.query(`
      CREATE TABLE mine (who text DEFAULT current_user, payload bytea);
      CREATE FUNCTION mine(payloads bytea[]) RETURNS void LANGUAGE sql AS 'INSERT INTO mine (payload) SELECT unnest(payloads)'`);
    await user.client.query("SELECT nats_subscribe($1, 'mine')", [subject]);
    await world.live(subject);
    await eventually(
      "it has run",
      async () => (await user.client.query("SELECT FROM mine WHERE who = $1", [user.role])).rowCount! > 0,
    );
  });

  it("is not called without the token, nor without messages, whatever it says of itself", async () => {
    const subject = `${world.prefix}.token`;
    await world.client.query("SELECT nats_subscribe($1, 'boast')", [subject]);
    const [row] = await world.rows<{ wrapper: string; token: Buffer }>(
      "SELECT wrapper, token FROM hawser_bridge_data.nats_handlers WHERE subject = $1",
      [subject],
    );
    const call = (token: Buffer, lengths: string) =>
      world.value(
        `SELECT hawser_run."${row!.wrapper}"(NULL, $1::bytea, 'x'::bytea, $2::integer[], $2::integer[], NULL, NULL, $2::text[])`,
        [token, lengths],
      );
    expect(Number(await call(Buffer.from("wrong"), "{1}"))).toBe(0);
    expect(Number((await call(row!.token, "{}")) ?? 0)).toBe(0);
    await expect(call(row!.token, "{1}")).rejects.toThrow("called with");
    await world.client.query("SELECT nats_unsubscribe($1, 'boast')", [subject]);
  });

  it("is refused if arrays and single values are mixed", async () => {
    await expect(world.client.query("SELECT nats_subscribe('a', 'mixed')")).rejects.toMatchObject({
      code: "42883",
      hint: expect.stringContaining("(payloads bytea[], subjects text[], headers jsonb[])"),
    });
  });

  it("takes a stream exactly once, with the position in the same transaction", async () => {
    const name = world.prefix;
    await manager.streams.add({ name, subjects: [`${name}.in`] });
    const publisher = jetstream(world.nats);
    await Promise.all(numbered(1000).map((n) => publisher.publish(`${name}.in`, n === "432" ? "bad" : n)));
    await world.client.query("SELECT nats_subscribe_stream($1, 'two', $1)", [name]);
    await isDone(`${name}.in`, 999);
    await world.counts(1000, `SELECT done_to FROM hawser.stream_status WHERE name = '${name}'`);
    expect(await order(`${name}.in`)).toHaveLength(999);
    expect(await letters(`${name}.in`)).toMatchObject([{ payload: "bad", error_code: "ZZ001" }]);
    await world.client.query("SELECT nats_unsubscribe_stream($1)", [name]);
  });
});
