/**
 * The typed client: values that are none, errors, schemas, types.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from "vitest";
import {
  type NatsFunctions,
  natsFunctions,
  type PublishAckRow,
  type QueryClient,
  Serve,
} from "../../src/serve/index.js";
import { install } from "../../src/store/index.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { defineServer, patience, type TestGateway, testGateway } from "../support/gateway.js";
import { onServer } from "../support/on-server.js";
import { Witness } from "./functions/witness.js";

let gateway: TestGateway;
let pool: pg.Pool;
let nats: NatsFunctions;

beforeAll(async () => {
  gateway = await testGateway();
  pool = new pg.Pool({ connectionString: gateway.database.url, max: 2 });
  nats = natsFunctions(pool);
});

afterAll(async () => {
  await pool?.end();
  await gateway?.[Symbol.asyncDispose]();
});

describe("what has no value", () => {
  it.each([undefined, () => 1, Symbol("x")])("is NULL in SQL, which the function refuses: %s", async (payload) => {
    const nullArgument = { code: "22004", message: expect.stringContaining("the argument payload is NULL") };
    await expect(nats.publishJson({ subject: "use.a", payload })).rejects.toMatchObject(nullArgument);
    await expect(nats.publishJsonb({ subject: "use.a", payload })).rejects.toMatchObject(nullArgument);
    await expect(nats.publishJsonBatch({ subject: "use.a", payloads: [1, payload] })).rejects.toMatchObject({
      code: "22004",
      message: expect.stringContaining("payloads[2] is NULL"),
    });
  });

  it("is refused by JSON itself: a bigint, and what holds itself", async () => {
    const itself: unknown[] = [];
    itself.push(itself);
    for (const payload of [1n, itself]) {
      await expect(nats.publishJson({ subject: "use.a", payload })).rejects.toThrow(TypeError);
    }
  });
});

describe("errors", () => {
  it("are those of Postgres, with SQLSTATE, detail and hint", async () => {
    await expect(nats.publishText({ subject: "use.*", payload: "x" })).rejects.toMatchObject({
      code: "22023",
      message: expect.stringContaining("subject"),
      hint: expect.stringMatching(/./),
    });
    await expect(nats.requestText({ subject: "use_nobody", payload: "x" })).rejects.toMatchObject({ code: "NA002" });
  });

  it("end the transaction that the client is in, and no other", async () => {
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      await expect(natsFunctions(client).getText({ bucket: ".", key: "k" })).rejects.toMatchObject({ code: "22023" });
      await expect(client.query("SELECT 1")).rejects.toMatchObject({ code: "25P02" });
      await client.query("ROLLBACK");
      expect(await natsFunctions(client).getText({ bucket: "use", key: "never" })).toBeNull();
    } finally {
      client.release();
    }
  });
});

describe("the schema", () => {
  it("is the one of the installation, whatever its name needs", async () => {
    const schema = "Mine. of NATS";
    await using database = await testDatabase();
    await onServer(database.url, `CREATE SCHEMA "${schema}"`);
    await install({ databaseUrl: database.url, nats: { schema } });
    await using _serve = await Serve.start({ databaseUrl: database.url, gatewayListen: "127.0.0.1:0", ...patience });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    try {
      await defineServer(client, testNatsUrl());
      const own = natsFunctions(client, { schema });
      await own.reloadConf();
      const witness = await Witness.open(gateway.nats, "use.schema");
      await own.publishText({ subject: "use.schema", payload: "x" });
      expect((await witness.message()).subject).toBe("use.schema");
      expect(await own.getText({ bucket: "use", key: "never" })).toBeNull();
      expect((await own.getServerInfo()).headers).toBe(true);
      await expect(natsFunctions(client).flush()).rejects.toMatchObject({ code: "42883" });
    } finally {
      await client.end();
    }
    const quoted = natsFunctions(pool, { schema: 'no"where"; SELECT 1' });
    await expect(quoted.flush()).rejects.toMatchObject({
      code: "3F000",
      message: 'schema "no"where"; SELECT 1" does not exist',
    });
  });
});

describe("types", () => {
  it("let whatever queries like node-postgres be the client", () => {
    expectTypeOf<pg.Client>().toExtend<QueryClient>();
    expectTypeOf<pg.Pool>().toExtend<QueryClient>();
    expectTypeOf<pg.PoolClient>().toExtend<QueryClient>();
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
