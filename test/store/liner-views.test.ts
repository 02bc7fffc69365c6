/** The views with liner's columns: what operators of liner run works, with the rights of a peer and `hawser` on the search path. */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { listenersOf, type World, world } from "./support/world.js";

let w: World;
let peer: Login & AsyncDisposable;
let client: pg.Client;

beforeAll(async () => {
  w = await world();
  peer = await login(w.url, "IN ROLE hawser_peer");
  client = new pg.Client({ connectionString: peer.url, options: "-c search_path=hawser" });
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await peer?.[Symbol.asyncDispose]();
  await w?.[Symbol.asyncDispose]();
});

it("have liner's columns, and Postgres writes through all of them", async () => {
  const { rows } = await client.query(
    `SELECT c.table_name AS name, array_agg(c.column_name::text ORDER BY c.ordinal_position) AS columns,
            bool_and(c.is_updatable = 'YES') AS "isWritten"
       FROM information_schema.columns AS c JOIN information_schema.views AS v USING (table_schema, table_name)
      WHERE c.table_schema = 'hawser' AND v.is_insertable_into = 'YES' AND c.table_name NOT IN ('dead_letters', 'original_payloads') GROUP BY 1 ORDER BY 1`,
  );
  expect(rows).toEqual([
    { name: "conn_key_map", columns: ["composite", "connection_key"], isWritten: true },
    { name: "conn_mess_number", columns: ["connection_key", "v"], isWritten: true },
    { name: "conn_messages", columns: ["id", "connection_key", "payload"], isWritten: true },
    { name: "topic_addr", columns: ["topic", "addr", "client_name"], isWritten: true },
  ]);
});

it("a listener is entered, replaced, listed and removed", async () => {
  await client.query("LISTEN hawser_listeners");
  const heard: unknown[] = [];
  client.on("notification", ({ payload }) => heard.push(JSON.parse(payload!).operation));
  const insert = `INSERT INTO topic_addr (topic, addr, client_name) VALUES ('my_topic', '127.0.0.1:2255', $1)
                  ON CONFLICT (topic, addr) DO UPDATE SET client_name = excluded.client_name`;
  await client.query(insert, ["client1"]);
  await client.query(insert, ["client2"]);
  const row = { topic: "my_topic", addr: "127.0.0.1:2255", client_name: "client2" };
  expect((await client.query("SELECT * FROM topic_addr WHERE topic = 'my_topic'")).rows).toEqual([row]);
  expect(await listenersOf(w.store, "my_topic")).toMatchObject([{ name: "client2", epoch: 0, durable: false }]);
  await client.query("UPDATE topic_addr SET client_name = 'client3' WHERE topic = 'my_topic'");
  expect(await listenersOf(w.store, "my_topic")).toMatchObject([{ name: "client3" }]);
  await client.query("DELETE FROM topic_addr WHERE topic = 'my_topic'");
  expect(await listenersOf(w.store, "my_topic")).toEqual([]);
  // What peers hear of it is the same as of a change of the table.
  expect(heard).toEqual(["insert", "delete", "update", "delete", "update", "delete"]);
  // The rules of the table hold.
  await expect(client.query(insert, ["__#outbox"])).rejects.toMatchObject({ code: "23514" });
});

it("stored messages and cursors are counted, read, changed and removed", async () => {
  const sender = { name: "sender", sourceTopic: "source" };
  const lease = await w.take("sender");
  const key = await w.channelOf(sender, "listener");
  await w.store.storeMessages(lease, key, 1, [{ topicId: 1, payload: Buffer.from("a") }]);
  const listener = await w.take("listener");
  await w.store.commitCursors(listener, [{ channelId: key, epoch: 0, number: 7 }]);

  const channel = "SELECT connection_key FROM conn_key_map WHERE composite = 'sender:source:listener'";
  expect((await client.query(channel)).rows).toEqual([{ connection_key: key }]);
  const count = async () =>
    (await client.query(`SELECT COUNT(*) FROM conn_messages WHERE connection_key = ${key}`)).rows[0].count;
  const cursor = async () =>
    (await client.query(`SELECT v FROM conn_mess_number WHERE connection_key = ${key}`)).rows[0].v;
  expect([await count(), await cursor()]).toEqual(["1", "7"]);

  await client.query("INSERT INTO conn_messages (connection_key, payload) VALUES ($1, 'b')", [key]);
  expect(await count()).toBe("2");
  await client.query("DELETE FROM conn_messages WHERE connection_key = $1", [key]);
  expect(await count()).toBe("0");
  await client.query("UPDATE conn_mess_number SET v = 8 WHERE connection_key = $1", [key]);
  expect(await cursor()).toBe("8");
});

it("what the role may not do to a table, it may not do to its view", async () => {
  for (const statement of [
    "UPDATE conn_messages SET payload = ''",
    "DELETE FROM conn_mess_number",
    "DELETE FROM conn_key_map",
  ])
    await expect(client.query(statement), statement).rejects.toMatchObject({ code: "42501" });
});
