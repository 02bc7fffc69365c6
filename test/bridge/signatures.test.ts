/**
 * Messages as subscribed functions get them: payload, subject and headers, of any content.
 */
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { plainMessage, writeRaw } from "../support/raw-nats.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE got (id bigserial, fn text, payload bytea, subject text, headers jsonb);
      CREATE FUNCTION one(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got (fn, payload) SELECT 'one', payload WHERE payload <> ''$$;
      CREATE FUNCTION one_with_empty(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got (fn, payload) SELECT 'one', payload$$;
      CREATE FUNCTION two(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got (fn, payload, subject) SELECT 'two', payload, subject WHERE payload <> ''$$;
      CREATE FUNCTION three(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got (fn, payload, subject, headers) SELECT 'three', payload, subject, headers WHERE headers IS NULL OR NOT headers ? 'Probe'$$;
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const got = (number: number) =>
  eventually(`${number} calls are done`, async () => (await world.count("SELECT count(*) FROM got")) >= number);

async function fresh(...subscriptions: readonly (readonly [subject: string, target: string, probe?: string])[]) {
  await world.client.query("SELECT nats_unsubscribe(subject, callback::regprocedure) FROM pgnats.subscriptions");
  for (const one of subscriptions) await world.subscribe(...one);
  // Of several functions for one subject each has to be known.
  await world.client.query("SELECT litmus_pgnats_reload_conf()");
  await world.client.query("TRUNCATE got");
}

describe("the functions of a subject", () => {
  it("are all called for a message, in each of the signatures", async () => {
    const subject = `${world.prefix}.all`;
    await fresh([subject, "one(bytea)"], [subject, "two(bytea, text)"], [subject, "three(bytea, text, jsonb)"]);
    await world.live(subject);
    world.nats.publish(subject, "x");
    await got(3);
    expect(await world.rows("SELECT fn, payload, subject, headers FROM got ORDER BY fn")).toEqual([
      { fn: "one", payload: Buffer.from("x"), subject: null, headers: null },
      { fn: "three", payload: Buffer.from("x"), subject, headers: null },
      { fn: "two", payload: Buffer.from("x"), subject, headers: null },
    ]);
  });

  it("are called once for each of their subscriptions if these overlap", async () => {
    const base = `${world.prefix}.over`;
    const [star, all, exact] = [`${base}.*`, `${base}.>`, `${base}.a`];
    await fresh([star, "two(bytea, text)", exact], [all, "two(bytea, text)", `${base}.a.b`], [exact, "one(bytea)"]);
    await eventually("the exact one is there", async () => {
      world.nats.publish(exact, "probing");
      await world.nats.flush();
      return (await world.count("SELECT count(*) FROM got WHERE fn = 'one' AND payload = 'probing'")) > 0;
    });
    world.nats.publish(exact, "deep");
    world.nats.publish(`${base}.a.b`, "deeper");
    world.nats.publish(`${base}`, "outside");
    await eventually(
      "all are done",
      async () => (await world.count("SELECT count(*) FROM got WHERE payload <> 'probing'")) >= 4,
    );
    expect(
      await world.rows(
        "SELECT fn, convert_from(payload, 'UTF8') AS payload, subject FROM got WHERE payload <> 'probing' ORDER BY payload, fn",
      ),
    ).toEqual([
      { fn: "one", payload: "deep", subject: null },
      { fn: "two", payload: "deep", subject: exact },
      { fn: "two", payload: "deep", subject: exact },
      { fn: "two", payload: "deeper", subject: `${base}.a.b` },
    ]);
  });

  it("each get their messages in order", async () => {
    const base = `${world.prefix}.order`;
    await fresh([`${base}.*`, "one(bytea)", `${base}.x`], [`${base}.>`, "two(bytea, text)", `${base}.x.y`]);
    for (let n = 0; n < 1000; n++) world.nats.publish(`${base}.${n % 7}`, `${n}`);
    await got(2000);
    for (const fn of ["one", "two"]) {
      const order = await world.value(
        "SELECT array_agg(convert_from(payload, 'UTF8')::int ORDER BY id) FROM got WHERE fn = $1",
        [fn],
      );
      expect(order).toEqual(Array.from({ length: 1000 }, (_, n) => n));
    }
  });
});

describe("a payload", () => {
  it("may be empty, and is bytea then, not NULL", async () => {
    const subject = `${world.prefix}.empty`;
    await fresh([subject, "one_with_empty(bytea)"]);
    world.nats.publish(subject, "");
    await got(1);
    expect(await world.rows("SELECT DISTINCT payload FROM got")).toEqual([{ payload: Buffer.alloc(0) }]);
  });

  it("may be as large as NATS lets through, beside small ones in the same batch, and hold all bytes", async () => {
    const subject = `${world.prefix}.large`;
    await fresh([subject, "one(bytea)"]);
    const large = Buffer.alloc(1024 * 1024, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)));
    for (const payload of ["before", large, "between", large, "after"]) world.nats.publish(subject, payload);
    await got(5);
    const rows = await world.rows<{ payload: Buffer }>("SELECT payload FROM got ORDER BY id");
    expect(rows.map(({ payload }) => payload.length)).toEqual([6, large.length, 7, large.length, 5]);
    expect(rows[1]!.payload.equals(large)).toBe(true);
    expect(rows[3]!.payload.equals(large)).toBe(true);
  });
});

describe("headers", () => {
  it("are an object of lists, by name, as they were sent", async () => {
    const subject = `${world.prefix}.headers`;
    await fresh([subject, "three(bytea, text, jsonb)"]);
    const given = headers();
    given.append("Many", "1");
    given.append("Many", "2");
    given.append("Unicode", "grüße, 世界 🚢");
    given.append("__proto__", "p");
    given.append("Quoted", 'a "b" \\ c');
    world.nats.publish(subject, "x", { headers: given });
    world.nats.publish(subject, "y");
    await got(2);
    expect(await world.rows("SELECT convert_from(payload, 'UTF8') AS payload, headers FROM got ORDER BY id")).toEqual([
      {
        payload: "x",
        headers: JSON.parse(
          '{"Many":["1","2"],"Unicode":["grüße, 世界 🚢"],"__proto__":["p"],"Quoted":["a \\"b\\" \\\\ c"]}',
        ),
      },
      { payload: "y", headers: null },
    ]);
  });
});

describe("a subject", () => {
  it("that no text of Postgres can hold, or that is very long, does not keep others from being handled", async () => {
    const base = `${world.prefix}.subjects`;
    await fresh([`${base}.>`, "two(bytea, text)", `${base}.x`]);
    const long = `${base}.${"l".repeat(3000)}`;
    await writeRaw(
      testNatsUrl(),
      plainMessage(`${base}.nul\0`, "a"),
      Buffer.concat([Buffer.from(`PUB ${base}.`), Buffer.from([0xff, 0xc3]), Buffer.from(" 1\r\nb\r\n")]),
      plainMessage(long, "c"),
      plainMessage(`${base}.ok`, "last"),
    );
    await eventually("the last one is done", async () => {
      return (await world.count("SELECT count(*) FROM got WHERE payload = 'last'")) > 0;
    });
    expect(await world.rows("SELECT payload, subject FROM got ORDER BY id")).toEqual([
      { payload: Buffer.from("b"), subject: `${base}.\ufffd\ufffd` },
      { payload: Buffer.from("c"), subject: long },
      { payload: Buffer.from("last"), subject: `${base}.ok` },
    ]);
    const deadLettered =
      "SELECT payload, topic, error_code FROM hawser_data.dead_letters WHERE source = 'public.two(bytea, text)'";
    expect(await world.rows(deadLettered)).toEqual([
      { payload: Buffer.from("a"), topic: `${base}.nul\ufffd`, error_code: "22021" },
    ]);
  });
});
