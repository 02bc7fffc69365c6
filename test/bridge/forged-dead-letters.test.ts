/**
 * Peers keep dead letters, too, in the same table: they put nothing into it that is taken for messages of NATS, and do not have
 * the functions of others run again.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
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

it("a peer writes no dead letter of a subscription, copies none, and has none handled again that is another role's", async () => {
  const owner = await world.user();
  await world.client.query(`GRANT ALL ON mended, ran, ran_n_seq TO ${owner.role}`);
  const subject = `${world.prefix}.kept`;
  await owner.client.query("SELECT nats_subscribe($1, 'public.capture(bytea, text, jsonb)'::regprocedure)", [subject]);
  await world.live(subject);
  world.nats.publish(subject, "real");
  await world.counts(1, "SELECT count(*) FROM hawser_data.dead_letters");
  const [letter] = await world.rows<{ id: string; role: string }>("SELECT id, role FROM hawser_data.dead_letters");
  expect(letter!.role).toBe(owner.role);
  await world.client.query("INSERT INTO mended DEFAULT VALUES; DELETE FROM ran");
  await using peer = await login(world.database.url, "IN ROLE hawser_peer");
  const client = new pg.Client(peer.url);
  await client.connect();
  try {
    const columns =
      "origin, source, topic, payload, headers, error_code, error_message, attempts, handler_id, message_id";
    const copied = `SELECT ${columns} FROM hawser_data.dead_letters`;
    for (const forged of [copied, copied.replace("payload", "'forged'::bytea"), copied.replace("topic", "'forged'")]) {
      const insert = `INSERT INTO hawser_data.dead_letters (${columns}) ${forged}`;
      await expect(client.query(insert)).rejects.toMatchObject({ code: "42501" });
    }
    const { rows } = await client.query("SELECT id, refused FROM hawser.retry_dead_letters($1)", [[letter!.id]]);
    expect(rows).toEqual([{ id: letter!.id, refused: "owner" }]);
  } finally {
    await client.end();
  }
  expect(await world.count("SELECT count(*) FROM hawser_data.queue")).toBe(0);

  await world.client.query(`GRANT hawser_peer TO ${owner.role}`);
  const { rows } = await owner.client.query("SELECT id, refused FROM hawser.retry_dead_letters($1)", [[letter!.id]]);
  expect(rows).toEqual([{ id: letter!.id, refused: null }]);
  await eventually("the real one is handled", async () => (await world.count("SELECT count(*) FROM ran")) > 0);
  // A further one is handled after all that were asked for before.
  world.nats.publish(subject, "later");
  await eventually("the later one is handled", async () => (await world.count("SELECT count(*) FROM ran")) > 1);
  expect(await world.rows("SELECT payload, subject, headers FROM ran ORDER BY n")).toEqual([
    { payload: "real", subject, headers: null },
    { payload: "later", subject, headers: null },
  ]);
  expect(await world.count("SELECT count(*) FROM hawser_data.dead_letters")).toBe(0);
});
