/**
 * `natsSql`: each of its methods against a real gateway, seen by a client of NATS that knows nothing of ours.
 */
import { readdirSync, readFileSync } from "node:fs";
import type { DescMessage } from "@bufbuild/protobuf";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import type { NatsSql } from "../../generated/ts/nats-functions/client.js";
import { type ErrorCode, HawserError } from "../../src/foundation/errors/index.js";
import type { SqlClient } from "../../src/foundation/sql-clients/index.js";
import { natsSql } from "../../src/nats/client/index.js";
import { codesOfCalls, codesOfLocalCalls } from "../../src/nats/client/nats-sql.js";
import { decode } from "../../src/protobuf/typed/index.js";
import { Witness } from "../gateway/functions/witness.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { compileSchemas, messageIn } from "../typed/support/compile.js";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
let gateway: TestGateway;
let witness: Witness;
let pool: pg.Pool;
let nats: NatsSql;
/** Types of core NATS, of a stream, of a stream with ids, and of peers. */
let placed: DescMessage;
let stored: DescMessage;
let numbered: DescMessage;
let packed: DescMessage;

beforeAll(async () => {
  gateway = await testGateway();
  witness = await Witness.open(gateway.nats, "client.>");
  await witness.manager.streams.add({ name: "client_stream", subjects: ["client.stream.>"] });
  witness.respond("client_rpc", (request) => Buffer.concat([Buffer.from("echo "), request.data]));
  await witness.nats.flush();
  pool = new pg.Pool({ connectionString: gateway.database.url, max: 2 });
  // Dropping the database may end a session that the pool is still closing.
  pool.on("error", () => undefined);
  nats = natsSql(pool);
  const registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1;
      import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
      message Placed {
        option (hawser.v1.topic) = {subject: "client.{tenant}.placed"};
        string tenant = 1; string order_id = 2 [(buf.validate.field).string.min_len = 2];
      }
      message Stored { option (hawser.v1.topic) = {subject: "client.stream.{tenant}" stream: true}; string tenant = 1; }
      message Numbered {
        option (hawser.v1.topic) = {subject: "client.stream.n" stream: true message_id: "number"}; int64 number = 1;
      }
      message Packed { option (hawser.v1.topic) = {topic: "packed"}; }`,
  });
  const schemas = ["Placed", "Stored", "Numbered", "Packed"].map((name) => messageIn(registry, `acme.v1.${name}`));
  [placed, stored, numbered, packed] = schemas as [DescMessage, DescMessage, DescMessage, DescMessage];
});

afterAll(async () => {
  await pool?.end();
  await gateway?.[Symbol.asyncDispose]();
});

/** Resolves with the error of a call. */
async function failureOf(call: Promise<unknown>): Promise<HawserError> {
  const error = await call.then(
    () => expect.unreachable("it succeeds"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof HawserError)) throw error;
  return error;
}

/** A view into a larger buffer, which must not be sent with it. */
const view = new Uint8Array([1, 0, 255, 10, 39, 92, 2]).subarray(1, 6);
const headers = { Trace: ["1", "2"], One: "ä" };
const isJson = { "content-type": "application/json" };

/** Objects that travel as JSON. */
const objects: readonly object[] = [[], [null, [1]], {}, { "": { "ä\"'": [true] } }, { n: -1.5e-7, text: 'a "ä😀"\n' }];

/** The headers of a message that a witness has seen, as an object. */
function headersOf(message: { readonly headers?: Iterable<[string, string[]]> | undefined }): object | undefined {
  return message.headers && Object.fromEntries([...message.headers].map(([name, values]) => [name, values.join()]));
}

describe("publish", () => {
  it("takes all options, or none", async () => {
    await nats.publish("client.a", "ä😀'\n", { reply: "client_answers", headers });
    const full = await witness.message();
    expect([full.string(), full.reply, full.headers?.values("Trace"), full.headers?.get("One")]).toEqual([
      "ä😀'\n",
      "client_answers",
      ["1", "2"],
      "ä",
    ]);
    await nats.publish("client.a", "");
    const bare = await witness.message();
    expect([bare.data.length, bare.reply, bare.headers]).toEqual([0, "", undefined]);
    await nats.publish("client.a", "x", { headers: undefined });
    expect((await witness.message()).headers).toBeUndefined();
  });

  it("sends an object as JSON, as it was written, with a content type", async () => {
    for (const value of objects) {
      await nats.publish("client.a", value);
      const message = await witness.message();
      expect([message.string(), headersOf(message)]).toEqual([JSON.stringify(value), isJson]);
    }
    await nats.publish("client.a", { at: new Date(0), left: undefined }, { headers: { One: "1" } });
    const message = await witness.message();
    expect(message.string()).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
    expect(headersOf(message)).toEqual({ ...isJson, One: "1" });
    await nats.publish("client.a", {}, { headers: { "Content-Type": "text/x" } });
    expect(headersOf(await witness.message())).toEqual({ "Content-Type": "text/x" });
  });

  it("sends the bytes of a Buffer or a view", async () => {
    for (const payload of [view, Buffer.from(view), new Uint8Array()]) {
      await nats.publish("client.a", payload);
      const message = await witness.message();
      expect([Buffer.from(message.data), message.headers]).toEqual([Buffer.from(payload), undefined]);
    }
  });

  it("sends a typed message to the subject of its schema", async () => {
    await nats.publish(placed, { tenant: "acme", orderId: "o-1" } as never, { headers: { One: "1" } });
    const binary = await witness.message();
    expect(binary.subject).toBe("client.acme.placed");
    expect(decode(placed, binary.data)).toMatchObject({ tenant: "acme", orderId: "o-1" });
    expect(headersOf(binary)).toEqual({ "content-type": "application/x-protobuf; type=acme.v1.Placed", One: "1" });
    await nats.publish(placed, { tenant: "acme", orderId: "o-2" } as never, { format: "json" });
    const json = await witness.message();
    expect([json.json(), headersOf(json)]).toEqual([
      { tenant: "acme", orderId: "o-2" },
      { "content-type": "application/json; type=acme.v1.Placed" },
    ]);
  });

  it("waits for the stream that the option of the schema asks for", async () => {
    const before = (await witness.manager.streams.info("client_stream")).state.last_seq;
    expect(await nats.publish(numbered, { number: 17n } as never)).toBeUndefined();
    await nats.publish(numbered, { number: 17n } as never);
    expect((await witness.manager.streams.info("client_stream")).state.last_seq).toBe(before + 1);
    const [first] = await witness.messages(2);
    expect(headersOf(first!)).toMatchObject({ "Nats-Msg-Id": "acme.v1.Numbered:17" });
    expect(await failureOf(nats.publish(stored, { tenant: "a" } as never, { reply: "b" }))).toMatchObject({
      code: "invalid_argument",
      message: '"reply" is not an option of publishToStream; the options are headers, domain, format',
    });
  });

  it("sends nothing of a message that breaks a rule, or whose schema is for something else", async () => {
    const wrong = nats.publish(placed, { tenant: "acme", orderId: "o" } as never);
    expect(await failureOf(wrong)).toMatchObject({
      code: "invalid_argument",
      message: 'acme.v1.Placed.order_id "o": must have at least 2 characters (string.min_len)',
    });
    expect(await failureOf(nats.publish(packed, {} as never))).toMatchObject({ code: "invalid_schema" });
    expect(await failureOf(nats.publishToStream(placed, {} as never))).toMatchObject({
      code: "invalid_schema",
      message: "acme.v1.Placed: its option does not say stream: true; set it, or call publish",
    });
    expect(await failureOf(nats.publish(placed, {} as never, { format: "xml" as never }))).toMatchObject({
      message: 'format xml: must be "binary" or "json"',
    });
    expect(await failureOf(nats.publish("client.a", "x", { format: "json" } as never))).toMatchObject({
      message: '"format" is not an option of publish; the options are reply, headers',
    });
    expect(await witness.untaken()).toBe(0);
  });
});

describe("publishBatch", () => {
  it("publishes in order, whatever the payloads are", async () => {
    const texts = ["a", "", '{"a","b"}', "\\x00", "NULL", "ä\n"];
    await nats.publishBatch("client.a", texts, { headers });
    expect((await witness.messages(texts.length)).map((one) => one.string())).toEqual(texts);
    await nats.publishBatch("client.a", ["a", view, {}, { b: 1 }, Buffer.alloc(0), "{"]);
    const mixed = await witness.messages(6);
    expect(mixed.map((one) => Buffer.from(one.data).toString("latin1"))).toEqual([
      "a",
      Buffer.from(view).toString("latin1"),
      "{}",
      '{"b":1}',
      "",
      "{",
    ]);
    expect(mixed.map(headersOf)).toEqual([undefined, undefined, isJson, isJson, undefined, undefined]);
    await nats.publishBatch("client.a", []);
    await nats.flush();
    expect(await witness.untaken()).toBe(0);
  });

  it("needs one statement for messages of one kind to one subject", async () => {
    const statements: string[] = [];
    const counting = natsSql({
      query(text: string, values: unknown[]) {
        statements.push(text.replace(/^.*\.(nats_\w+)\(.*$/, "$1"));
        return pool.query(text, values);
      },
    });
    await counting.publishBatch("client.a", ["a", "b", {}, [], view]);
    await counting.publishBatch(placed, ["a", "a", "b"].map((tenant) => ({ tenant, orderId: "o-1" })) as never);
    expect((await witness.messages(8)).slice(5).map(({ subject }) => subject)).toEqual([
      "client.a.placed",
      "client.a.placed",
      "client.b.placed",
    ]);
    await counting.publishBatch(stored, [{ tenant: "a" }, { tenant: "a" }] as never);
    await counting.publishBatchToStream(numbered, [{ number: 1n }, { number: 2n }, { number: 1n }] as never);
    await witness.messages(5);
    const types = ["text", "json", "binary", "binary", "binary"];
    expect(statements).toEqual([
      ...types.map((type) => `nats_publish_${type}_batch`),
      ...new Array(4).fill("nats_publish_binary_stream_batch"),
    ]);
  });

  it("sends nothing if one of the payloads is none", async () => {
    for (const [payloads, message] of [
      [
        ["a", 1],
        "payloads a value of type number: must be a string, a Uint8Array, or an object, which is sent as JSON",
      ],
      ["text", "payloads of type string: must be an array, with one payload for each message"],
    ] as const) {
      const refused = await failureOf(nats.publishBatch("client.a", payloads as never));
      expect(refused).toMatchObject({ code: "invalid_argument", message });
    }
    expect(await witness.untaken()).toBe(0);
  });
});

describe("publishToStream and publishBatchToStream", () => {
  it("tell where messages are, and publish batches", async () => {
    const subject = "client.stream.a";
    const before = (await witness.manager.streams.info("client_stream")).state.last_seq;
    const acks = [
      await nats.publishToStream(subject, "1", { headers }),
      await nats.publishToStream(subject, [2]),
      await nats.publishToStream(subject, view),
      await nats.publishToStream(stored, { tenant: "a" } as never),
    ];
    expect(acks).toEqual(
      [1, 2, 3, 4].map((n) => ({ stream: "client_stream", sequence: BigInt(before + n), duplicate: false })),
    );
    await nats.publishBatchToStream(subject, ["5", "6"]);
    await nats.publishBatchToStream(subject, [[7], view]);
    const payloads = (await witness.messages(8)).map((one) => one.string());
    const bytes = Buffer.from(view).toString();
    expect(payloads).toEqual(["1", "[2]", bytes, "\n\u0001a", "5", "6", "[7]", bytes]);
    expect((await witness.manager.streams.info("client_stream")).state.last_seq).toBe(before + 8);
  });

  it("tell of a message that the stream had already", async () => {
    const once = { headers: { "Nats-Msg-Id": "client-once" } };
    const first = await nats.publishToStream("client.stream.a", "x", once);
    expect(await nats.publishToStream("client.stream.a", "x", once)).toEqual({ ...first, duplicate: true });
    await witness.messages(2);
  });
});

describe("request", () => {
  it("resolves with the answer, as bytes, text or JSON", async () => {
    const answer = await nats.request("client_rpc", "ä");
    expect(answer.payload).toEqual(Buffer.from("echo ä"));
    expect(answer.text()).toBe("echo ä");
    expect(() => answer.json()).toThrow(
      expect.objectContaining({
        code: "invalid_message",
        message: expect.stringMatching(/^the payload \(7 bytes\) is not JSON: /),
      }),
    );
    expect((await nats.request("client_rpc", { a: 1 }, { timeoutMs: 2000 })).text()).toBe('echo {"a":1}');
    const bytes = await nats.request("client_rpc", view, { timeoutMs: undefined });
    expect(bytes.payload).toEqual(Buffer.concat([Buffer.from("echo "), view]));
  });
});

describe("the values of a key-value bucket", () => {
  it("are written, with their revision, and read", async () => {
    const bucket = "client_written";
    expect(await nats.kvPut(bucket, "text", "ä\n")).toBe(1n);
    expect((await nats.kvGet(bucket, "text"))?.text()).toBe("ä\n");
    expect(await nats.kvPut(bucket, "binary", view)).toBe(2n);
    expect((await nats.kvGet(bucket, "binary"))?.payload).toEqual(Buffer.from(view));
    for (const value of objects) {
      await nats.kvPut(bucket, "json", value);
      expect((await nats.kvGet(bucket, "json"))?.json()).toEqual(value);
      expect((await witness.value(bucket, "json"))!.string()).toBe(JSON.stringify(value));
    }
  });

  it("are undefined where there are none", async () => {
    await nats.kvPut("client", "gone", "x");
    await nats.kvDelete("client", "gone");
    for (const key of ["gone", "never"]) expect(await nats.kvGet("client", key)).toBeUndefined();
  });

  it.each([
    ["text", "one", "two"],
    ["object", { n: 1 }, { n: 2 }],
    ["bytes", view, Buffer.from([2])],
  ] as const)("are created once, and replaced by who knows the last revision: %s", async (key, first, second) => {
    const bucket = "client_revisions";
    const revision = await nats.kvCreate(bucket, key, first);
    await expect(nats.kvCreate(bucket, key, second)).rejects.toMatchObject({
      code: "key_exists",
      cause: { code: "23505", detail: `Its revision is ${revision}.` },
    });
    const next = await nats.kvUpdate(bucket, key, second, revision);
    expect(next).toBeGreaterThan(revision);
    await expect(nats.kvUpdate(bucket, key, first, revision)).rejects.toMatchObject({
      code: "wrong_revision",
      cause: { code: "NA007" },
    });
    const value = (await nats.kvGet(bucket, key))!;
    expect(key === "bytes" ? value.payload : key === "text" ? value.text() : value.json()).toEqual(second);
  });

  it("are listed by their keys, and with their history", async () => {
    const bucket = "client_history";
    expect(await nats.kvKeys(bucket)).toEqual([]);
    await nats.kvPut(bucket, "b", "1");
    await nats.kvPut(bucket, "a", "2");
    expect(await nats.kvKeys(bucket, {})).toEqual(["a", "b"]);
    const created = expect.stringMatching(/^\d{4}-\d\d-\d\dT/);
    const [only, ...others] = await nats.kvHistory(bucket, "a");
    expect(only).toMatchObject({ revision: 2n, operation: "PUT", created });
    expect([only?.value?.text(), others]).toEqual(["2", []]);
    await nats.kvDelete(bucket, "a");
    expect(await nats.kvHistory(bucket, "a")).toEqual([{ revision: 3n, operation: "DEL", value: undefined, created }]);
    expect(await nats.kvKeys(bucket)).toEqual(["b"]);
  });
});

describe("files", () => {
  it("are written, read, described, listed and deleted", async () => {
    const place = ["client", "a file.txt"] as const;
    await nats.filePut(...place, view);
    expect(await witness.file(...place)).toEqual(Buffer.from(view));
    expect((await nats.fileGet(...place)).payload).toEqual(Buffer.from(view));
    const info = await nats.fileInfo(...place);
    expect(info).toMatchObject({ name: place[1], store: "client", size: 5n, chunks: 1n, deleted: false });
    expect(Object.keys(info)).toHaveLength(12);
    expect(await nats.fileList("client")).toEqual([info]);
    await nats.fileDelete(...place);
    expect(await nats.fileList("client", { domain: undefined })).toEqual([]);
    await expect(nats.fileGet(...place)).rejects.toMatchObject({ remedy: expect.stringMatching(/./) });
  });
});

describe("streams", () => {
  it("are made, changed, listed and deleted", async () => {
    const stream = "client_managed";
    await nats.streamCreate(stream, ["client.managed.*"], { storage: "memory", maxMessages: 2n ** 53n - 1n });
    await nats.streamUpdate(stream, { subjects: ["client.managed.>"], maxAgeMs: 60_000n, duplicateWindowMs: 1_000n });
    const [row] = (await nats.streamList()).filter((each) => each.stream === stream);
    expect(row).toMatchObject({
      ...{ subjects: ["client.managed.>"], storage: "memory", retention: "limits", maxAgeMs: 60_000n, replicas: 1 },
      ...{ maxMessages: 2n ** 53n - 1n, duplicateWindowMs: 1_000n, messages: 0n, consumers: 0 },
    });
    await nats.streamDelete(stream);
    expect((await nats.streamList({ domain: undefined })).filter((each) => each.stream === stream)).toEqual([]);
    await expect(nats.streamUpdate(stream, { maxBytes: 1n })).rejects.toMatchObject({ code: "no_stream" });
  });
});

describe("the rest", () => {
  it("tells about the server and itself, and connects anew", async () => {
    const info = await nats.serverInfo();
    expect(info).toMatchObject({
      serverId: gateway.nats.info!.server_id,
      port: gateway.nats.info!.port,
      headers: true,
    });
    expect([typeof info.maxPayload, typeof info.clientId, typeof info.proto]).toEqual(["bigint", "bigint", "number"]);
    expect(await nats.version()).toMatchObject({ version: manifest.version, commitDate: undefined });
    await nats.reload();
    expect((await nats.serverInfo()).clientId).toBe(info.clientId);
    await nats.forceReload();
    expect((await nats.serverInfo()).clientId).not.toBe(info.clientId);
  });
});

describe("functions that NATS reaches", () => {
  it("are subscribed, made responders, and ended", async () => {
    await gateway.client.query(`
      CREATE FUNCTION client_capture(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
      CREATE FUNCTION client_answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'::bytea$$;
    `);
    const subscribed = () => gateway.value("SELECT count(*)::int FROM pgnats.subscriptions");
    await nats.subscribe("client.reached", "client_capture");
    expect(await subscribed()).toBe(1);
    await nats.unsubscribe("client.reached", "client_capture");
    expect(await subscribed()).toBe(0);
    const options = { name: "client", filter: ["client.*"], keyToken: 2 };
    await nats.subscribeStream("CLIENT_NONE", "client_capture", options);
    await nats.seekStream("client", "17");
    expect(await gateway.value("SELECT filters || start FROM hawser.stream_status")).toEqual(["client.*", "17"]);
    await nats.unsubscribeStream("client");
    await nats.respond("reached_asked", "client_answer");
    await nats.reload();
    expect((await gateway.nats.request("reached_asked", "who", { timeout: 20_000 })).string()).toBe("who!");
    await nats.stopResponding("reached_asked");
    await nats.reload();
    await expect(gateway.nats.request("reached_asked", "who")).rejects.toThrow("no responders");
  });
});

describe("a payload", () => {
  it.each([
    [
      undefined,
      "payload a value of type undefined: must be a string, a Uint8Array, or an object, which is sent as JSON",
    ],
    [null, "payload null: must be a string, a Uint8Array, or an object, which is sent as JSON"],
    [7, "payload a value of type number: must be a string, a Uint8Array, or an object, which is sent as JSON"],
    [new Map(), "payload a value of type Map: must be a string, a Uint8Array, or an object, which is sent as JSON"],
    [
      Promise.resolve("x"),
      "payload a value of type Promise: must be a string, a Uint8Array, or an object, which is sent as JSON",
    ],
    [
      { n: 1n },
      "payload of type Object: must be an object that JSON can represent: Do not know how to serialize a BigInt",
    ],
  ])("is refused if JSON would not hold it: %s", async (payload, message) => {
    const refused = await failureOf(nats.publish("client.a", payload as never));
    expect(refused).toMatchObject({ code: "invalid_argument", message });
  });
});

describe("errors", () => {
  it("are a HawserError by the SQLSTATE, with detail and remedy, and the error of Postgres as its cause", async () => {
    const { cause, ...error } = await failureOf(nats.publish("client.*", "x"));
    expect(error).toMatchObject({ code: "invalid_argument", remedy: expect.stringMatching(/./) });
    expect(cause).toBeInstanceOf(pg.DatabaseError);
    expect(cause).toMatchObject({ code: "22023", message: expect.stringContaining("subject") });
    const nobody = await failureOf(nats.request("client_nobody", "x"));
    expect(nobody).toMatchObject({ code: "no_responders", retryable: true });
    expect(nobody.message).toBe((nobody.cause as Error).message);
    expect(nobody.outcome).toBeUndefined();
  });

  it("of calls that are answered in Postgres have the codes of those", async () => {
    const { code, cause } = await failureOf(nats.subscribe("client.x", "pg_backend_pid"));
    expect([code, (cause as pg.DatabaseError).code]).toEqual(["function_signature", "42883"]);
  });

  it("of Postgres itself are store_failed, of unknown outcome only where the call may have been carried out", async () => {
    const client = new pg.Client({ connectionString: gateway.database.url });
    client.on("error", () => undefined);
    await client.connect();
    const own = natsSql(client);
    await client.query("CREATE ROLE client_nobody");
    try {
      await client.query("SET ROLE client_nobody");
      const refused = await failureOf(own.kvGet("client", "k"));
      expect(refused).toMatchObject({ code: "store_failed", cause: { code: "42501" } });
      expect(refused.outcome).toBeUndefined();
      await client.query("RESET ROLE; SET statement_timeout = 200");
      gateway.nats.subscribe("client_asleep", { callback: () => undefined });
      await gateway.nats.flush();
      const late = await failureOf(own.request("client_asleep", "x", { timeoutMs: 1_000 }));
      expect(late).toMatchObject({ code: "store_failed", outcome: "unknown", cause: { code: "57014" } });
      await client.query("SET statement_timeout = 0");
      const asking = failureOf(own.request("client_asleep", "x", { timeoutMs: 1_000 }));
      client.connection.stream.destroy();
      expect(await asking).toMatchObject({ code: "store_failed", outcome: "unknown" });
    } finally {
      await gateway.client.query("DROP ROLE client_nobody");
    }
  });

  it("are thrown for options and arguments that there are not, with those that there are", async () => {
    for (const none of [undefined, null, {}]) {
      expect(() => natsSql(none as never)).toThrow(
        `the client of natsSql is ${none === null ? none : typeof none} and must have a method query; give a Client or Pool`,
      );
    }
    expect(() => natsSql(pool, { shema: "x" } as never)).toThrow(
      '"shema" is not an option of natsSql; did you mean schema? The options are schema',
    );
    const mistyped = await failureOf(nats.publish("client.a", "x", { header: {} } as never));
    expect(mistyped).toMatchObject({
      code: "invalid_argument",
      message: '"header" is not an option of publish; did you mean headers? The options are reply, headers',
    });
    await failureOf((nats.flush as (options: object) => Promise<void>)({ now: true }));
    for (const [wrong, given] of [
      ["One: 1", "of type string"],
      [[["One", "1"]], "an array"],
    ]) {
      const message = `headers ${given}: must be an object of strings, or of arrays of strings`;
      for (const payload of ["x", {}]) {
        const refused = await failureOf(nats.publish("client.a", payload, { headers: wrong as never }));
        expect(refused).toMatchObject({ code: "invalid_argument", message });
      }
      const typed = nats.publish(placed, { tenant: "a", orderId: "o-1" } as never, { headers: wrong as never });
      expect(await failureOf(typed)).toMatchObject({ code: "invalid_argument", message });
    }
  });

  it("have codes whose SQLSTATEs are different ones", () => {
    for (const codes of [codesOfCalls, codesOfLocalCalls]) {
      const sharing = codes.filter((one) =>
        codes.some((other) => other !== one && errorTable[other].sqlstate === errorTable[one].sqlstate),
      );
      expect(sharing).toEqual([]);
    }
  });

  it("end the transaction that the client is in, and no other", async () => {
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      await expect(natsSql(client).kvGet(".", "k")).rejects.toMatchObject({
        code: "invalid_argument",
      });
      await expect(client.query("SELECT 1")).rejects.toMatchObject({ code: "25P02" });
      await client.query("ROLLBACK");
      expect(await natsSql(client).kvGet("client", "never")).toBeUndefined();
    } finally {
      client.release();
    }
  });
});

describe("the schema", () => {
  it("is quoted", async () => {
    const quoted = natsSql(pool, { schema: 'no"where"; SELECT 1' });
    await expect(quoted.flush()).rejects.toMatchObject({
      code: "store_failed",
      cause: { code: "3F000" },
      message: 'schema "no"where"; SELECT 1" does not exist',
    });
  });
});

describe("types", () => {
  it("let whatever queries like node-postgres be the client", () => {
    expectTypeOf<pg.Client>().toExtend<SqlClient>();
    expectTypeOf<pg.Pool>().toExtend<SqlClient>();
    expectTypeOf<pg.PoolClient>().toExtend<SqlClient>();
  });
});

it("tells apart every error that the operations and their handler throw", () => {
  const folder = "src/nats/connections/operations";
  const files = [...readdirSync(folder).map((file) => `${folder}/${file}`), "src/nats/gateway/nats-handler.ts"];
  const thrown = files.flatMap((file) => [...readFileSync(file, "utf8").matchAll(/new HawserError\(\s*"(\w+)"/g)]);
  const codes = new Set(thrown.map(([, code]) => code as ErrorCode));
  expect(codes.size).toBeGreaterThan(12);
  expect([...codes].filter((code) => !codesOfCalls.includes(code))).toEqual([]);
});

it("has no method that was not called here", () => {
  const calls = readFileSync(new URL(import.meta.url), "utf8");
  expect(Object.keys(natsSql(pool)).filter((name) => !calls.includes(`nats.${name}(`))).toEqual([]);
});
