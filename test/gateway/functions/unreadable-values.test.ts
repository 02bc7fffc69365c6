/**
 * Bytes that are no text, and texts that are no JSON: an error that names the place, and the value stays readable as what
 * it is.
 */
import { jetstream } from "@nats-io/jetstream";
import { type KV, Kvm } from "@nats-io/kv";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";

const bucket = "unreadable";
let gateway: TestGateway;
let values: KV;
beforeAll(async () => {
  gateway = await testGateway();
  values = await new Kvm(jetstream(gateway.nats)).create(bucket);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

const place = [`bucket '?"?${bucket}`, "key '?\"?k/1"].map((one) => new RegExp(one));

const noText: readonly (readonly [string, Buffer])[] = [
  ["a byte that begins nothing", Buffer.from("ab\xff", "latin1")],
  ["a sequence that is cut off", Buffer.from("e282", "hex")],
  ["a sequence that is too long", Buffer.from("c080", "hex")],
  ["half of a surrogate pair", Buffer.from("eda080", "hex")],
  ["beyond the last character", Buffer.from("f4908080", "hex")],
  ["NUL at the start", Buffer.from("\0a")],
  ["NUL in the middle", Buffer.from("a\0b")],
  ["NUL alone", Buffer.from("\0")],
  ["text of another encoding", Buffer.from("gr\xfc\xdfe", "latin1")],
  ["NUL in what would be JSON", Buffer.from('{"a": "\0"}')],
];

describe("a value that is no text", () => {
  it("is refused by nats_get_text, nats_get_json and nats_get_jsonb", async () => {
    for (const [name, bytes] of noText) {
      await values.put("k/1", bytes);
      for (const type of ["text", "json", "jsonb"]) {
        const error = await gateway.errorOf(`SELECT nats_get_${type}('${bucket}', 'k/1')`);
        expect(error, `${type} ${name}`).toMatchObject({ code: "22021", hint: expect.stringContaining("_binary") });
        for (const part of place) expect(error.message).toMatch(part);
      }
      expect(await gateway.value(`SELECT nats_get_binary('${bucket}', 'k/1')`)).toEqual(bytes);
    }
  });
});

const noJson = [
  ...["", " ", "hello", '{"a": 1', "1 2", "{'a': 1}", "[1,]", "NaN", "\ufeff{}", '"a\nb"', '"\\x41"', "+1"],
  // Deeper than Postgres goes.
  "[".repeat(200_000),
];

describe("a text that is no JSON", () => {
  it("is refused by nats_get_json and nats_get_jsonb", async () => {
    for (const text of noJson) {
      await values.put("k/1", text);
      for (const type of ["json", "jsonb"]) {
        const error = await gateway.errorOf(`SELECT nats_get_${type}('${bucket}', 'k/1')`);
        expect(error, `${type} ${text}`).toMatchObject({ code: "22P02", hint: expect.stringContaining("_text") });
        expect(error.message).toContain(`nats_get_${type}`);
        for (const part of place) expect(error.message).toMatch(part);
        expect(error.detail, type).toMatch(/./);
      }
      expect(await gateway.value(`SELECT nats_get_text('${bucket}', 'k/1')`)).toBe(text);
    }
  });

  it("is refused by nats_get_jsonb alone, where that alone cannot hold it", async () => {
    for (const text of ['{"a": "\\u0000"}', '["\\ud83d"]', "[1e999999]"]) {
      await values.put("k/1", text);
      expect(await gateway.value(`SELECT nats_get_json('${bucket}', 'k/1')::text`)).toBe(text);
      const error = await gateway.errorOf(`SELECT nats_get_jsonb('${bucket}', 'k/1')`);
      expect(error, text).toMatchObject({ code: "22P02", hint: expect.stringContaining("_text") });
      for (const part of place) expect(error.message).toMatch(part);
    }
  });
});

describe("a record of a file that Postgres cannot hold", () => {
  const record = (fields: object) => {
    const subject = `$O.unreadable_files.M.${Buffer.from("f").toString("base64url")}==`;
    return jetstream(gateway.nats).publish(subject, JSON.stringify({ ...whole, ...fields }));
  };
  const whole = {
    name: "f",
    bucket: "unreadable_files",
    nuid: "ABCDEFGHIJKLMNOPQRSTUV",
    size: 0,
    chunks: 0,
    mtime: "2026-01-01T00:00:00Z",
    digest: "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
  };

  it("is reported by an error with a code of its own, not by one of the inside", async () => {
    await gateway.value("SELECT nats_put_file('unreadable_files', 'other', 'x')");
    for (const fields of [{ description: "a\0b" }, { metadata: { a: "\0" } }, { headers: { A: ["\ud83d"] } }]) {
      await record(fields);
      for (const call of ["nats_get_file_info('unreadable_files', 'f')", "nats_get_file_list('unreadable_files')"]) {
        const error = await gateway.errorOf(`SELECT * FROM ${call}`);
        expect(error.code, `${error.code} ${error.message}`).toMatch(/^(22021|22P02|NA000)$/);
        expect(error.message).toContain("unreadable_files");
        expect(error.hint).toMatch(/./);
      }
    }
    expect(await gateway.value("SELECT nats_get_file('unreadable_files', 'other')")).toEqual(Buffer.from("x"));
  });
});
