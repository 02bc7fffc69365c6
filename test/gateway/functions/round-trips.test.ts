/**
 * Values arrive byte for byte on every path: published, requested, put and read again, in files.
 */
import { randomBytes } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { atDepth } from "../../support/depth.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { allCharacters, jsonTexts, texts } from "./hard-values.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
let witness: Witness;
beforeAll(async () => {
  gateway = await testGateway();
  witness = await Witness.open(gateway.nats, "exact.>");
  await witness.manager.streams.add({ name: "exact_stream", subjects: ["exact.stream"] });
  witness.respond("exact-echo", (request) => request.data);
  await gateway.nats.flush();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** The types, with what makes the literal of a parameter of each. */
const typeOf = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;
type Type = keyof typeof typeOf;

/** Key with all kinds of characters that are permitted. */
const key = "a/b=c.1_-";

/** Sends the value on every way that takes its type; all must carry the bytes, and give `read` when read again. */
async function expectExact(type: Type, value: string | Buffer, bytes: Buffer): Promise<void> {
  const parameter = `$1::${typeOf[type]}`;
  const run = (sql: string) => gateway.value(sql, [value]);
  const same = (what: string, found: Uint8Array) => {
    if (!bytes.equals(found)) expect(Buffer.from(found).toString("hex"), what).toBe(bytes.toString("hex"));
  };

  await run(`SELECT nats_publish_${type}('exact.core', ${parameter})`);
  same("published", (await witness.message()).data);
  await run(`SELECT nats_publish_${type}_stream('exact.stream', ${parameter})`);
  same("published into a stream", (await witness.message()).data);
  await run(`SELECT seq FROM nats_publish_${type}_ack('exact.stream', ${parameter})`);
  same("published with its ack", (await witness.message()).data);
  for (const way of ["core", "stream"]) {
    const form = way === "core" ? "batch" : "stream_batch";
    await run(`SELECT nats_publish_${type}_${form}('exact.${way}', ARRAY[${parameter}, ${parameter}])`);
    for (const one of await witness.messages(2)) same(`published by ${form}`, one.data);
  }
  same("requested", (await run(`SELECT nats_request_${type}('exact-echo', ${parameter}, 20000)`)) as Buffer);
  await run(`SELECT nats_put_${type}('exact', '${key}', ${parameter})`);
  same("put", (await witness.value("exact", key))!.value);
  same(
    "read as bytes",
    (await run(`SELECT nats_get_binary('exact', '${key}') FROM (SELECT ${parameter}) AS unused`)) as Buffer,
  );
  const read = `SELECT nats_get_${type}('exact', '${key}')::text = ${parameter}::text`;
  expect(await run(read), `read again as ${type}`).toBe(true);
}

describe("text is carried exactly", () => {
  it.each(texts)("$name", async ({ text }) => {
    await expectExact("text", text, Buffer.from(text));
  });

  it("all characters, or those of the first planes", async () => {
    for (const text of [...allCharacters()].slice(0, atDepth(10))) await expectExact("text", text, Buffer.from(text));
  });
});

describe("json is carried as the text it is", () => {
  it.each(jsonTexts)("$name", async ({ json }) => {
    await expectExact("json", json, Buffer.from(json));
  });
});

describe("jsonb is carried as Postgres prints it", () => {
  it.each(jsonTexts.filter(({ jsonb }) => jsonb !== undefined))("$name", async ({ json, jsonb }) => {
    expect(await gateway.value("SELECT $1::jsonb::text", [json])).toBe(jsonb);
    await expectExact("jsonb", json, Buffer.from(jsonb!));
  });
});

describe("bytes are carried exactly", () => {
  it.each([
    ["none", Buffer.alloc(0)],
    ["NUL alone", Buffer.alloc(1)],
    ["each byte", Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))],
    ["what ends a line of the protocol", Buffer.from("\r\nPUB x 1\r\n\0\r\n")],
    ["what is not UTF-8", Buffer.from("c328a0a1e28028f8a1a1a1a1eda080", "hex")],
    ["what looks like an escape", Buffer.from("\\x00\\000\\\\")],
    ["a number of bytes that is no multiple of three", randomBytes(1000)],
    ["more than a line of base64", randomBytes(70_001)],
  ])("%s", async (_name, bytes) => {
    await expectExact("binary", bytes, bytes);
  });
});

describe("a payload of the largest size that NATS takes", () => {
  it("is carried exactly", async () => {
    const limit = gateway.nats.info!.max_payload;
    const bytes = randomBytes(limit);
    await gateway.value("SELECT nats_publish_binary('exact.core', $1)", [bytes]);
    expect(bytes.equals((await witness.message()).data)).toBe(true);
    expect(bytes.equals(await gateway.value("SELECT nats_request_binary('exact-echo', $1, 20000)", [bytes]))).toBe(
      true,
    );
    const text = "\u{1f6f3}ä".repeat(Math.floor((limit - 1000) / 6));
    await gateway.value("SELECT nats_put_text('exact', 'long', $1)", [text]);
    expect((await witness.value("exact", "long"))!.string()).toBe(text);
    expect(await gateway.value("SELECT nats_get_text('exact', 'long') = $1", [text])).toBe(true);
  });
});

describe("files are carried exactly", () => {
  it.each([
    ["empty", 0],
    ["of one byte", 1],
    ["as long as a chunk", 128 * 1024],
    ["a byte longer than a chunk", 128 * 1024 + 1],
    ["of 2 MiB", 2 * 1024 * 1024],
  ])("%s", async (name, length) => {
    const content = randomBytes(length);
    await gateway.value("SELECT nats_put_file('exact', $1, $2)", [name, content]);
    expect(content.equals((await witness.file("exact", name))!)).toBe(true);
    expect(content.equals(await gateway.value("SELECT nats_get_file('exact', $1)", [name]))).toBe(true);
    const { rows } = await gateway.client.query("SELECT * FROM nats_get_file_info('exact', $1)", [name]);
    expect(rows).toMatchObject([{ name, size: `${length}`, chunks: `${Math.ceil(length / (128 * 1024))}` }]);
  });

  it("by any name", async () => {
    const names = [...texts.map(({ text }) => text), "a/b", "..", "*", ">", "x".repeat(1024)].filter(
      (name) => name !== "" && Buffer.byteLength(name) <= 1024,
    );
    for (const [index, name] of names.entries()) {
      await gateway.value("SELECT nats_put_file('exact_names', $1, $2)", [name, Buffer.from(`${index}`)]);
    }
    for (const [index, name] of names.entries()) {
      const content = Buffer.from(`${index}`);
      expect(await gateway.value("SELECT nats_get_file('exact_names', $1)", [name]), name).toEqual(content);
      // As the specification has it; the stock client knows no names beyond Latin-1.
      const encoded = Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
      const at = { last_by_subj: `$O.exact_names.M.${encoded}` };
      expect((await witness.manager.streams.getMessage("OBJ_exact_names", at))?.json()).toMatchObject({ name });
      expect(await gateway.value("SELECT name FROM nats_get_file_info('exact_names', $1)", [name])).toBe(name);
    }
    const listed = (await gateway.client.query("SELECT name FROM nats_get_file_list('exact_names')")).rows;
    expect(listed.map(({ name }) => name).sort()).toEqual([...names].sort());
  });
});

describe("headers are carried exactly", () => {
  const cases: readonly (readonly [string, Record<string, string | string[]>])[] = [
    ["one", { Trace: "1" }],
    ["several, with their cases apart", { Trace: "1", trace: "2", TRACE: ["3", "4"] }],
    ["many values in their order", { List: Array.from({ length: 100 }, (_, index) => `${99 - index}`) }],
    ["values of Unicode", { Text: "ä 漢字 \u{1f6f3}\u{1f3fd} e\u0301 \ufeffx" }],
    ["a value that is empty", { Empty: "" }],
    ["a value with colons, quotes and tabs", { Value: 'a: b: "c"\td' }],
    ["names of all that is allowed", { "!#$%&'*+-.^_`|~\"(),/;<=>?@[\\]{}09azAZ": "x" }],
    [
      "names that objects of JavaScript have",
      { constructor: "1", __proto__x: "2", toString: "3", hasOwnProperty: "4" },
    ],
    ["a long value", { Long: "x".repeat(60_000) }],
  ];

  it.each(cases)("%s", async (_name, given) => {
    for (const [sql, count] of [
      ["SELECT nats_publish_text('exact.core', 'x', NULL, $1)", 1],
      ["SELECT nats_publish_text_batch('exact.core', ARRAY['x', 'y'], NULL, $1)", 2],
      ["SELECT nats_publish_text_stream('exact.stream', 'x', $1)", 1],
      ["SELECT seq FROM nats_publish_text_ack('exact.stream', 'x', $1)", 1],
      ["SELECT nats_publish_text_stream_batch('exact.stream', ARRAY['x', 'y'], $1)", 2],
    ] as const) {
      await gateway.value(sql, [JSON.stringify(given)]);
      for (const { headers } of await witness.messages(count)) {
        const seen = Object.fromEntries(headers!.keys().map((key) => [key, headers!.values(key)]));
        delete seen["Nats-Msg-Id"];
        const wanted = Object.entries(given).map(([name, value]) => [name, Array.isArray(value) ? value : [value]]);
        expect(seen, sql).toEqual(Object.fromEntries(wanted));
      }
    }
  });

  it("as the name __proto__, which objects of JavaScript treat in their own way", async () => {
    await gateway.value(`SELECT nats_publish_text('exact.core', 'x', NULL, '{"__proto__": "1", "a": "2"}')`);
    const { headers } = await witness.message();
    expect(headers!.keys().sort()).toEqual(["__proto__", "a"]);
    expect(headers!.get("__proto__")).toBe("1");
  });

  it("and none are sent for none", async () => {
    for (const none of ["NULL", "'{}'", `'{"a": []}'`, "'null'"]) {
      await gateway.value(`SELECT nats_publish_text('exact.core', 'x', NULL, ${none})`);
      expect((await witness.message()).headers, none).toBeUndefined();
    }
  });
});

describe("content that others have written is read as it is:", () => {
  it("a file with description, metadata, headers and options", async () => {
    const stored = headers();
    stored.append("Trace", "1");
    stored.append("Trace", "2");
    const store = await new Objm(jetstream(gateway.nats)).create("exact_info");
    const source = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(Buffer.from("content"));
        controller.close();
      },
    });
    const metadata = { ä: "漢 \u{1f6f3}", empty: "", 'with "quotes"': "a\nb" };
    const info = await store.put(
      { name: "f", description: "what it is: ä", metadata, headers: stored, options: { max_chunk_size: 3 } },
      source,
    );
    const row = {
      name: "f",
      description: "what it is: ä",
      metadata,
      headers: { Trace: ["1", "2"] },
      options: { max_chunk_size: 3 },
      bucket: "exact_info",
      nuid: info.nuid,
      size: "7",
      chunks: "3",
      modified: info.mtime,
      digest: info.digest,
      delete: false,
    };
    expect((await gateway.client.query("SELECT * FROM nats_get_file_info('exact_info', 'f')")).rows).toEqual([row]);
    expect((await gateway.client.query("SELECT * FROM nats_get_file_list('exact_info')")).rows).toEqual([row]);
    expect(await gateway.value("SELECT nats_get_file('exact_info', 'f')")).toEqual(Buffer.from("content"));
  });

  it("a value of a key", async () => {
    const bucket = await new Kvm(jetstream(gateway.nats)).create("exact_read", { history: 5 });
    await bucket.put("k", "ä 漢 \u{1f6f3}");
    expect(await gateway.value("SELECT nats_get_text('exact_read', 'k')")).toBe("ä 漢 \u{1f6f3}");
    await bucket.put("k", '{"a":1e400,"a":2}');
    expect(await gateway.value("SELECT nats_get_json('exact_read', 'k')::text")).toBe('{"a":1e400,"a":2}');
    await bucket.put("k", "null");
    expect(await gateway.value("SELECT nats_get_json('exact_read', 'k') IS NULL")).toBe(false);
    expect(await gateway.value("SELECT nats_get_jsonb('exact_read', 'k')::text")).toBe("null");
  });
});
