import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { familyOf } from "./every-function.js";
import { jsonTexts, texts } from "./hard-values.js";
import { Witness } from "./witness.js";

const types = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** A witness of one test, with a stream beside it. */
async function streamed(word: string): Promise<Witness> {
  const witness = await Witness.open(gateway.nats, `${word}.>`);
  await witness.manager.streams.add({ name: word, subjects: [`${word}.stream`] });
  return witness;
}

describe.each(Object.entries(types))("an array of %s", (type, sqlType) => {
  const word = `arrays_${type}`;
  const ways = [
    [`nats_publish_${type}_batch`, `${word}.core`],
    [`nats_publish_${type}_stream_batch`, `${word}.stream`],
  ] as const;
  const literal = type === "text" ? "'v'" : type === "binary" ? "'v'::bytea" : "'\"v\"'";

  it("that is empty publishes nothing", async () => {
    const witness = await streamed(word);
    for (const [name, subject] of ways) {
      await gateway.value(`SELECT ${name}('${subject}', ARRAY[]::${sqlType}[])`);
    }
    expect(await witness.untaken()).toBe(0);
    witness.close();
  });

  it("that has a NULL is refused with the element, and nothing of it is published", async () => {
    const witness = await Witness.open(gateway.nats, `${word}.>`);
    for (const [name, subject] of ways) {
      for (const [elements, first] of [
        ["NULL", 1],
        [`${literal}, NULL`, 2],
        [`${literal}, ${literal}, NULL, ${literal}, NULL`, 3],
      ] as const) {
        expect(await gateway.errorOf(`SELECT ${name}('${subject}', ARRAY[${elements}]::${sqlType}[])`)).toMatchObject({
          code: "22004",
          message: `${familyOf(name)}: the argument payloads[${first}] is NULL, and needs a value`,
        });
      }
      expect(await gateway.errorOf(`SELECT ${name}('${subject}', NULL)`)).toMatchObject({
        code: "22004",
        message: `${familyOf(name)}: the argument payloads is NULL, and needs a value`,
      });
    }
    expect(await witness.untaken()).toBe(0);
    witness.close();
  });

  it("of more than one dimension is published element by element, row by row", async () => {
    const witness = await Witness.open(gateway.nats, `${word}.>`);
    for (const [name, subject] of ways) {
      await gateway.value(`SELECT ${name}('${subject}', '[5:6][0:2]={{1,2,3},{4,5,6}}'::${sqlType}[])`);
      expect((await witness.messages(6)).map((one) => one.string())).toEqual(["1", "2", "3", "4", "5", "6"]);
    }
    witness.close();
  });

  it("keeps its elements apart, the empty ones too", async () => {
    const witness = await Witness.open(gateway.nats, `${word}.>`);
    const values =
      type === "text"
        ? texts.map(({ text }) => text)
        : type === "binary"
          ? [
              Buffer.alloc(0),
              Buffer.from([0, 10, 13]),
              Buffer.alloc(0),
              Buffer.from("\xff\xfe", "latin1"),
              Buffer.alloc(1),
            ]
          : jsonTexts.flatMap(({ json, jsonb }) => (type === "json" ? [json] : jsonb === undefined ? [] : [jsonb]));
    for (const [name, subject] of ways) {
      await gateway.value(`SELECT ${name}('${subject}', $1::${sqlType}[])`, [values]);
      const seen = await witness.messages(values.length);
      // Not compared by toEqual, which takes minutes for the long ones.
      const hexOf = (bytes: Uint8Array | string) => Buffer.from(bytes as string).toString("hex");
      expect(seen.map((one) => hexOf(one.data))).toEqual(values.map(hexOf));
    }
    witness.close();
  });
});

describe("an array of 100,000 elements", () => {
  it("is published whole, in its order", async () => {
    const witness = await Witness.open(gateway.nats, "arrays_many.>");
    const text = "ARRAY(SELECT 'message ' || n FROM generate_series(1, 100000) AS n)";
    await gateway.value(`SELECT nats_publish_text_batch('arrays_many.text', ${text})`);
    await gateway.value(
      `SELECT nats_publish_binary_batch('arrays_many.binary', ARRAY(SELECT m::bytea FROM unnest(${text}) AS m))`,
    );
    const wanted = Array.from({ length: 100_000 }, (_, index) => `message ${index + 1}`);
    const seen = await witness.messages(200_000);
    for (const subject of ["arrays_many.text", "arrays_many.binary"]) {
      const found = seen.filter((one) => one.subject === subject).map((one) => one.string());
      expect(found.length).toBe(100_000);
      expect(found.every((one, index) => one === wanted[index])).toBe(true);
    }
    witness.close();
  });

  it("is stored whole in a stream, in its order", { timeout: 300_000 }, async () => {
    await using own = await testGateway({ callTimeoutMs: 240_000, maxCallTimeoutMs: 240_000 });
    const witness = await Witness.open(own.nats, "arrays_stream_none.>");
    await witness.manager.streams.add({ name: "arrays_stream", subjects: ["arrays_stream"] });
    await own.value(
      "SELECT nats_publish_text_stream_batch('arrays_stream', ARRAY(SELECT n::text FROM generate_series(1, 100000) AS n))",
    );
    const { state } = await witness.manager.streams.info("arrays_stream");
    expect(state.messages).toBe(100_000);
    for (const seq of [1, 2, 511, 512, 513, 50_000, 99_999, 100_000]) {
      expect((await witness.manager.streams.getMessage("arrays_stream", { seq }))?.string()).toBe(`${seq}`);
    }
    await witness.manager.streams.delete("arrays_stream");
  });
});
