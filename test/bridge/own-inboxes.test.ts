/**
 * Answers to requests are for the requester: a role that subscribes to all subjects does not hear those to others, though
 * all connections have one NATS user.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, createInbox, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let server: TestNatsServer;
let world: BridgeWorld;
/** Somebody who answers requests to `ask.*`. */
let service: NatsConnection;
/** Roles that share nothing but `hawser_nats`. */
let asking: pg.Client;
let listening: pg.Client;

beforeAll(async () => {
  server = await startNatsServer({
    jetStream: true,
    // What is documented for requests, streams and files, and no more.
    config: `
      accounts { HERE: { jetstream: enabled, users: [
        { user: sql, password: sql, permissions: {
          publish: { allow: ["ask.>", "things.>", "$JS.API.>", "$KV.>", "$O.>"] }
          subscribe: { allow: ["_INBOX.>"] } } }
        { user: narrow, password: narrow, permissions: {
          publish: { allow: ["ask.>", "things.>", "$JS.API.>", "$KV.>", "$O.>"] }
          subscribe: { allow: ["_INBOX.hawser.>"] } } }
        { user: all, password: all }
      ] } }
      no_auth_user: all`,
  });
  service = await connect({ servers: server.url });
  service.subscribe("ask.*", { callback: (_error, message) => void message.respond(`secret of ${message.string()}`) });
  await service.flush();
  await (await jetstreamManager(service)).streams.add({ name: "THINGS", subjects: ["things.>"] });
  world = await bridgeWorld({
    natsUrl: server.url,
    sql: `
      CREATE TABLE heard (id bigserial, subscribed text, subject text, payload text);
      GRANT SELECT, INSERT ON heard TO PUBLIC;
      GRANT USAGE ON SEQUENCE heard_id_seq TO PUBLIC;
      CREATE FUNCTION hear(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS $$INSERT INTO heard (subscribed, subject, payload) VALUES ('all', subject, encode(payload, 'escape'))$$;
      CREATE FUNCTION hear_inboxes(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS $$INSERT INTO heard (subscribed, subject, payload) VALUES ('inboxes', subject, encode(payload, 'escape'))$$;
      CREATE FUNCTION answer(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
        AS $$SELECT 'own ' || payload$$;
    `,
  });
  asking = (await world.user()).client;
  listening = (await world.user()).client;
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await service?.close();
  await server?.[Symbol.asyncDispose]();
});

/** Messages that the role at `listening` has received for these subscriptions. */
const heard = (subscribed: string) =>
  world.rows<{ subject: string; payload: string }>(
    "SELECT subject, payload FROM heard WHERE subscribed = $1 ORDER BY id",
    [subscribed],
  );

/** All requests that SQL can make, which get their answers. */
async function ask(client: pg.Client, name: string): Promise<void> {
  const first = async (sql: string) => Object.values((await client.query(sql)).rows[0])[0];
  expect(await first(`SELECT convert_from(nats_request_text('ask.x', '${name}', 5000), 'UTF8')`)).toBe(
    `secret of ${name}`,
  );
  expect(await first(`SELECT seq FROM nats_publish_text_ack('things.${name}', 'stored')`)).toMatch(/^\d+$/);
  await client.query(`SELECT nats_put_text('bucket', '${name}', 'value of ${name}')`);
  expect(await first(`SELECT nats_get_text('bucket', '${name}')`)).toBe(`value of ${name}`);
  await client.query(`SELECT nats_put_file('files', '${name}', '\\x00ff')`);
  expect(await first(`SELECT nats_get_file('files', '${name}')`)).toEqual(Buffer.from([0, 255]));
}

describe("a role that subscribes to", () => {
  it("all subjects receives messages, but no replies to another role's requests nor acknowledgements", async () => {
    await listening.query("SELECT nats_subscribe('>', 'public.hear')");
    await listening.query("SELECT nats_subscribe('_INBOX.>', 'public.hear_inboxes')");
    await listening.query("SELECT nats_subscribe('_INBOX.*.>', 'public.hear_inboxes')");
    await world.live("is.live");
    await world.live("_INBOX.is.live");
    await asking.query("SELECT litmus_pgnats_register_responder('own.answer', 'public.answer')");
    await world.live("own.answer");
    await ask(asking, "one");
    const answer = await asking.query("SELECT convert_from(nats_request_text('own.answer', 'x', 5000), 'UTF8') AS own");
    expect(answer.rows).toEqual([{ own: "own x" }]);
    const [stranger, afterwards] = [createInbox(), "last.of.all"];
    world.nats.publish(stranger, "to a stranger");
    world.nats.publish(afterwards, "ordinary");
    // What NATS had for that connection came before it.
    await eventually("the last one is heard", async () =>
      (await heard("all")).some(({ subject }) => subject === afterwards),
    );
    await eventually("what is for inboxes of others is heard", async () =>
      (await heard("inboxes")).some(({ subject }) => subject === stranger),
    );
    const all = await heard("all");
    expect(all).toContainEqual({ subject: "ask.x", payload: "one" });
    expect(all).toContainEqual({ subject: "last.of.all", payload: "ordinary" });
    for (const kind of ["all", "inboxes"]) {
      const words = (await heard(kind)).map(({ subject, payload }) => `${subject} ${payload}`);
      expect(words.filter((line) => /^_INBOX\.hawser|secret of|own x|\{"stream":"\w+", ?"seq"/.test(line))).toEqual([]);
    }
  });

  it("the inboxes of Hawser is refused, and not inboxes of others with a name like that", async () => {
    for (const subject of ["_INBOX.hawser", "_INBOX.hawser.>", "_INBOX.hawser.*.x", "_INBOX.hawser.a"]) {
      for (const call of [
        "nats_subscribe($1, 'public.hear')",
        "litmus_pgnats_register_responder($1, 'public.answer')",
      ]) {
        await expect(listening.query(`SELECT ${call}`, [subject]), call).rejects.toMatchObject({
          code: "22023",
          message: `the subject '${subject}' cannot be subscribed to`,
          detail: expect.stringContaining("each is for the session that asked"),
        });
      }
    }
    await listening.query("SELECT nats_subscribe('_INBOX.hawsers.x', 'public.hear')");
    await listening.query("SELECT nats_unsubscribe('_INBOX.hawsers.x', 'public.hear')");
  });
});

it("requests work for a NATS user that may subscribe to _INBOX.> alone, or to _INBOX.hawser.> alone", async () => {
  for (const user of ["sql", "narrow"]) {
    await defineServer(world.client, server.url, { username: user, password: user });
    await world.value("SELECT litmus_pgnats_reload_conf()");
    await ask(world.client, user);
  }
  await defineServer(world.client, server.url);
  await world.value("SELECT litmus_pgnats_reload_conf()");
});
