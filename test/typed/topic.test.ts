/**
 * The option `hawser.v1.topic`.
 */
import type { FileRegistry } from "@bufbuild/protobuf";
import { beforeAll, expect, it } from "vitest";
import { namedRules } from "../../generated/ts/rules/named.js";
import { topicOf } from "../../src/protobuf/typed/index.js";
import { compileSchemas, messageIn } from "./support/compile.js";

const fields = `string tenant = 1; int64 number = 2; bool urgent = 3; double price = 4; repeated string tags = 5;
  bytes raw = 6; A part = 7; optional string extra = 8;`;

/** Options, and what is wrong with them. */
const bad: readonly (readonly [option: string, why: string])[] = [
  ["{}", "its option has neither topic nor subject; set one"],
  ['{topic: "a:b"}', `topic "a:b": must not contain ':' or control characters. Use only what the rule allows.`],
  ['{topic: "__#a"}', 'topic "__#a": begins with __#, which is reserved; choose another'],
  [
    `{topic: "${"a".repeat(256)}"}`,
    `topic "${"a".repeat(60)}"… (256 bytes): must be 1 to 255 bytes long in UTF-8. Use 1 to 255 bytes in UTF-8.`,
  ],
  ['{topic: "a" stream: true}', "stream: needs a subject; set it, or remove stream"],
  ...["a..b", ".a", "a.", "a.*", "a.>", "a b"].map(
    (subject) =>
      [
        `{subject: "${subject}"}`,
        `subject "${subject}": must be words joined by '.', without '*', '>', white space and control characters. Use only what the rule allows.`,
      ] as const,
  ),
  ['{subject: "$JS.a"}', 'subject "$JS.a": subjects that begin with $ belong to NATS; choose another'],
  ['{subject: "a.b{tenant}"}', 'subject "a.b{tenant}": a field in braces must be a whole word between the dots'],
  ['{subject: "a.{tenant"}', 'subject "a.{tenant": a field in braces must be a whole word between the dots'],
  [
    '{subject: "a.{city}"}',
    'subject: it has no field "city"; its fields are tenant, number, urgent, price, tags, raw, part, extra',
  ],
  ...["price", "tags", "raw", "part"].map(
    (name) =>
      [
        `{subject: "a.{${name}}"}`,
        `subject: the field "${name}" must be a string, an integer or a boolean, and not repeated`,
      ] as const,
  ),
  [
    '{topic: "a" key: "city"}',
    'key: it has no field "city"; its fields are tenant, number, urgent, price, tags, raw, part, extra',
  ],
  ['{topic: "a" key: "price"}', 'key: the field "price" must be a string, an integer or a boolean, and not repeated'],
  [
    '{topic: "a" message_id: "urgent"}',
    'message_id: the field "urgent" must be a string or an integer, and not repeated',
  ],
];

let registry: FileRegistry;
/** The longest name of a type whose id may come from a field. */
const longest = `L${"o".repeat(234 - "acme.v1.L".length)}`;

beforeAll(async () => {
  registry = await compileSchemas({
    "acme/v1/a.proto": `syntax = "proto3"; package acme.v1; import "hawser/v1/topic.proto";
      message A {
        option (hawser.v1.topic) = {topic: "orders" subject: "orders.{tenant}.{number}.{urgent}" stream: true
          key: "number" message_id: "extra"};
        ${fields}
      }
      message Plain { ${fields} }
      message ${longest} { option (hawser.v1.topic) = {topic: "a" message_id: "tenant"}; ${fields} }
      message ${longest}x { option (hawser.v1.topic) = {topic: "a" message_id: "tenant"}; ${fields} }
      ${bad.map(([option], index) => `message Bad${index} { option (hawser.v1.topic) = ${option}; ${fields} }`).join("\n")}`,
  });
});

it("says where messages are sent", () => {
  const schema = messageIn(registry, "acme.v1.A");
  const { tenant, number, urgent, extra } = schema.field;
  expect(topicOf(schema)).toEqual({
    schema,
    topic: "orders",
    subject: {
      text: "orders.{tenant}.{number}.{urgent}",
      words: ["orders", tenant, number, urgent],
      pattern: "orders.*.*.*",
    },
    stream: true,
    key: number,
    // An id has 255 bytes at most.
    messageId: { field: extra, prefix: "acme.v1.A:", rules: { ...namedRules.enqueuedMessageId, maxBytes: 245 } },
  });
});

it("leaves place for any integer in an id that begins with the type", () => {
  const { prefix, rules } = topicOf(messageIn(registry, `acme.v1.${longest}`)).messageId!;
  expect(prefix.length + String(-(2n ** 63n)).length).toBe(255);
  expect(rules.maxBytes).toBe(20);
  expect(() => topicOf(messageIn(registry, `acme.v1.${longest}x`))).toThrow(
    /x: message_id: the id begins with the name of the type, so the name must have at most 234 bytes; shorten it, or remove message_id$/,
  );
});

it("refuses a message without the option", () => {
  expect(() => topicOf(messageIn(registry, "acme.v1.Plain"))).toThrow(
    expect.objectContaining({
      code: "invalid_schema",
      message: 'acme.v1.Plain: it has no option (hawser.v1.topic); set it, such as {topic: "orders"}',
    }),
  );
});

it.each(bad.map((each, index) => [...each, index] as const))("refuses %s", (_, why, index) => {
  expect(() => topicOf(messageIn(registry, `acme.v1.Bad${index}`))).toThrow(
    expect.objectContaining({ code: "invalid_schema", message: `acme.v1.Bad${index}: ${why}` }),
  );
});
