/**
 * Messages of NATS that run SQL functions.
 */
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await testGateway();
  await gateway.client.query(`
    CREATE TABLE received (id bigserial, payload bytea, subject text, headers jsonb, who text DEFAULT current_user);
    CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO received (payload) VALUES (payload)';
    CREATE FUNCTION capture_all(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql
      AS 'INSERT INTO received (payload, subject, headers) VALUES (payload, subject, headers)';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'::bytea$$;
    CREATE FUNCTION answer_text(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql AS 'SELECT upper(payload) || subject';
  `);
});
afterAll(async () => gateway?.[Symbol.asyncDispose]());

const count = async (): Promise<number> => Number(await gateway.value("SELECT count(*) FROM received"));

describe("a subscription", () => {
  it("runs its function for each message, in order, from a moment after it was made until it is ended", async () => {
    await gateway.client.query("TRUNCATE received");
    await gateway.client.query("SELECT nats_subscribe('sub.one.*', 'capture')");
    await eventually("the subscription is live", async () => {
      gateway.nats.publish("sub.one.probe", "probe");
      return (await count()) > 0;
    });
    for (let n = 1; n <= 5000; n++) gateway.nats.publish("sub.one.x", `${n}`);
    await gateway.nats.flush();
    const numbered = "FROM received WHERE payload <> 'probe'";
    await eventually("all have run", async () => Number(await gateway.value(`SELECT count(*) ${numbered}`)) === 5000);
    const rows = await gateway.value<string[]>(
      `SELECT array_agg(convert_from(payload, 'UTF8') ORDER BY id) ${numbered}`,
    );
    expect(rows).toEqual(Array.from({ length: 5000 }, (_, n) => `${n + 1}`));
    await gateway.client.query("SELECT nats_unsubscribe('sub.one.*', 'capture')");
  });

  it("passes subject and headers", async () => {
    await gateway.client.query("TRUNCATE received");
    await gateway.client.query("SELECT nats_subscribe('sub.two.>', 'capture_all')");
    const given = headers();
    given.append("A", "1");
    given.append("A", "2");
    await eventually("it has run", async () => {
      gateway.nats.publish("sub.two.a.b", "x", { headers: given });
      return (await count()) > 0;
    });
    expect(await gateway.value("SELECT to_jsonb(r) - 'id' FROM received r LIMIT 1")).toEqual({
      payload: "\\x78",
      subject: "sub.two.a.b",
      headers: { A: ["1", "2"] },
      who: "postgres",
    });
  });
});

describe("a responder", () => {
  it("answers requests from NATS and from SQL", async () => {
    await gateway.client.query("SELECT litmus_pgnats_register_responder('resp.one', 'answer')");
    await gateway.client.query("SELECT litmus_pgnats_register_responder('resp.two', 'answer_text')");
    const answer = (subject: string) => gateway.nats.request(subject, "hello", { timeout: 20_000 });
    for (const subject of ["resp.one", "resp.two"]) {
      await eventually(`${subject} answers`, () =>
        answer(subject).then(
          () => true,
          () => false,
        ),
      );
    }
    expect((await answer("resp.one")).string()).toBe("hello!");
    expect((await answer("resp.two")).string()).toBe("HELLOresp.two");
    expect(await gateway.value("SELECT convert_from(nats_request_text('resp.one', 'from SQL', 20000), 'UTF8')")).toBe(
      "from SQL!",
    );
  });
});
