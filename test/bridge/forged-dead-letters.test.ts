/**
 * Peers keep dead letters, too, in the same table: what they put into it is not taken for messages of NATS.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { login } from "../store/nats/support/logins.js";
import { eventually } from "../support/eventually.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE mended (at timestamptz DEFAULT now());
      CREATE TABLE ran (n bigserial, payload text, subject text, headers jsonb);
      CREATE FUNCTION capture(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$BEGIN
        IF NOT EXISTS (SELECT FROM public.mended) AND payload <> '' THEN RAISE EXCEPTION 'not yet'; END IF;
        INSERT INTO public.ran (payload, subject, headers) VALUES (convert_from(payload, 'UTF8'), subject, headers);
      END$$`,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

it("a dead letter that a peer has written is not handled, and that of the bridge is", async () => {
  const subject = `${world.prefix}.kept`;
  await world.subscribe(subject, "capture(bytea, text, jsonb)");
  world.nats.publish(subject, "real");
  await eventually(
    "it is a dead letter",
    async () => (await world.count("SELECT count(*) FROM hawser.dead_letters")) === 1,
  );
  await world.client.query("INSERT INTO mended DEFAULT VALUES; DELETE FROM ran");
  await using peer = await login(world.database.url, "IN ROLE hawser_peer");
  const client = new pg.Client(peer.url);
  await client.connect();
  try {
    // One of its own making, and the real one with another payload, subject or headers.
    const columns = "origin, source, error_code, error_message, attempts, handler_id, retry_requested";
    const values = "origin, source, error_code, error_message, attempts, handler_id, true";
    for (const changed of [
      "'forged'::bytea, topic, headers, NULL",
      "'forged'::bytea, topic, headers, message_id",
      "payload, 'forged', headers, message_id",
      `payload, topic, '[["a", "forged"]]', message_id`,
    ]) {
      await client.query(
        `INSERT INTO hawser.dead_letters (${columns}, payload, topic, headers, message_id)
         SELECT ${values}, ${changed} FROM hawser.dead_letters WHERE NOT retry_requested`,
      );
    }
    await client.query(
      "SELECT hawser.request_retries(ARRAY(SELECT id FROM hawser.dead_letters WHERE NOT retry_requested))",
    );
  } finally {
    await client.end();
  }
  await eventually("the real one is handled", async () => (await world.count("SELECT count(*) FROM ran")) > 0);
  // A further one is handled after all that were asked for before.
  world.nats.publish(subject, "later");
  await eventually("the later one is handled", async () => (await world.count("SELECT count(*) FROM ran")) > 1);
  expect(await world.rows("SELECT payload, subject, headers FROM ran ORDER BY n")).toEqual([
    { payload: "real", subject, headers: null },
    { payload: "later", subject, headers: null },
  ]);
  expect(await world.count("SELECT count(*) FROM hawser.dead_letters WHERE retry_requested")).toBe(4);
});
