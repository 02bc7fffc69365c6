/**
 * What is not there: NULL, no rows or an error, and never made by looking.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
let witness: Witness;
beforeAll(async () => {
  gateway = await testGateway();
  witness = await Witness.open(gateway.nats, "missing.>");
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** The streams of the buckets and stores of a test. */
async function madeFor(word: string): Promise<string[]> {
  return (await witness.streams()).filter((name) => name.includes(word));
}

async function expectFileMissing(call: string, store: string, name: string): Promise<void> {
  const error = await gateway.errorOf(`SELECT * FROM ${call}`);
  expect(error).toMatchObject({ code: "58P01", hint: expect.stringContaining("nats_get_file_list") });
  expect(error.message).toContain(`"${store}"`);
  expect(error.message).toContain(`"${name}"`);
}

describe.each(["text", "json", "jsonb", "binary"])("nats_get_%s", (type) => {
  it("gives NULL for a missing bucket, and makes none", async () => {
    expect(await gateway.value(`SELECT nats_get_${type}('missing_${type}', 'k')`)).toBeNull();
    expect(await madeFor(`missing_${type}`)).toEqual([]);
  });

  it("gives NULL for a missing key and for one that was deleted or purged", async () => {
    const value = type === "text" || type === "binary" ? "'v'" : "'1'";
    await gateway.value(`SELECT nats_put_${type}('missing_key_${type}', 'there', ${value})`);
    const get = `SELECT nats_get_${type}('missing_key_${type}', $1)`;
    expect(await gateway.value(get, ["not/there"])).toBeNull();
    expect(await gateway.value(get, ["there"])).not.toBeNull();
    await gateway.value(`SELECT nats_delete_value('missing_key_${type}', 'there')`);
    expect(await gateway.value(get, ["there"])).toBeNull();
  });
});

describe("nats_delete_value", () => {
  it("does nothing where the bucket is missing, and makes none", async () => {
    await gateway.value("SELECT nats_delete_value('missing_delete', 'k')");
    expect(await madeFor("missing_delete")).toEqual([]);
  });

  it("does nothing where the key is missing or deleted already: not even a marker is written", async () => {
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
  it("is an error for nats_get_file and nats_get_file_info, no row for nats_get_file_list, and nothing to delete; no store is made", async () => {
    await expectFileMissing("nats_get_file('missing_store', 'f.txt')", "missing_store", "f.txt");
    await expectFileMissing("nats_get_file_info('missing_store', 'f.txt')", "missing_store", "f.txt");
    expect((await gateway.client.query("SELECT * FROM nats_get_file_list('missing_store')")).rows).toEqual([]);
    await gateway.value("SELECT nats_delete_file('missing_store', 'f.txt')");
    expect(await madeFor("missing_store")).toEqual([]);
  });

  it("stays missing in a store that is there", async () => {
    await gateway.value("SELECT nats_put_file('missing_file', 'there', 'x')");
    await expectFileMissing("nats_get_file('missing_file', 'f')", "missing_file", "f");
    await expectFileMissing("nats_get_file_info('missing_file', 'f')", "missing_file", "f");
    await gateway.value("SELECT nats_delete_file('missing_file', 'f')");
    expect(await gateway.value("SELECT string_agg(name, ',') FROM nats_get_file_list('missing_file')")).toBe("there");
  });

  it("is missing again when it was deleted, until it is put anew", async () => {
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

describe("putting makes what is missing, with the defaults of the client", () => {
  it("a bucket: in files, one revision, without a time limit", async () => {
    await gateway.value("SELECT nats_put_text('missing_made', 'k', 'v')");
    const { config } = await witness.manager.streams.info("KV_missing_made");
    expect(config).toMatchObject({ storage: "file", max_msgs_per_subject: 1, max_age: 0 });
  });

  it("a store: in files", async () => {
    await gateway.value("SELECT nats_put_file('missing_made', 'f', 'x')");
    expect((await witness.manager.streams.info("OBJ_missing_made")).config).toMatchObject({
      storage: "file",
      max_age: 0,
    });
  });
});
