import { afterAll, beforeAll, expect, it } from "vitest";
import { atDepth } from "../../support/depth.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { familyOf } from "./every-function.js";
import { jsonTexts, texts } from "./hard-values.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
let witness: Witness;
beforeAll(async () => {
  gateway = await testGateway({ callTimeoutMs: 240_000, tuning: { maxCallTimeoutMs: 240_000 } });
  witness = await Witness.open(gateway.nats, "arrays.>");
  await witness.manager.streams.add({ name: "arrays", subjects: ["arrays.stream"] });
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

interface Way {
  readonly name: string;
  readonly subject: string;
  readonly sqlType: string;
  /** A value of the type. */
  readonly literal: string;
  /** Values that must stay apart. */
  readonly values: readonly (string | Buffer)[];
}

const types: readonly Omit<Way & { type: string }, "name" | "subject">[] = [
  { type: "text", sqlType: "text", literal: "'v'", values: texts.map(({ text }) => text) },
  { type: "json", sqlType: "json", literal: "'\"v\"'", values: jsonTexts.map(({ json }) => json) },
  {
    type: "jsonb",
    sqlType: "jsonb",
    literal: "'\"v\"'",
    values: jsonTexts.flatMap(({ jsonb }) => (jsonb === undefined ? [] : [jsonb])),
  },
  {
    type: "binary",
    sqlType: "bytea",
    literal: "'v'::bytea",
    values: ["", "000a0d", "", "fffe", "00"].map((hex) => Buffer.from(hex, "hex")),
  },
];

/** Each function that takes an array. */
const ways: readonly Way[] = types.flatMap(({ type, ...rest }) => [
  { name: `nats_publish_${type}_batch`, subject: "arrays.core", ...rest },
  { name: `nats_publish_${type}_stream_batch`, subject: "arrays.stream", ...rest },
]);

it("an array that is empty publishes nothing", async () => {
  for (const { name, subject, sqlType } of ways) {
    await gateway.value(`SELECT ${name}('${subject}', ARRAY[]::${sqlType}[])`);
  }
  expect(await witness.untaken()).toBe(0);
});

it("an array that has a NULL is refused with the element, and nothing of it is published", async () => {
  for (const { name, subject, sqlType, literal } of ways) {
    for (const [elements, first] of [
      ["NULL", 1],
      [`${literal}, NULL`, 2],
      [`${literal}, ${literal}, NULL, ${literal}, NULL`, 3],
    ] as const) {
      const error = await gateway.errorOf(`SELECT ${name}('${subject}', ARRAY[${elements}]::${sqlType}[])`);
      expect(error, name).toMatchObject({
        code: "22004",
        message: `${familyOf(name)}: the argument payloads[${first}] is NULL, and needs a value`,
      });
    }
  }
  expect(await witness.untaken()).toBe(0);
});

it("an array of more than one dimension is published element by element, row by row", async () => {
  for (const { name, subject, sqlType } of ways) {
    await gateway.value(`SELECT ${name}('${subject}', '[5:6][0:2]={{1,2,3},{4,5,6}}'::${sqlType}[])`);
    const seen = (await witness.messages(6)).map((one) => one.string());
    expect(seen, name).toEqual(["1", "2", "3", "4", "5", "6"]);
  }
});

it("an array keeps its elements apart, the empty ones too", async () => {
  // Not compared by toEqual, which takes minutes for the long ones.
  const hexOf = (bytes: Uint8Array | string) => Buffer.from(bytes as string).toString("hex");
  for (const { name, subject, sqlType, values } of ways) {
    await gateway.value(`SELECT ${name}('${subject}', $1::${sqlType}[])`, [values]);
    const seen = await witness.messages(values.length);
    expect(seen.map((one) => hexOf(one.data)).join() === values.map(hexOf).join(), name).toBe(true);
  }
});

const many = atDepth(100_000);

it(`an array of ${many} elements is published whole, in order`, async () => {
  const text = `ARRAY(SELECT 'message ' || n FROM generate_series(1, ${many}) AS n)`;
  const wanted = Array.from({ length: many }, (_, index) => `message ${index + 1}`).join();
  for (const call of [
    `nats_publish_text_batch('arrays.core', ${text})`,
    `nats_publish_binary_batch('arrays.core', ARRAY(SELECT m::bytea FROM unnest(${text}) AS m))`,
  ]) {
    await gateway.value(`SELECT ${call}`);
    const seen = (await witness.messages(many)).map((one) => one.string());
    expect(seen.join() === wanted, call).toBe(true);
  }
});

it(`an array of ${many} elements is stored whole in a stream, in order`, { timeout: 300_000 }, async () => {
  await witness.manager.streams.add({ name: "arrays_many", subjects: ["arrays_many"] });
  const text = `ARRAY(SELECT n::text FROM generate_series(1, ${many}) AS n)`;
  await gateway.value(`SELECT nats_publish_text_stream_batch('arrays_many', ${text})`);
  expect((await witness.manager.streams.info("arrays_many")).state.messages).toBe(many);
  for (const seq of [1, 2, 511, 512, 513, many / 2, many - 1, many]) {
    expect((await witness.manager.streams.getMessage("arrays_many", { seq }))?.string()).toBe(`${seq}`);
  }
  await witness.manager.streams.delete("arrays_many");
});
