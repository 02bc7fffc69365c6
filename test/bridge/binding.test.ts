/**
 * What nats_subscribe and its like do in the database.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../support/gateway.js";

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await testGateway({ serverOptions: false });
  await gateway.client.query(`
    CREATE TABLE received (payload bytea);
    CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO received VALUES (payload)';
    CREATE FUNCTION capture_more(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO received VALUES (payload)';
    CREATE FUNCTION two(a bytea, b bytea) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
    CREATE FUNCTION answer_text(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql AS 'SELECT upper(payload)';
  `);
});
afterAll(async () => gateway?.[Symbol.asyncDispose]());

const subscriptions = async (client: pg.Client = gateway.client) =>
  (await client.query<{ subject: string; callback: string }>("SELECT * FROM pgnats.subscriptions ORDER BY 1, 2")).rows.map(
    ({ subject, callback }) => `${subject} ${callback}`,
  );

describe("nats_subscribe", () => {
  it("makes a wrapper that runs as the caller, once", async () => {
    await gateway.client.query("SELECT nats_subscribe('binding.one', 'capture'::regproc)");
    await gateway.client.query("SELECT nats_subscribe('binding.one', 'capture')");
    await gateway.client.query("SELECT nats_subscribe('binding.one', 'capture_more(bytea,text,jsonb)'::regprocedure)");
    expect(await subscriptions()).toEqual([
      "binding.one public.capture(bytea)",
      "binding.one public.capture_more(bytea, text, jsonb)",
    ]);
  });
});
