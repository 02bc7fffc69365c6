/**
 * Missing buckets, keys, stores and files: NULL, no rows or an error, and never created by a read.
 */
import { Kvm } from "@nats-io/kv";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { byPosition, familyOf, sampleCalls } from "./every-function.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
let witness: Witness;
beforeAll(async () => {
  gateway = await testGateway();
  witness = await Witness.open(gateway.nats, "missing.>");
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** Answers and errors of each function whose stream, bucket or store is missing. Only a put or create makes it. */
const whereMissing = {
  "nats_put_*": "makes it",
  "nats_kv_create_*": "makes it",
  nats_put_file: "makes it",
  "nats_kv_update_*": "NA007",
  "nats_get_*": "NULL",
  nats_delete_value: "nothing",
  nats_kv_keys: "no rows",
  nats_kv_history: "no rows",
  nats_get_file: "58P01",
  nats_get_file_info: "58P01",
  nats_get_file_list: "no rows",
  nats_delete_file: "nothing",
  nats_create_stream: "makes it",
  nats_update_stream: "NA003",
  nats_delete_stream: "nothing",
};

it("every function of a stream, a bucket or a store says what is missing, or makes it", async () => {
  const found = new Map<string, string>();
  for (const [nth, { name, given }] of sampleCalls("").entries()) {
    if (!["bucket", "store", "stream"].some((place) => place in given)) continue;
    const word = `missing_every_${nth}`;
    const call = byPosition(sampleCalls(word).find((one) => one.name === name)!);
    const result = await gateway.client.query<Record<string, unknown>>(call).catch((error: { code: string }) => error);
    const value = "rows" in result ? Object.values(result.rows[0] ?? {})[0] : undefined;
    const says =
      "code" in result
        ? result.code
        : value === undefined
          ? "no rows"
          : value === null
            ? "NULL"
            : value === ""
              ? "nothing"
              : String(value);
    const outcome = (await madeFor(word)).length > 0 ? "makes it" : says;
    expect(outcome, name).toBe(found.get(familyOf(name)) ?? outcome);
    found.set(familyOf(name), outcome);
  }
  expect(Object.fromEntries(found)).toEqual(whereMissing);
});

/** The streams of the buckets and stores of a test. */
async function madeFor(word: string): Promise<string[]> {
  return (await witness.streams()).filter((name) => name.includes(word));
}

async function expectFileMissing(call: string, store: string, name: string): Promise<void> {
  const error = await gateway.errorOf(`SELECT * FROM ${call}`);
  expect(error).toMatchObject({ code: "58P01", hint: expect.stringContaining("nats_get_file_list") });
  expect(error.message).toBe(`There is no file "${name}" in the object store "${store}".`);
}

describe("a value that is not there", () => {
  const types = ["text", "json", "jsonb", "binary"];

  it("is NULL if the key is missing, and if it was deleted or purged", async () => {
    const bucket = await new Kvm(gateway.nats).create("missing_key");
    for (const type of types) {
      const get = `SELECT nats_get_${type}('missing_key', $1)`;
      await bucket.put("there", "1");
      expect(await gateway.value(get, ["not/there"]), type).toBeNull();
      expect(await gateway.value(get, ["there"]), type).not.toBeNull();
      await gateway.value("SELECT nats_delete_value('missing_key', 'there')");
      expect((await bucket.get("there"))?.operation).toBe("DEL");
      expect(await gateway.value(get, ["there"]), type).toBeNull();
      await bucket.put("there", "1");
      await bucket.purge("there");
      expect(await gateway.value(get, ["there"]), type).toBeNull();
    }
  });
});

describe("nats_delete_value", () => {
  it("does nothing if the key is missing or deleted already: not even a marker is written", async () => {
    await gateway.value("SELECT nats_put_text('missing_marker', 'k', 'v')");
    const count = async () => (await witness.manager.streams.info("KV_missing_marker")).state.last_seq;
    await gateway.value("SELECT nats_delete_value('missing_marker', 'other')");
    expect(await count()).toBe(1);
    await gateway.value("SELECT nats_delete_value('missing_marker', 'k')");
    expect(await count()).toBe(2);
    await gateway.value("SELECT nats_delete_value('missing_marker', 'k')");
    expect(await count()).toBe(2);
  });
});

describe("a file that is not there", () => {
  it("is an error, and nothing to delete, in a store that exists", async () => {
    await gateway.value("SELECT nats_put_file('missing_file', 'there', 'x')");
    await expectFileMissing("nats_get_file('missing_file', 'f')", "missing_file", "f");
    await expectFileMissing("nats_get_file_info('missing_file', 'f')", "missing_file", "f");
    await gateway.value("SELECT nats_delete_file('missing_file', 'f')");
    expect(await gateway.value("SELECT string_agg(name, ',') FROM nats_get_file_list('missing_file')")).toBe("there");
  });

  it("is missing again when it was deleted, until it is put again", async () => {
    await gateway.value("SELECT nats_put_file('missing_again', 'f', 'one')");
    await gateway.value("SELECT nats_delete_file('missing_again', 'f')");
    await expectFileMissing("nats_get_file('missing_again', 'f')", "missing_again", "f");
    await expectFileMissing("nats_get_file_info('missing_again', 'f')", "missing_again", "f");
    expect((await gateway.client.query("SELECT * FROM nats_get_file_list('missing_again')")).rows).toEqual([]);
    await gateway.value("SELECT nats_delete_file('missing_again', 'f')");
    await gateway.value("SELECT nats_put_file('missing_again', 'f', 'two')");
    expect(await gateway.value("SELECT nats_get_file('missing_again', 'f')")).toEqual(Buffer.from("two"));
    expect((await witness.file("missing_again", "f"))?.toString()).toBe("two");
  });
});
