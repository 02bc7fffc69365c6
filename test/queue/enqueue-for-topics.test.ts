/** What `hawser.enqueue` refuses and accepts for topics. */
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { TestWorker } from "./support/test-worker.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  // Where only peers exist.
  database = await testDatabase({ nats: false });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

describe("enqueue for a topic", () => {
  it("returns the id, which no message for NATS has", async () => {
    const { rows } = await client.query(
      `SELECT hawser.enqueue('t', 'x') AS peer, hawser.enqueue('s', 'x', stream => false) AS nats`,
    );
    expect(BigInt(rows[0].nats)).toBe(BigInt(rows[0].peer) + 1n);
  });

  it.each([
    ["NULL, 'x'", /argument topic is NULL/],
    ["'', 'x'", /topic is "", and must be 1 to 255 bytes/],
    ["'a:b', 'x'", /topic is "a:b", and must not contain ':'/],
    ["'__#a', 'x'", /"__#a" begins with __#, which is reserved/],
    ["'t', NULL", /argument payload is NULL/],
    ["'t', ''", /has 0 bytes, and must have 1 to 67108864/],
    ["'t', 'x', headers => '[]'", /headers must be a JSON object, and this is array/],
    ["'t', 'x', headers => '{\"a b\": \"1\"}'", /the name "a b" must be 1 to 255 characters of visible ASCII/],
    ["'t', 'x', headers => '{\"Message-Id\": \"1\"}'", /"Message-Id" is set by Hawser; give message_id instead/],
    ["'t', 'x', headers => '{\"Message-Key\": \"1\"}'", /"Message-Key" is set by Hawser; give key instead/],
    ["'t', 'x', headers => '{\"Message-Origin\": \"a:a:me\"}'", /"Message-Origin" is set by Hawser; leave it out/],
    ["'t', 'x', headers => '{\"a\": 1}'", /"a" must be a string or an array of strings, and has number/],
    ["'t', 'x', jsonb_build_object('a', E'1\\n2')", /the value of "a" must not contain control characters/],
    [
      "'t', 'x', jsonb_build_object('a', repeat('x', 8193))",
      /a value of 8193 bytes, and must have .* values of at most 8192 bytes/,
    ],
    [
      "'t', 'x', jsonb_build_object('a', array_fill('x'::text, ARRAY[257]))",
      /an object with 257 values, and must have at most 256 values/,
    ],
    ["'t', 'x', key => ''", /argument key is "", and must be 1 to 1024 bytes/],
    ["'t', 'x', message_id => 'a b'", /argument message_id is "a b"/],
  ])("refuses (%s)", async (given, message) => {
    await expect(client.query(`SELECT hawser.enqueue(${given})`)).rejects.toThrow(message);
  });

  it("accepts as many headers as fit beside those of Hawser, with the key and origin before them", async () => {
    const headers = (count: number) => `headers => jsonb_build_object('a', array_fill('x'::text, ARRAY[${count}]))`;
    await expect(
      client.query(`SELECT hawser.enqueue('full', 'x', ${headers(254)}, message_id => 'm')`),
    ).rejects.toThrow("headers: there are 257, and a message has 256 at most");
    await client.query(`SELECT hawser.enqueue('full', 'x', ${headers(253)}, message_id => 'm', key => 'k')`);
    await client.query(
      "SELECT hawser.enqueue_peer('full', ARRAY['y'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, 'a-1:a', NULL)",
    );
    await client.query("SELECT hawser.enqueue('full', 'z')");
    const role = (await client.query("SELECT session_user::text AS role")).rows[0].role;
    const given = new Array(253).fill(["a", "x"]);
    const worker = await TestWorker.open(client, { topics: ["full"] });
    const taken = await worker.take();
    expect(taken.map(({ payload, headers }) => ({ text: payload.toString(), headers }))).toEqual([
      { text: "x", headers: [["message-origin", `::${role}`], ["message-key", "k"], ...given, ["message-id", "m"]] },
      { text: "y", headers: [["message-origin", `a-1:a:${role}`]] },
      { text: "z", headers: [["message-origin", `::${role}`]] },
    ]);
  });

  it.each([
    ["a:b:c", 'the topic of the origin "b:c"'],
    ["a", "the topic of the origin"],
    [":a", 'the origin ""'],
    ["a:", 'the topic of the origin ""'],
    ["a\n:b", 'the origin "a\\n"'],
  ])("as a peer is refused for one that cannot be: %j", async (origin, says) => {
    const call = "SELECT hawser.enqueue_peer('t', ARRAY['y'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, $1, NULL)";
    await expect(client.query(call, [origin])).rejects.toThrow(says);
  });

  it.each([
    ["topic", "''", "NULL"],
    ["topic", "'a:b'", "NULL"],
    ["topic", "NULL", "NULL"],
    ["listener", "'a'", "''"],
    ["listener", "'a'", "repeat('b', 256)"],
  ])("refuses a bad %s: %s", async (name, topic, listener) => {
    for (const later of ["NULL", "now() + interval '1 hour'"]) {
      await expect(
        client.query(
          `SELECT hawser.enqueue_peer(${topic}, ARRAY['x'::bytea], NULL, NULL, NULL, ${listener}, ${later}, NULL, NULL, NULL)`,
        ),
      ).rejects.toMatchObject({
        code: topic === "NULL" ? "22004" : "22023",
        message: expect.stringMatching(new RegExp(`the (argument p_)?${name} `)),
      });
    }
  });
});

/** Brings what is due into the queue. @returns the number of messages */
async function bring(on: pg.Client): Promise<number> {
  return (await on.query("SELECT brought FROM hawser.bring_due(NULL, NULL)")).rows[0].brought;
}

describe("what is due later", () => {
  let other: pg.Client;
  beforeEach(async () => {
    other = new pg.Client({ connectionString: database.url });
    await other.connect();
  });
  afterEach(() => other.end());

  it("is brought into the queue once, by the first of two processes", async () => {
    await client.query("SELECT hawser.enqueue('later', 'x', deliver_at => now() + interval '1 hour')");
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("BEGIN");
    expect(await bring(client)).toBe(1);
    expect(await bring(other)).toBe(0);
    await client.query("COMMIT");
    expect(await bring(other)).toBe(0);
    expect((await client.query("SELECT FROM hawser_data.queue WHERE topic = 'later'")).rowCount).toBe(1);
  });

  it("comes when no transaction that enqueues with its key is open: no lower rank of a key comes behind a higher one", async () => {
    for (const key of ["k", "other"])
      await client.query("SELECT hawser.enqueue('keyed', 'due', key => $1, deliver_at => now() + interval '1 hour')", [
        key,
      ]);
    await client.query("UPDATE hawser_data.queue SET due_at = now() WHERE later IS NOT NULL");
    await client.query("BEGIN");
    await client.query("SELECT hawser.enqueue('keyed', 'open', key => 'k')");
    expect(await bring(other)).toBe(1);
    await client.query("COMMIT");
    expect(await bring(other)).toBe(1);
    const { rows } = await client.query(
      "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.queue WHERE topic = 'keyed' AND key = 'k' ORDER BY rank",
    );
    expect(rows).toEqual([{ text: "open" }, { text: "due" }]);
  });
});
