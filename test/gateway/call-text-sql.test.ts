/**
 * What the generated SQL functions write, in a real Postgres with something that writes down instead of a gateway: it
 * parses, and has the values that the functions were called with.
 */
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { natsFunctionsSql } from "../../generated/ts/nats-functions/sql.js";
import { parseCall } from "../../src/gateway/call-text.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await testDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query(natsFunctionsSql.replaceAll("@extschema@", "public").replaceAll("@dblink@", "public"));
  await client.query(`
    CREATE TABLE public.written (query text);
    CREATE OR REPLACE FUNCTION hawser.gateway_call(p_query text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO public.written VALUES (p_query);
      RETURN NULL;
    END $$;`);
});

afterAll(async () => {
  await client?.end();
  await database?.drop();
});

/** What a call of a function has written, parsed. */
async function written(name: string, types: readonly string[], values: readonly unknown[]) {
  const places = types.map((type, position) => `$${position + 1}::${type}`);
  await client.query({ text: `SELECT ${name}(${places.join(", ")})`, values: [...values] });
  const { rows } = await client.query("DELETE FROM public.written RETURNING query");
  expect(rows).toHaveLength(1);
  return parseCall(Buffer.from(rows[0].query));
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const options = { numRuns: 60 };

/** NUL is no text in Postgres. */
const text = fc.string({ unit: "binary", maxLength: 100 }).map((one) => one.replaceAll("\0", "'\\\"\n"));
const optionalText = fc.option(text);
const bytes = fc.uint8Array({ maxLength: 200 });
const headers = fc.option(fc.dictionary(text, fc.oneof(text, fc.array(text, { maxLength: 3 })), { maxKeys: 4 }));
/** Written as one string: jsonb would sort its names, and change its numbers. */
const json = fc.json({ maxDepth: 3 }).filter((one) => !one.includes("\\u0000") && !/\\ud[89a-f]/i.test(one));

it("writes texts, JSON and headers", async () => {
  await fc.assert(
    fc.asyncProperty(optionalText, optionalText, optionalText, headers, async (subject, payload, reply, given) => {
      const values = [subject, payload, reply, given && JSON.stringify(given)];
      const {
        method,
        json: argument,
        list,
      } = await written("nats_publish_text", ["text", "text", "text", "jsonb"], values);
      expect([method, list]).toEqual(["Publish", undefined]);
      expect(argument).toEqual({
        subject,
        payload: payload === null ? null : base64(Buffer.from(payload)),
        reply,
        headers: given,
      });
    }),
    options,
  );
  await fc.assert(
    fc.asyncProperty(json, async (payload) => {
      const { json: argument } = await written("nats_put_json", ["text", "text", "json"], ["b", "k", payload]);
      expect(argument).toEqual({ bucket: "b", key: "k", data: base64(Buffer.from(payload)), domain: null });
    }),
    options,
  );
});

it("writes bytes and numbers", async () => {
  const timeout = fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
  await fc.assert(
    fc.asyncProperty(text, fc.option(bytes), timeout, async (subject, payload, limit) => {
      const values = [subject, payload && Buffer.from(payload), limit];
      const { json: argument } = await written("nats_request_binary", ["text", "bytea", "integer"], values);
      expect(argument).toEqual({ subject, payload: payload && base64(payload), timeout: limit });
    }),
    options,
  );
});

it("writes lists of texts, of JSON and of bytes, with their NULLs", async () => {
  const lists = [
    ["nats_publish_text_batch", "text[]", fc.option(text), (one: string) => Buffer.from(one)],
    ["nats_publish_json_batch", "json[]", fc.option(json), (one: string) => Buffer.from(one)],
    ["nats_publish_binary_batch", "bytea[]", fc.option(bytes.map((one) => Buffer.from(one))), (one: Buffer) => one],
  ] as const;
  for (const [name, type, element, bytesOf] of lists) {
    await fc.assert(
      fc.asyncProperty(
        fc.array(element as fc.Arbitrary<never>, { maxLength: 8 }),
        text,
        async (elements: unknown[], subject) => {
          const { method, json: argument, list } = await written(name, ["text", type], [subject, elements]);
          expect([method, argument]).toEqual(["PublishBatch", { subject, reply: null, headers: null }]);
          expect(list!.payloads!.map((one) => Buffer.from(one))).toEqual(
            elements.map((one) => (one === null ? Buffer.alloc(0) : bytesOf(one as never))),
          );
          expect(list!.firstNull ?? -1).toBe(elements.indexOf(null));
        },
      ),
      options,
    );
  }
});

it("tells an array that is NULL from one that is empty, and one of several dimensions is one list", async () => {
  const list = async (array: string | null) =>
    (await written("nats_publish_text_batch", ["text", "text[]"], ["a", array])).list!.payloads?.map(String);
  expect(await list(null)).toBeUndefined();
  expect(await list("{}")).toEqual([]);
  expect(await list("{{a,b},{c,NULL}}")).toEqual(["a", "b", "c", ""]);
  expect(await list("[5:6]={x,y}")).toEqual(["x", "y"]);
});
