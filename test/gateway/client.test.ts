/**
 * The typed client: each of its methods against a real gateway, seen by a client of NATS that knows nothing of ours.
 */
import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from "vitest";
import { type ErrorCode, errorTable, HawserError } from "../../src/errors/index.js";
import { install } from "../../src/installation/index.js";
import { type NatsFunctions, natsFunctions, type PublishAckRow, Serve, type SqlClient } from "../../src/serve/index.js";
import { codesOfCalls, codesOfLocalCalls } from "../../src/serve/nats-functions.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { defineServer, patience, type TestGateway, testGateway } from "../support/gateway.js";
import { onServer } from "../support/on-server.js";
import { Witness } from "./functions/witness.js";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
let gateway: TestGateway;
let witness: Witness;
let pool: pg.Pool;
/** Notes which methods were called. */
let nats: NatsFunctions;
const called = new Set<string>();

beforeAll(async () => {
  gateway = await testGateway();
  witness = await Witness.open(gateway.nats, "client.>");
  await witness.manager.streams.add({ name: "client_stream", subjects: ["client.stream.>"] });
  witness.respond("client_rpc", (request) => Buffer.concat([Buffer.from("echo "), request.data]));
  await witness.nats.flush();
  pool = new pg.Pool({ connectionString: gateway.database.url, max: 2 });
  nats = new Proxy(natsFunctions(pool), {
    get(functions, name: string) {
      called.add(name);
      return Reflect.get(functions, name);
    },
  });
});

afterAll(async () => {
  await pool?.end();
  await gateway?.[Symbol.asyncDispose]();
});

/** Error of a call. */
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

/** JSON values, each with how it is written. */
const jsonValues: readonly unknown[] = [
  null,
  "",
  "null",
  'a "quoted" ä😀\n',
  0,
  -1.5e-7,
  false,
  [],
  [null, [1]],
  {},
  { "": { "ä\"'": [true] } },
];

describe("publishes", () => {
  it("with all arguments, and with the needed ones alone", async () => {
    await nats.publishText({ subject: "client.a", payload: "ä😀'\n", reply: "client_answers", headers });
    const full = await witness.message();
    expect([full.string(), full.reply, full.headers?.values("Trace"), full.headers?.get("One")]).toEqual([
      "ä😀'\n",
      "client_answers",
      ["1", "2"],
      "ä",
    ]);
    await nats.publishText({ subject: "client.a", payload: "" });
    const bare = await witness.message();
    expect([bare.data.length, bare.reply, bare.headers]).toEqual([0, "", undefined]);
    await nats.publishText({ subject: "client.a", payload: "x", reply: null, headers: undefined });
    expect((await witness.message()).headers).toBeUndefined();
  });

  it("JSON values, which it writes itself", async () => {
    for (const value of jsonValues) {
      await nats.publishJson({ subject: "client.a", payload: value });
      expect((await witness.message()).string()).toBe(JSON.stringify(value));
      await nats.publishJsonb({ subject: "client.a", payload: value });
      expect((await witness.message()).json()).toEqual(value);
    }
  });

  it("what JSON.stringify makes of dates and of what has a toJSON", async () => {
    const payload = { at: new Date(0), left: undefined };
    await nats.publishJson({ subject: "client.a", payload });
    expect((await witness.message()).string()).toBe('{"at":"1970-01-01T00:00:00.000Z"}');
  });

  it("bytes, of a Buffer or a view", async () => {
    for (const payload of [view, Buffer.from(view), new Uint8Array()]) {
      await nats.publishBinary({ subject: "client.a", payload });
      expect(Buffer.from((await witness.message()).data)).toEqual(Buffer.from(payload));
    }
  });

  it("lists, in order", async () => {
    const texts = ["a", "", '{"a","b"}', "\\x00", "NULL", "ä\n"];
    await nats.publishTextBatch({ subject: "client.a", payloads: texts, headers });
    expect((await witness.messages(texts.length)).map((one) => one.string())).toEqual(texts);
    await nats.publishJsonBatch({ subject: "client.a", payloads: jsonValues });
    const written = jsonValues.map((one) => JSON.stringify(one));
    expect((await witness.messages(written.length)).map((one) => one.string())).toEqual(written);
    await nats.publishJsonbBatch({ subject: "client.a", payloads: jsonValues });
    expect((await witness.messages(written.length)).map((one) => one.json())).toEqual(jsonValues);
    await nats.publishBinaryBatch({ subject: "client.a", payloads: [view, Buffer.alloc(0), Buffer.from("{")] });
    expect((await witness.messages(3)).map((one) => Buffer.from(one.data))).toEqual([
      Buffer.from(view),
      Buffer.alloc(0),
      Buffer.from("{"),
    ]);
    await nats.publishTextBatch({ subject: "client.a", payloads: [] });
    await nats.flush();
    expect(await witness.untaken()).toBe(0);
  });

  it("to streams, and tells where it is", async () => {
    const subject = "client.stream.a";
    const before = (await witness.manager.streams.info("client_stream")).state.last_seq;
    await nats.publishTextStream({ subject, payload: "1", headers });
    await nats.publishJsonStream({ subject, payload: "2" });
    await nats.publishJsonbStream({ subject, payload: 3, domain: null });
    await nats.publishBinaryStream({ subject, payload: Buffer.from("4") });
    const rows: PublishAckRow[] = [
      await nats.publishTextAck({ subject, payload: "5" }),
      await nats.publishJsonAck({ subject, payload: [6] }),
      await nats.publishJsonbAck({ subject, payload: null }),
      await nats.publishBinaryAck({ subject, payload: view }),
    ];
    expect(rows).toEqual(
      [5, 6, 7, 8].map((n) => ({ stream: "client_stream", seq: BigInt(before + n), duplicate: false })),
    );
    await nats.publishTextStreamBatch({ subject, payloads: ["9", "10"] });
    await nats.publishJsonStreamBatch({ subject, payloads: ["11"] });
    await nats.publishJsonbStreamBatch({ subject, payloads: [12, null] });
    await nats.publishBinaryStreamBatch({ subject, payloads: [view] });
    const payloads = (await witness.messages(14)).map((one) => one.string());
    const bytes = Buffer.from(view).toString();
    expect(payloads).toEqual(["1", '"2"', "3", "4", "5", "[6]", "null", bytes, "9", "10", '"11"', "12", "null", bytes]);
    expect((await witness.manager.streams.info("client_stream")).state.last_seq).toBe(before + 14);
  });

  it("reports a message that the stream had already", async () => {
    const once = { subject: "client.stream.a", payload: "x", headers: { "Nats-Msg-Id": "client-once" } };
    const first = await nats.publishTextAck(once);
    expect(await nats.publishTextAck(once)).toEqual({ ...first, duplicate: true });
    await witness.messages(2);
  });
});

describe("requests", () => {
  it("are answered with bytes", async () => {
    expect(await nats.requestText({ subject: "client_rpc", payload: "ä" })).toEqual(Buffer.from("echo ä"));
    expect(await nats.requestJson({ subject: "client_rpc", payload: "ä", timeout: 2000 })).toEqual(
      Buffer.from('echo "ä"'),
    );
    expect(await nats.requestJsonb({ subject: "client_rpc", payload: { a: 1 }, timeout: null })).toEqual(
      Buffer.from('echo {"a": 1}'),
    );
    const answer = await nats.requestBinary({ subject: "client_rpc", payload: view, timeout: undefined });
    expect(answer).toEqual(Buffer.concat([Buffer.from("echo "), view]));
  });
});

describe("values", () => {
  it("are written, with their revision, and read as what they were", async () => {
    expect(await nats.putText({ bucket: "client", key: "text", data: "ä\n" })).toBe(1n);
    expect(await nats.getText({ bucket: "client", key: "text" })).toBe("ä\n");
    expect(await nats.putBinary({ bucket: "client", key: "binary", data: view })).toBe(2n);
    expect(await nats.getBinary({ bucket: "client", key: "binary", domain: null })).toEqual(Buffer.from(view));
    for (const value of jsonValues) {
      await nats.putJson({ bucket: "client", key: "json", data: value });
      expect(await nats.getJson({ bucket: "client", key: "json" })).toEqual(value);
      expect((await witness.value("client", "json"))!.string()).toBe(JSON.stringify(value));
      await nats.putJsonb({ bucket: "client", key: "jsonb", data: value });
      expect(await nats.getJsonb({ bucket: "client", key: "jsonb" })).toEqual(value);
    }
  });

  it("are null where there are none", async () => {
    await nats.putText({ bucket: "client", key: "gone", data: "x" });
    await nats.deleteValue({ bucket: "client", key: "gone" });
    for (const key of ["gone", "never"]) {
      expect(await nats.getText({ bucket: "client", key })).toBeNull();
      expect(await nats.getJson({ bucket: "client", key })).toBeNull();
      expect(await nats.getJsonb({ bucket: "client", key })).toBeNull();
      expect(await nats.getBinary({ bucket: "client", key })).toBeNull();
    }
  });
});

describe("values by their revision", () => {
  const forms = [
    ["Text", "one", "two"],
    ["Json", { n: 1 }, { n: 2 }],
    ["Jsonb", { n: 1 }, { n: 2 }],
    ["Binary", view, Buffer.from([2])],
  ] as const;

  it.each(forms)("are created once, and replaced by who knows the last: %s", async (form, first, second) => {
    const place = { bucket: "client_revisions", key: form };
    const create = nats[`kvCreate${form}`] as (args: object) => Promise<bigint>;
    const update = nats[`kvUpdate${form}`] as (args: object) => Promise<bigint>;
    const revision = await create({ ...place, data: first });
    await expect(create({ ...place, data: second })).rejects.toMatchObject({
      code: "key_exists",
      cause: { code: "23505", detail: `Its revision is ${revision}.` },
    });
    const next = await update({ ...place, data: second, revision });
    expect(next).toBeGreaterThan(revision);
    await expect(update({ ...place, data: first, revision })).rejects.toMatchObject({
      code: "wrong_revision",
      cause: { code: "NA007" },
    });
    expect(await nats[`get${form}`](place)).toEqual(second);
  });

  it("are listed by their keys, and with their history", async () => {
    const bucket = "client_history";
    expect(await nats.kvKeys({ bucket })).toEqual([]);
    await nats.putText({ bucket, key: "b", data: "1" });
    await nats.putText({ bucket, key: "a", data: "2" });
    expect(await nats.kvKeys({ bucket, domain: null })).toEqual([{ key: "a" }, { key: "b" }]);
    const created = expect.stringMatching(/^\d{4}-\d\d-\d\dT/);
    expect(await nats.kvHistory({ bucket, key: "a" })).toEqual([
      { revision: 2n, operation: "PUT", value: Buffer.from("2"), created },
    ]);
    await nats.deleteValue({ bucket, key: "a" });
    expect(await nats.kvHistory({ bucket, key: "a" })).toEqual([
      { revision: 3n, operation: "DEL", value: null, created },
    ]);
    expect(await nats.kvKeys({ bucket })).toEqual([{ key: "b" }]);
  });
});

describe("files", () => {
  it("are written, read, described, listed and deleted", async () => {
    const place = { store: "client", name: "a file.txt" };
    await nats.putFile({ ...place, content: view });
    expect(await witness.file(place.store, place.name)).toEqual(Buffer.from(view));
    expect(await nats.getFile(place)).toEqual(Buffer.from(view));
    const info = await nats.getFileInfo(place);
    expect(info).toMatchObject({ name: place.name, bucket: "client", size: 5n, chunks: 1n, delete: false });
    expect(Object.keys(info)).toHaveLength(12);
    expect(await nats.getFileList({ store: "client" })).toEqual([info]);
    await nats.deleteFile(place);
    expect(await nats.getFileList({ store: "client", domain: null })).toEqual([]);
    await expect(nats.getFile(place)).rejects.toMatchObject({ hint: expect.stringMatching(/./) });
  });
});

describe("the rest", () => {
  it("tells about the server and itself, and connects again", async () => {
    const info = await nats.getServerInfo();
    expect(info).toMatchObject({
      serverId: gateway.nats.info!.server_id,
      port: gateway.nats.info!.port,
      headers: true,
    });
    expect([typeof info.maxPayload, typeof info.clientId, typeof info.proto]).toEqual(["bigint", "bigint", "number"]);
    expect(await nats.version()).toMatchObject({ version: manifest.version, commitDate: null });
    await nats.reloadConf();
    expect((await nats.getServerInfo()).clientId).toBe(info.clientId);
    await nats.reloadConfForce();
    expect((await nats.getServerInfo()).clientId).not.toBe(info.clientId);
  });
});

describe("what NATS reaches", () => {
  it("is subscribed and registered, and ended", async () => {
    await gateway.client.query(`
      CREATE FUNCTION client_capture(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
      CREATE FUNCTION client_answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload || '!'::bytea$$;
    `);
    const subscribed = () => gateway.value("SELECT count(*)::int FROM pgnats.subscriptions");
    await nats.subscribe({ subject: "client.reached", fnOid: "client_capture" });
    expect(await subscribed()).toBe(1);
    await nats.unsubscribe({ subject: "client.reached", fnOid: "client_capture" });
    expect(await subscribed()).toBe(0);
    const stream = { name: "client", fnOid: "client_capture", stream: "CLIENT_NONE" };
    await nats.subscribeStream({ ...stream, filter: "{client.*}", keyToken: 2 });
    await nats.seekStream({ name: "client", start: "17" });
    expect(await gateway.value("SELECT filters || start FROM hawser.stream_status")).toEqual(["client.*", "17"]);
    await nats.unsubscribeStream({ name: "client" });
    await nats.registerResponder({ subject: "reached_asked", fnOid: "client_answer" });
    await nats.reloadConf();
    expect((await gateway.nats.request("reached_asked", "who", { timeout: 20_000 })).string()).toBe("who!");
    await nats.unregisterResponder({ subject: "reached_asked" });
    await nats.reloadConf();
    await expect(gateway.nats.request("reached_asked", "who")).rejects.toThrow("no responders");
  });
});

describe("what has no value", () => {
  it.each([undefined, () => 1, Symbol("x")])("is NULL in SQL, which the function refuses: %s", async (payload) => {
    const nullArgument = { code: "null_argument", message: expect.stringContaining("the argument payload is NULL") };
    await expect(nats.publishJson({ subject: "client.a", payload })).rejects.toMatchObject(nullArgument);
    await expect(nats.publishJsonb({ subject: "client.a", payload })).rejects.toMatchObject(nullArgument);
    await expect(nats.publishJsonBatch({ subject: "client.a", payloads: [1, payload] })).rejects.toMatchObject({
      code: "null_argument",
      message: expect.stringContaining("payloads[2] is NULL"),
    });
  });

  it("is refused by JSON itself: a bigint, and what holds itself", async () => {
    const itself: unknown[] = [];
    itself.push(itself);
    for (const payload of [1n, itself]) {
      await expect(nats.publishJson({ subject: "client.a", payload })).rejects.toThrow(TypeError);
    }
  });
});

describe("errors", () => {
  it("are a HawserError by the SQLSTATE, with detail and hint, and the error of Postgres as its cause", async () => {
    const { cause, ...error } = await failureOf(nats.publishText({ subject: "client.*", payload: "x" }));
    expect(error).toMatchObject({ code: "invalid_argument", hint: expect.stringMatching(/./) });
    expect(cause).toBeInstanceOf(pg.DatabaseError);
    expect(cause).toMatchObject({ code: "22023", message: expect.stringContaining("subject") });
    const nobody = await failureOf(nats.requestText({ subject: "client_nobody", payload: "x" }));
    expect(nobody).toMatchObject({ code: "no_responders", retryable: true });
    expect(nobody.message).toBe((nobody.cause as Error).message);
    expect(nobody.outcome).toBeUndefined();
  });

  it("of calls that are answered in Postgres have the codes of those", async () => {
    const { code, cause } = await failureOf(nats.subscribe({ subject: "client.x", fnOid: "pg_backend_pid" }));
    expect([code, (cause as pg.DatabaseError).code]).toEqual(["function_signature", "42883"]);
  });

  it("of Postgres itself are store_failed, of unknown outcome only if the call may have been carried out", async () => {
    const client = new pg.Client({ connectionString: gateway.database.url });
    client.on("error", () => undefined);
    await client.connect();
    const own = natsFunctions(client);
    await client.query("CREATE ROLE client_nobody");
    try {
      await client.query("SET ROLE client_nobody");
      const refused = await failureOf(own.getText({ bucket: "client", key: "k" }));
      expect(refused).toMatchObject({ code: "store_failed", cause: { code: "42501" } });
      expect(refused.outcome).toBeUndefined();
      await client.query("RESET ROLE; SET statement_timeout = 200");
      gateway.nats.subscribe("client_asleep", { callback: () => undefined });
      await gateway.nats.flush();
      const late = await failureOf(own.requestText({ subject: "client_asleep", payload: "x", timeout: 1_000 }));
      expect(late).toMatchObject({ code: "store_failed", outcome: "unknown", cause: { code: "57014" } });
      await client.query("SET statement_timeout = 0");
      const asking = failureOf(own.requestText({ subject: "client_asleep", payload: "x", timeout: 1_000 }));
      client.connection.stream.destroy();
      expect(await asking).toMatchObject({ code: "store_failed", outcome: "unknown" });
    } finally {
      await gateway.client.query("DROP ROLE client_nobody");
    }
  });

  it("are thrown for options and arguments that there are not, with those that there are", async () => {
    for (const none of [undefined, null, {}]) {
      expect(() => natsFunctions(none as never)).toThrow(
        `the client of natsFunctions is ${none === null ? none : typeof none} and must have a method query; give a Client or Pool`,
      );
    }
    expect(() => natsFunctions(pool, { shema: "x" } as never)).toThrow(
      '"shema" is no option of natsFunctions; did you mean schema? The options are schema',
    );
    const mistyped = await failureOf(nats.publishText({ subject: "client.a", payload: "x", header: {} } as never));
    expect(mistyped).toMatchObject({
      code: "invalid_argument",
      message:
        '"header" is no option of publishText; did you mean headers? The options are subject, payload, reply, headers',
    });
    await failureOf((nats.flush as (args: object) => Promise<void>)({ now: true }));
  });

  it("have codes whose SQLSTATEs are different ones", () => {
    for (const codes of [codesOfCalls, codesOfLocalCalls]) {
      const sqlstates = codes.map((code) => errorTable[code].sqlstate);
      expect(new Set(sqlstates).size).toBe(codes.length);
    }
  });

  it("end the transaction that the client is in, and no other", async () => {
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      await expect(natsFunctions(client).getText({ bucket: ".", key: "k" })).rejects.toMatchObject({
        code: "invalid_argument",
      });
      await expect(client.query("SELECT 1")).rejects.toMatchObject({ code: "25P02" });
      await client.query("ROLLBACK");
      expect(await natsFunctions(client).getText({ bucket: "client", key: "never" })).toBeNull();
    } finally {
      client.release();
    }
  });
});

describe("the schema", () => {
  it("is the one of the installation, whatever its name needs", async () => {
    const schema = "Mine. of NATS";
    await using database = await testDatabase({ nats: false });
    await onServer(database.url, `CREATE SCHEMA "${schema}"`);
    await install({ databaseUrl: database.url, nats: { schema } });
    await using _serve = await Serve.start({ databaseUrl: database.url, gatewayListen: "127.0.0.1:0", ...patience });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    try {
      await defineServer(client, testNatsUrl());
      const own = natsFunctions(client, { schema });
      await own.reloadConf();
      await own.publishText({ subject: "client.schema", payload: "x" });
      expect((await witness.message()).subject).toBe("client.schema");
      expect(await own.getText({ bucket: "client", key: "never" })).toBeNull();
      expect((await own.getServerInfo()).headers).toBe(true);
      const missing = await failureOf(natsFunctions(client).flush());
      expect(missing).toMatchObject({ code: "store_failed", cause: { code: "42883" } });
    } finally {
      await client.end();
    }
    const quoted = natsFunctions(pool, { schema: 'no"where"; SELECT 1' });
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

  it("say what goes in and what comes out", () => {
    expectTypeOf<NatsFunctions["putText"]>().returns.resolves.toBeBigInt();
    expectTypeOf<NatsFunctions["getBinary"]>().returns.resolves.toEqualTypeOf<Uint8Array | null>();
    expectTypeOf<NatsFunctions["getJson"]>().returns.resolves.toBeUnknown();
    expectTypeOf<NatsFunctions["getText"]>().returns.resolves.toEqualTypeOf<string | null>();
    expectTypeOf<NatsFunctions["requestText"]>().returns.resolves.toEqualTypeOf<Uint8Array>();
    expectTypeOf<NatsFunctions["flush"]>().returns.resolves.toBeVoid();
    expectTypeOf<PublishAckRow["seq"]>().toBeBigInt();
    // @ts-expect-error a payload of text is no number
    expectTypeOf<NatsFunctions["publishText"]>().toBeCallableWith({ subject: "a", payload: 1 });
    // @ts-expect-error the payload is needed
    expectTypeOf<NatsFunctions["publishText"]>().toBeCallableWith({ subject: "a" });
    // @ts-expect-error there is no such argument
    expectTypeOf(() => nats.publishText({ subject: "a", payload: "", domain: "d" })).toBeFunction();
  });
});

it("tells apart every error that the operations and their handler throw", () => {
  const folder = "src/nats/operations";
  const files = [...readdirSync(folder).map((file) => `${folder}/${file}`), "src/gateway/nats-handler.ts"];
  const thrown = files.flatMap((file) => [
    ...readFileSync(file, "utf8").matchAll(/new (?:Nats|Gateway)Error\(\s*"(\w+)"/g),
  ]);
  const codes = new Set(thrown.map(([, code]) => code as ErrorCode));
  expect(codes.size).toBeGreaterThan(12);
  expect([...codes].filter((code) => !codesOfCalls.includes(code))).toEqual([]);
});

it("has no method that was not called here", () => {
  expect([...called].sort()).toEqual(Object.keys(natsFunctions(pool)).sort());
});
