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
  it.each(noText)("%s is refused by nats_get_text, nats_get_json and nats_get_jsonb", async (_name, bytes) => {
    await values.put("k/1", bytes);
    for (const type of ["text", "json", "jsonb"]) {
      const error = await gateway.errorOf(`SELECT nats_get_${type}('${bucket}', 'k/1')`);
      expect(error, type).toMatchObject({ code: "22021", hint: expect.stringContaining("_binary") });
      for (const part of place) expect(error.message).toMatch(part);
    }
    expect(await gateway.value(`SELECT nats_get_binary('${bucket}', 'k/1')`)).toEqual(bytes);
  });
});

const noJson: readonly (readonly [string, string])[] = [
  ["nothing", ""],
  ["white space", " "],
  ["a word", "hello"],
  ["an object without end", '{"a": 1'],
  ["two values", "1 2"],
  ["a quote of another kind", "{'a': 1}"],
  ["a comma too many", "[1,]"],
  ["what JavaScript takes", "NaN"],
  ["a byte order mark before it", "\ufeff{}"],
  ["a control character in a string", '"a\nb"'],
  ["an escape that is none", '"\\x41"'],
  ["a number with a plus", "+1"],
  ["deeper than Postgres goes", "[".repeat(200_000)],
];

describe("a text that is no JSON", () => {
  it.each(noJson)("%s is refused by nats_get_json and nats_get_jsonb", async (_name, text) => {
    await values.put("k/1", text);
    for (const type of ["json", "jsonb"]) {
      const error = await gateway.errorOf(`SELECT nats_get_${type}('${bucket}', 'k/1')`);
      expect(error, type).toMatchObject({ code: "22P02", hint: expect.stringContaining("_text") });
      expect(error.message).toContain(`nats_get_${type}`);
      for (const part of place) expect(error.message).toMatch(part);
      expect(error.detail, type).toMatch(/./);
    }
    expect(await gateway.value(`SELECT nats_get_text('${bucket}', 'k/1')`)).toBe(text);
  });

  it.each([
    ["an escaped NUL", '{"a": "\\u0000"}'],
    ["half of a surrogate pair, escaped", '["\\ud83d"]'],
    ["a number that no numeric holds", "[1e999999]"],
  ])("%s is read by nats_get_json, and refused by nats_get_jsonb, which cannot hold it", async (_name, text) => {
    await values.put("k/1", text);
    expect(await gateway.value(`SELECT nats_get_json('${bucket}', 'k/1')::text`)).toBe(text);
    const error = await gateway.errorOf(`SELECT nats_get_jsonb('${bucket}', 'k/1')`);
    expect(error).toMatchObject({ code: "22P02", hint: expect.stringContaining("_text") });
    for (const part of place) expect(error.message).toMatch(part);
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

  it.each([
    ["NUL in its description", { description: "a\0b" }],
    ["NUL in its metadata", { metadata: { a: "\0" } }],
    ["half of a surrogate pair in its headers", { headers: { A: ["\ud83d"] } }],
  ])("%s is told by an error with a code of its own, not by one of the inside", async (_name, fields) => {
    await gateway.value("SELECT nats_put_file('unreadable_files', 'other', 'x')");
    await record(fields);
    for (const call of ["nats_get_file_info('unreadable_files', 'f')", "nats_get_file_list('unreadable_files')"]) {
      const error = await gateway.errorOf(`SELECT * FROM ${call}`);
      expect(error.code, `${error.code} ${error.message}`).toMatch(/^(22021|22P02|NA000)$/);
      expect(error.message).toContain("unreadable_files");
      expect(error.hint).toMatch(/./);
    }
    expect(await gateway.value("SELECT nats_get_file('unreadable_files', 'other')")).toEqual(Buffer.from("x"));
  });
});
