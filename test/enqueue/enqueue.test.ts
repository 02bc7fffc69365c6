/**
 * Messages that are enqueued in a transaction: for peers, for NATS, and by peers, which get replies.
 */
import { type DescMessage, fromBinary } from "@bufbuild/protobuf";
import pg from "pg";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  cancel,
  type EnqueueOptions,
  enqueue,
  enqueueBatch,
  type SqlClient,
  type TransactionalMessage,
} from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { findMessage, messageIdsOf, withCommandDatabase } from "../../src/operating/operate/index.js";
import { failure } from "../peer/support/errors.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { compileSchemas, messageIn } from "../typed/support/compile.js";

const world = sharedPeerWorld();
const clients: pg.Client[] = [];
let role: string;
let placed: DescMessage;
let stored: DescMessage;
let both: DescMessage;

beforeAll(async () => {
  const registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1;
      import "hawser/v1/topic.proto"; import "buf/validate/validate.proto";
      message Placed {
        option (hawser.v1.topic) = {topic: "b" key: "order_id" message_id: "order_id"};
        string order_id = 1 [(buf.validate.field).string.min_len = 2];
      }
      message Stored {
        option (hawser.v1.topic) = {subject: "orders.{shop}.stored" stream: true key: "order_id" message_id: "order_id"};
        string shop = 1;
        string order_id = 2;
      }
      message Both {
        option (hawser.v1.topic) = {topic: "b" subject: "orders.both" message_id: "order_id"};
        string order_id = 1;
      }`,
  });
  [placed, stored, both] = ["Placed", "Stored", "Both"].map((name) => messageIn(registry, `acme.v1.${name}`)) as [
    DescMessage,
    DescMessage,
    DescMessage,
  ];
  [{ role }] = (await world.query<{ role: string }>("SELECT session_user::text AS role")) as [{ role: string }];
});

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  clients.push(client);
  return client;
}
afterEach(async () => {
  for (const client of clients.splice(0)) await client.end();
});

/** Reads the outbox for NATS, with payloads as text. */
async function forNats(): Promise<Record<string, unknown>[]> {
  return await world.query(
    `SELECT destination AS subject, convert_from(payload, 'UTF8') AS text, to_stream AS stream, domain, headers, key, message_id AS id
       FROM hawser_data.outbox AS o WHERE segment < 3 ORDER BY o.id`,
  );
}

/** The same for peers. */
async function forPeers(): Promise<Record<string, unknown>[]> {
  return await world.query(
    `SELECT topic, convert_from(payload, 'UTF8') AS text, headers, key, to_all AS all
       FROM hawser_data.queue AS q ORDER BY q.id`,
  );
}

/** True if a peer has those who enqueue for the topic notify. */
async function isWaitedFor(topic: string): Promise<boolean> {
  const locks = await world.query(
    `SELECT FROM pg_locks AS l
      WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32) | l.objid::bigint = (hawser.wait_locks(ARRAY[$1]))[1]`,
    [topic],
  );
  return locks.length > 0;
}

const at = (ms: number) => new Date(Date.now() + ms);

describe("enqueue for a topic", () => {
  it("hands the message to a listener when the transaction has committed, with its headers", async () => {
    const b = await world.working("b-1");
    const client = await connected();
    await client.query("BEGIN");
    const headers = [
      ["x", "1"],
      ["x", "2"],
    ] as const;
    expect(await enqueue(client, "b", "one", { headers, messageId: "id-1", key: "k" })).toEqual(expect.any(BigInt));
    await client.query("COMMIT");
    await b.received.length(1);
    expect(b.received.all).toEqual([
      {
        topic: "b",
        senderTopic: undefined,
        sender: undefined,
        enqueuedBy: role,
        text: "one",
        headers: [
          ["message-origin", `::${role}`],
          ["message-key", "k"],
          ["x", "1"],
          ["x", "2"],
          ["message-id", "id-1"],
        ],
        attempt: 1,
        delivery: "at-least-once",
      },
    ]);
  });

  it("tells which role has enqueued it, with what no header may have replaced", async () => {
    const b = await world.working("b-1");
    const client = await connected();
    const name = `a:b\n\u007f\t${process.pid}`;
    await client.query(`CREATE ROLE "${name}" IN ROLE hawser_peer; SET ROLE "${name}"`);
    try {
      await enqueue(client, "b", "x");
    } finally {
      await client.query(`RESET ROLE; DROP ROLE "${name}"`);
    }
    await b.received.length(1);
    expect(b.received.all[0]).toMatchObject({ sender: undefined, enqueuedBy: `a:b???${process.pid}` });
  });

  it("hands over at its time what is to be delivered later, and not what is cancelled", async () => {
    const b = await world.working("b-1");
    const client = await connected();
    await client.query("BEGIN");
    await enqueue(client, "b", "second", { delayMs: 600 });
    await enqueue(client, "b", "first", { deliverAt: at(300), headers: { h: ["1", "2"] }, key: "k" });
    const past = await enqueue(client, "b", "now", { deliverAt: at(-1_000) });
    const id = await enqueue(client, "b", "cancelled", { deliverAt: at(60_000) });
    expect([await cancel(client, id), await cancel(client, id)]).toEqual(["cancelled", "not_waiting"]);
    await client.query("COMMIT");
    await b.received.length(3);
    expect(await cancel(client, past)).toBe("not_waiting");
    expect(b.texts).toEqual(["now", "first", "second"]);
    expect(await cancel(client, past)).toBe("not_waiting");
    expect(b.received.all[1]?.headers).toEqual([
      ["message-origin", `::${role}`],
      ["message-key", "k"],
      ["h", "1"],
      ["h", "2"],
    ]);
  });

  it("takes text, bytes, and objects as JSON, of which a header tells", async () => {
    const view = new Uint8Array([0x30, 0x31, 0x32]).subarray(1, 2);
    const json = { "content-type": "application/json" };
    for (const payload of ["{}", view, { a: [1, "ä"] }, [1], new Date(0)]) await enqueue(world, "b", payload);
    await enqueue(world, "b", { a: 1 }, { headers: { "Content-Type": "application/geo+json" }, all: true });
    const entries = (headers: Record<string, string>) => Object.entries(headers);
    expect(await forPeers()).toMatchObject([
      { text: "{}", headers: null, all: false },
      { text: "1", headers: null },
      { text: '{"a":[1,"ä"]}', headers: entries(json) },
      { text: "[1]", headers: entries(json) },
      { text: '"1970-01-01T00:00:00.000Z"', headers: entries(json) },
      { text: '{"a":1}', headers: [["Content-Type", "application/geo+json"]], all: true },
    ]);
  });

  it("takes a client that resolves with the rows themselves, and one that resolves with an object that has them", async () => {
    const b = await world.working("b-1");
    const client = await connected();
    const query = async (text: string, values: unknown[]) => (await client.query(text, values)).rows;
    expect(await enqueue({ query }, "b", "x")).toBeTypeOf("bigint");
    const thenable: SqlClient = { query: (text, values) => client.query(text, values) };
    expect(await enqueue(thenable, "b", "y")).toBeTypeOf("bigint");
    await b.received.length(2);
  });

  it("wakes a worker that waits, which looks again only much later", async () => {
    noTimersAbove(100);
    const b = await world.working("b-1");
    const client = await connected();
    for (const [nth, options] of [{}, { key: "k" }, { headers: { a: "1" } }, { all: true }].entries()) {
      await eventually("it waits", () => isWaitedFor("b"));
      await enqueue(client, "b", "again", options);
      await b.received.length(1 + nth);
    }
  });
});

describe("enqueue for a subject", () => {
  it("writes for core NATS, for a stream, and for one of a domain", async () => {
    await enqueue(world, { subject: "orders.placed" }, "1", { key: "k", headers: { A: ["1", "2"], B: "3" } });
    const options = { messageId: "id-1", headers: [["A", "1"]] as const };
    await enqueue(world, { subject: "orders.placed", stream: true }, { a: 1 }, options);
    await enqueue(world, { subject: "orders.placed", stream: true, domain: "hub" }, "");
    const common = { subject: "orders.placed", stream: true, domain: null, headers: null, key: null, id: null };
    expect(await forNats()).toEqual([
      { ...common, text: "1", stream: false, headers: { A: ["1", "2"], B: ["3"] }, key: "k" },
      {
        ...common,
        text: '{"a":1}',
        headers: { "content-type": ["application/json"], A: ["1"] },
        id: "id-1",
      },
      { ...common, text: "", domain: "hub" },
    ]);
  });

  it("cancels it until it is due", async () => {
    const id = await enqueue(world, { subject: "a" }, "x", { deliverAt: at(3_600_000) });
    expect([await cancel(world, id), await cancel(world, id)]).toEqual(["cancelled", "not_waiting"]);
  });
});

describe("enqueue of a schema", () => {
  it("goes to its topic, with key and id from its fields, unless the options have others", async () => {
    await enqueue(world, placed, { orderId: "o-1" });
    await enqueue(world, placed, { orderId: "o-2" }, { format: "json", key: "k", messageId: "m", headers: { A: "1" } });
    const json = [
      ["A", "1"],
      ["content-type", "application/json; type=acme.v1.Placed"],
      ["message-id", "m"],
    ];
    expect(await forPeers()).toEqual([
      {
        topic: "b",
        text: "\n\u0003o-1",
        headers: [
          ["content-type", "application/x-protobuf; type=acme.v1.Placed"],
          ["message-id", "acme.v1.Placed:o-1"],
        ],
        key: "o-1",
        all: false,
      },
      { topic: "b", text: '{"orderId":"o-2"}', headers: json, key: "k", all: false },
    ]);
  });

  it("goes to the subject that its fields make, into a stream if its option says so", async () => {
    await enqueue(world, stored, { shop: "s1", orderId: "o-1" });
    expect(await forNats()).toMatchObject([
      { subject: "orders.s1.stored", stream: true, key: "o-1", id: "acme.v1.Stored:o-1" },
    ]);
  });

  it("goes by peers or NATS as the call says, where its option has both", async () => {
    await enqueue(world, both, { orderId: "o-1" }, { via: "peers" });
    await enqueue(world, both, { orderId: "o-1" }, { via: "nats" });
    expect(await forPeers()).toMatchObject([
      {
        topic: "b",
        headers: [
          ["content-type", expect.any(String)],
          ["message-id", "acme.v1.Both:o-1"],
        ],
      },
    ]);
    // Core NATS has no ids: that of the option is for peers.
    expect(await forNats()).toMatchObject([{ subject: "orders.both", stream: false, id: null }]);
    const says = async (schema: DescMessage, options: object, code: "invalid_argument" | "invalid_schema") =>
      (await failure(code, enqueue(world, schema, { orderId: "o-1" }, options))).message;
    expect(await says(both, {}, "invalid_argument")).toBe(
      'acme.v1.Both: its option has a topic and a subject; set via: "peers" or via: "nats"',
    );
    expect(await says(both, { via: "mail" }, "invalid_argument")).toBe('via mail: must be "peers" or "nats"');
    expect(await says(both, { via: "nats", messageId: "m" }, "invalid_argument")).toBe(
      "messageId m: needs stream: true; core NATS has no ids",
    );
    expect(await says(placed, { via: "nats" }, "invalid_schema")).toBe(
      "acme.v1.Placed: its option has no subject; set one to use NATS",
    );
    expect(await says(stored, { via: "peers" }, "invalid_schema")).toBe(
      "acme.v1.Stored: its option has no topic; set one to use peers",
    );
    expect(await says(placed, { format: "xml" }, "invalid_argument")).toBe('format xml: must be "binary" or "json"');
  });

  it("refuses what breaks a rule of it", async () => {
    const refused = await failure("invalid_argument", enqueue(world, placed, { orderId: "o" }));
    expect(refused.message).toContain('acme.v1.Placed.order_id "o"');
  });
});

describe("enqueueBatch", () => {
  /** A client that counts its statements. */
  function counting() {
    const texts: string[] = [];
    const query = (text: string, values: unknown[]) => {
      texts.push(text);
      return world.query(text, values);
    };
    return { texts, client: { query } };
  }

  it("writes all with one statement, in order, and resolves with their ids", async () => {
    const { texts, client } = counting();
    const ids = await enqueueBatch(client, "b", ["1", { n: 2 }, Buffer.from("3")].slice(0, 1), { key: "k", all: true });
    const more = await enqueueBatch(client, "b", ["2", "3"], { key: "k", headers: { A: "1" } });
    expect([...ids, ...more]).toEqual([ids[0], ids[0]! + 1n, ids[0]! + 2n]);
    const stream = { subject: "orders.placed", stream: true, domain: "hub" };
    const published = await enqueueBatch(client, stream, [{ n: 1 }, { n: 2 }]);
    expect(published).toEqual([ids[0]! + 3n, ids[0]! + 4n]);
    expect(texts).toHaveLength(3);
    expect(await forPeers()).toMatchObject([
      { text: "1", key: "k", headers: null, all: true },
      { text: "2", key: "k", headers: [["A", "1"]], all: false },
      { text: "3", key: "k", headers: [["A", "1"]] },
    ]);
    const headers = { "content-type": ["application/json"] };
    expect(await forNats()).toMatchObject([
      { text: '{"n":1}', stream: true, domain: "hub", headers },
      { text: '{"n":2}', stream: true, domain: "hub", headers },
    ]);
  });

  it("writes one by one what differs in more than its payload", async () => {
    const { texts, client } = counting();
    const ids = await enqueueBatch(client, placed, [{ orderId: "o-1" }, { orderId: "o-2" }]);
    await enqueueBatch(client, "b", ["text", { json: 1 }]);
    expect(texts).toHaveLength(4);
    const written = await world.query<{ id: number; key: string | null }>(
      "SELECT id, key FROM hawser_data.queue ORDER BY id",
    );
    expect(written.map(({ key }) => key)).toEqual(["o-1", "o-2", null, null]);
    expect(written.slice(0, 2).map(({ id }) => BigInt(id))).toEqual(ids);
  });

  it("asks nothing for none, and is due later as a whole, with its time to live from then on", async () => {
    const { texts, client } = counting();
    expect(await enqueueBatch(client, "b", [])).toEqual([]);
    expect(texts).toEqual([]);
    const ids = await enqueueBatch(client, "b", ["1", "2"], { deliverAt: at(3_600_000) });
    for (const id of ids) expect(await cancel(client, id)).toBe("cancelled");
    await enqueueBatch(client, "b", ["1", "2"], { delayMs: 3_600_000, ttlMs: 1_000 });
    const later = await world.query<{ ms: number }>(
      "SELECT (headers -> 0 ->> 1)::float8 - extract(epoch FROM due_at) * 1000 AS ms FROM hawser_data.queue WHERE later IS NOT NULL",
    );
    for (const { ms } of later) expect(Math.round(ms)).toBe(1_000);
    expect(later).toHaveLength(2);
  });

  it("refuses one that breaks a rule before it writes any, and what is no list", async () => {
    const { texts, client } = counting();
    await failure("invalid_argument", enqueueBatch(client, placed, [{ orderId: "o-1" }, { orderId: "" }]));
    const second = await failure("invalid_argument", enqueueBatch(client, "b", ["x", 17 as never]));
    expect(second.message).toMatch(/^payloads\[1\]: payload a value of type number/);
    const abbreviated = await failure("invalid_argument", enqueueBatch(client, "b", ["x", "y"], { prio: 1 } as never));
    expect(abbreviated.message).toMatch(/^"prio" is not an option of a batch to enqueue; did you mean priority\?/);
    const noList = await failure("invalid_argument", enqueueBatch(client, "b", "x" as never));
    expect(noList.message).toBe("payloads of type string: must be an array with one payload for each message");
    const id = await failure("invalid_argument", enqueueBatch(client, "b", ["x"], { messageId: "1" } as never));
    expect(id.message).toContain("messageId");
    expect(texts).toEqual([]);
  });
});

describe("a message that cannot be enqueued is refused before Postgres is asked:", () => {
  type Refused = [says: string, to: unknown, payload: unknown, options: EnqueueOptions & object];
  const query = () => Promise.reject(new Error("asked"));
  const core = { subject: "a.b" };
  const stream = { ...core, stream: true };

  it.each<Refused>([
    ['topic "a:b"', "a:b", "x", {}],
    ["payload 0 bytes", "b", "", {}],
    ["payload null: must be a string, a Uint8Array, or an object, which is sent as JSON", "b", null, {}],
    ["payload a value of type number: must be a string", "b", 1, {}],
    ["payload a value of type Object: must be a string", "b", { toJSON: () => undefined }, {}],
    ['key ""', "b", "x", { key: "" }],
    ['messageId "a b"', "b", "x", { messageId: "a b" }],
    ["ttlMs 0: must be a whole number", "b", "x", { ttlMs: 0 }],
    ["all 1: must be true or false", "b", "x", { all: 1 as never }],
    ['header name "a b"', "b", "x", { headers: { "a b": "" } }],
    ["deliverAt Invalid Date: must be a valid Date", "b", "x", { deliverAt: new Date(Number.NaN) }],
    ["deliverAt 2030-01-31: must be a valid Date", "b", "x", { deliverAt: "2030-01-31" as never }],
    ["delayMs -1: must be a number of ms from 0 to 316224000000", "b", "x", { delayMs: -1 }],
    ["delayMs 316224000001: must be", "b", "x", { delayMs: 316_224_000_001 }],
    ["delayMs 1 s: must be", "b", "x", { delayMs: "1 s" as never }],
    ["delayMs 5 and deliverAt: leave out one of the two", "b", "x", { delayMs: 5, deliverAt: at(5) }],
    ["via nats: applies to Protobuf only; leave it out", "b", "x", { via: "nats" }],
    ["format json: applies to Protobuf only; leave it out", "b", "x", { format: "json" }],
    ['"ky"', "b", "x", { ky: "" } as never],
    ['"transaction"', "b", "x", { transaction: {} } as never],
    ["a destination of type number: must be a topic, { subject }, { topic, schema }, or a schema", 7, "x", {}],
    ["a destination of type object: must be a topic, { subject }, { topic, schema }, or a schema", null, "x", {}],
    ['"topic"', { topic: "b" }, "x", {}],
    ['subject "a b"', { subject: "a b" }, "x", {}],
    ['subject "a.*"', { subject: "a.*" }, "x", {}],
    ["subject", {}, "x", {}],
    ["stream yes: must be true or false", { ...core, stream: "yes" }, "x", {}],
    ["domain hub: needs stream: true", { ...core, domain: "hub" }, "x", {}],
    ['domain "a.b"', { ...stream, domain: "a.b" }, "x", {}],
    ["messageId 1: needs stream: true; core NATS has no ids", core, "x", { messageId: "1" }],
    ["all true: applies to topics only; leave it out", core, "x", { all: true }],
    ["ttlMs 5: applies to topics only; leave it out", stream, "x", { ttlMs: 5 }],
    ["priority 1: applies to topics only; leave it out", stream, "x", { priority: 1 }],
    [
      "priority 1: a message with a key is handled in order; leave out one of the two",
      "b",
      "x",
      { priority: 1, key: "k" },
    ],
    ["priority", "b", "x", { priority: 32_768 }],
    ["priority", "b", "x", { priority: 0.5 }],
    ["payload", stream, Buffer.alloc(2 ** 26 + 1), {}],
    ...[Promise.resolve(1), new Map(), new Uint16Array(2), new ArrayBuffer(2), new Error("x")].map(
      (payload): Refused => ["payload ", "b", payload, {}],
    ),
    ["payload ", "b", new Date(Number.NaN), {}],
    ["payload ", "b", { a: 1n }, {}],
    ...[null, "text", [null], [["a"]], { a: 1 }].flatMap((headers): Refused[] => [
      ["header", "b", "x", { headers: headers as never }],
      ["header", core, "x", { headers: headers as never }],
    ]),
  ])("%s", async (says, to, payload, options) => {
    const refused = await failure("invalid_argument", enqueue({ query }, to as string, payload as string, options));
    expect(refused.message).toContain(says);
    const { messageId: _, ...common } = options;
    if (options.messageId === undefined) {
      const inBatch = enqueueBatch({ query }, to as string, [payload as string], common);
      expect((await failure("invalid_argument", inBatch)).message).toContain(says);
    }
  });

  it("a topic that is reserved", async () => {
    await failure("internal_topic", enqueue({ query }, "__#x", "x"));
  });

  it("a client that resolves without the rows, as far as can be known before", async () => {
    for (const nothing of [undefined, null, {}, 7, { rows: [[1]] }]) {
      const rowless = { query: async () => nothing };
      expect((await failure("invalid_argument", enqueue(rowless, "b", "x"))).message).toContain("rows");
    }
    for (const none of [undefined, null, {}])
      expect((await failure("invalid_argument", enqueue(none as never, "b", "x"))).message).toContain("fromDrizzle");
  });
});

it("a database without an outbox is told with what makes one, and other errors are those of Postgres", async () => {
  const database = await testDatabase({ migrated: false });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    for (const call of [
      () => enqueue(client, "b", "x"),
      () => enqueueBatch(client, { subject: "a" }, ["x"]),
      () => cancel(client, 1n),
    ]) {
      const missing = await failure("schema_missing", call);
      expect(missing.message).toMatch(
        /^the database lacks the schema of Hawser, or has an older one: .*; run hawser init on it, or start a/,
      );
      expect(missing.cause).toBeInstanceOf(pg.DatabaseError);
    }
  } finally {
    await client.end();
    await database.drop();
  }
  await expect(enqueue(world, "b", "x", { deliverAt: new Date("2999-01-01") })).rejects.toMatchObject({
    code: "22023",
    message: expect.stringMatching(
      /^hawser\.enqueue: the argument deliver_at is 2999-01-01 .*, and must be within 3660 days, and not before 1970$/,
    ),
  });
  const headers = { "message-origin": "a-1:a:me" };
  await expect(enqueue(world, "b", "x", { headers })).rejects.toThrow(
    /"message-origin" is set by Hawser; leave it out/,
  );
});

describe("enqueue of a peer", () => {
  it("makes it the sender, also where it does not run, and to its own topic", async () => {
    const [a, b] = [await world.started("a-1"), await world.started("b-1", {}, (message) => message.reply("thanks"))];
    const other = world.peer("a-2", { topic: "a" });
    const client = await connected();
    await client.query("BEGIN");
    expect(await a.enqueue(client, "b", "x", { key: "k" })).toEqual(expect.any(BigInt));
    await a.enqueue(client, "a", "to itself");
    await other.enqueue(client, placed, { orderId: "o-1" });
    expect(await world.storedMessages()).toBe(0);
    await client.query("COMMIT");
    await Promise.all([a.received.length(2), b.received.length(2)]);
    const common = { senderTopic: "a", enqueuedBy: role, delivery: "at-least-once" };
    expect(b.received.all).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ ...common, sender: "a-1", text: "x" }),
        expect.objectContaining({ ...common, sender: "a-2" }),
      ]),
    );
    expect(a.received.all).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ ...common, sender: "a-1", text: "to itself" }),
        expect.objectContaining({ senderTopic: "b", sender: "b-1", enqueuedBy: undefined, text: "thanks" }),
      ]),
    );
    const decoded = fromBinary(placed, Buffer.from(b.received.all.find(({ sender }) => sender === "a-2")!.text));
    expect(decoded).toMatchObject({ orderId: "o-1" });
  });

  it("gets the replies of a transactional handler, which are from that", async () => {
    const a = await world.started("a-1");
    const receipts: unknown[] = [];
    const b = await world.started("b-1", { transactional: true }, async (message) => {
      receipts.push(await message.reply("thanks", { key: "k" }));
    });
    await a.enqueue(world, "b", "x");
    await a.received.length(1);
    expect(a.received.all[0]).toMatchObject({ topic: "a", senderTopic: "b", sender: "b-1", text: "thanks" });
    expect(receipts.at(-1)).toEqual({ outcome: "enqueued", peer: "a-1", id: expect.any(BigInt) });
    expect(b.received.all).toMatchObject([{ sender: "a-1", senderTopic: "a" }]);
  });

  it("for NATS has no sender there", async () => {
    await world.peer("a-1").enqueue(world, { subject: "a.b" }, "x");
    expect(await world.query("SELECT headers FROM hawser_data.outbox")).toEqual([{ headers: null }]);
  });

  it("keeps a dead letter's reply", async () => {
    let fails = true;
    const a = await world.started("a-1");
    const b = await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, async (message) => {
      if (fails) throw new Error("no");
      await message.reply(`thanks, ${message.sender}`);
    });
    const ids = [await a.enqueue(world, "b", "x", { messageId: "order-17" }), await enqueue(world, "b", "by nobody")];
    await eventually("both are dead", async () => (await world.deadLetters(2)).length === 2);
    for (const [index, peer] of ["a-1", ""].entries()) {
      const id = String(ids[index]);
      for (const kind of ["attempt_failed", "dead_letter"] as const)
        expect(await b.saw(kind, (status) => status.id === id)).toMatchObject({ topic: "b", peer, id });
    }
    const dead = await world.query<{ message_id: string }>(
      "SELECT message_id FROM hawser_data.dead_letters ORDER BY job_id",
    );
    expect(dead.map(({ message_id }) => message_id)).toEqual(ids.map(String));
    for (const by of [String(ids[0]), "order-17"]) {
      const steps = ["dead", "deadByHeader"] as const;
      const found = await withCommandDatabase(world.url, (each) =>
        Promise.all(steps.map((step) => findMessage(each, by, messageIdsOf(by, []), step))),
      );
      expect(found.flat(), by).toMatchObject([{ place: "dead", topic: "b", messageId: "order-17" }]);
    }
    fails = false;
    await using store = await openStore({ databaseUrl: world.url });
    const letters = await store.deadLetters.list();
    expect(letters.map(({ enqueuedBy }) => enqueuedBy).sort()).toEqual(["a-1", role].sort());
    await store.deadLetters.retry({ all: true });
    await a.received.length(1);
    expect(a.texts).toEqual(["thanks, a-1"]);
    await b.saw("dead_letter", ({ message }) => message.includes("no_listener") || message.includes("no recipient"));
  });
});

it("a send is in no transaction, and its words say what is", async () => {
  const a = await world.started("a-1");
  for (const options of [{ transaction: world }, { deliverAt: new Date() }, { delayMs: 5 }]) {
    for (const send of [a.send("b", "x", options as never), a.send(placed, { orderId: "o-1" }, options as never)]) {
      const refused = await failure("invalid_argument", send);
      expect(refused.message).toContain(
        "enqueue(client, topic, payload, options) sends in the transaction of a client",
      );
    }
  }
});

it("a header that says where a message comes from counts only in what was enqueued", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "x", { headers: { "message-origin": "c-1:c:root" } });
  expect(b.received.all).toMatchObject([{ senderTopic: "a", sender: "a-1", enqueuedBy: undefined }]);
});

describe("a transactional handler", () => {
  const transactional = { transactional: true, defaults: { retry: { attempts: 3, delayMs: 5 } } };

  it("replies and enqueues with its commit, and each attempt before leaves nothing", async () => {
    await world.query("CREATE TABLE booked (what text)");
    const [a, c] = await world.running("a-1", "c-1");
    const receipts: unknown[] = [];
    const b = world.peer("b-1", transactional);
    await b.record(async (message: TransactionalMessage) => {
      await message.client.query("INSERT INTO booked VALUES ($1)", [Buffer.from(message.payload).toString()]);
      receipts.push(await message.reply(`done ${message.attempt}`));
      await b.enqueue(message.client, "c", `told ${message.attempt}`);
      if (message.attempt < 3) throw new Error("not yet");
    });
    await a.send("b", "order");
    await Promise.all([a.received.length(1), c.received.length(1)]);
    expect([a.texts, c.texts]).toEqual([["done 3"], ["told 3"]]);
    expect(receipts.at(-1)).toEqual({ outcome: "enqueued", peer: "a-1", id: expect.any(BigInt) });
    expect(await world.query("SELECT what FROM booked")).toEqual([{ what: "order" }]);
  });

  it("cannot reply to what no peer enqueued, nor can another one", async () => {
    const codes: unknown[] = [];
    const reply = async (message: TransactionalMessage) => {
      codes.push((await failure("no_listener", message.reply("x"))).message);
    };
    await world.started("b-1", transactional, reply);
    await world.started("d-1", {}, reply);
    await enqueue(world, "b", "x");
    await world.query("SELECT hawser.enqueue('d', 'x')");
    await eventually("both have tried", () => codes.length === 2);
    expect(codes).toEqual(codes.map(() => expect.stringContaining("no peer sent or enqueued the message")));
  });
});

describe("the relay", () => {
  it("is one of the peers, and another one when that stops", async () => {
    const b = await world.started("b-1");
    const [c, client] = [await world.started("c-1"), await connected()];
    await enqueue(client, "c", "1");
    await c.received.length(1);
    await b.stop();
    await enqueue(client, "c", "2");
    await c.received.length(2);
  });
});

it("a batch with a time to live is one statement, however long it takes to make", async () => {
  const texts: string[] = [];
  const client: SqlClient = {
    query: async (text) => {
      texts.push(text);
      return [{ ids: '["1"]' }];
    },
  };
  await enqueueBatch(
    client,
    "b",
    Array.from({ length: 20_000 }, (_, n) => `message ${n}`),
    { ttlMs: 1_000 },
  );
  expect(texts).toHaveLength(1);
});
