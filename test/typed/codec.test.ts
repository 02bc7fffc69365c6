/**
 * Encoding and decoding, against protobuf-es.
 */
import {
  create,
  type DescMessage,
  type FileRegistry,
  fromBinary,
  fromJson,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { BytesValueSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { decode, encode, keyOfMessage, subjectOf, topicOf } from "../../src/protobuf/typed/index.js";
import { atDepth } from "../support/depth.js";
import { caseName, ruleCases, rulesPackage, rulesProto } from "./rules-table.js";
import { compileSchemas, messageIn } from "./support/compile.js";

const scalars = [
  ..."double float int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64 bool string bytes".split(
    " ",
  ),
];
const keys = scalars.filter((type) => !["double", "float", "bytes"].includes(type));

/** Every type, in every kind of field. */
const everything = (extra = "") => `
  message All {
    ${scalars.map((type, index) => `${type} single_${type} = ${index + 1};`).join("\n")}
    ${scalars.map((type, index) => `${extra}repeated ${type} list_${type} = ${index + 40};`).join("\n")}
    ${keys.map((type, index) => `map<${type}, ${type}> map_${type} = ${index + 60};`).join("\n")}
    Colour colour = 80;
    repeated Colour colours = 81;
    All part = 82;
    repeated All parts = 83;
    map<string, All> part_map = 84;
    map<string, Colour> colour_map = 85;
    oneof choice {
      string chosen_text = 90;
      uint64 chosen_number = 91;
      All chosen_part = 92;
      google.protobuf.StringValue chosen_wrapped = 93;
      bytes chosen_bytes = 94;
      Colour chosen_colour = 95;
    }
    google.protobuf.StringValue wrapped_text = 100;
    google.protobuf.Int64Value wrapped_long = 101;
    repeated google.protobuf.BytesValue wrapped_list = 102;
    google.protobuf.Timestamp time = 103;
    google.protobuf.Duration duration = 104;
    int64 long_text = 105 [jstype = JS_STRING];
    google.protobuf.Any any = 106;
    int32 far = 536870911;
    repeated int32 unpacked = 107 [features_or_packed];
  }
  enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; COLOUR_FAR = -7; }`;

const imports = `import "google/protobuf/any.proto"; import "google/protobuf/duration.proto";
  import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";`;

let registry: FileRegistry;
let all: DescMessage[];

beforeAll(async () => {
  registry = await compileSchemas({
    "acme/rules/v1/rules.proto": rulesProto(),
    "acme/three/v1/all.proto": `syntax = "proto3"; package acme.three.v1; ${imports}
      ${everything().replace("features_or_packed", "packed = false")}
      message Optional { ${scalars.map((type, index) => `optional ${type} single_${type} = ${index + 1};`).join("\n")}
        optional Colour colour = 80; }
      message WithStruct { google.protobuf.Struct fields = 1; string name = 2; }`,
    "acme/edition/v1/all.proto": `edition = "2023"; package acme.edition.v1; ${imports}
      ${everything().replace("features_or_packed", "features.repeated_field_encoding = EXPANDED")}`,
    "acme/two/v1/all.proto": `syntax = "proto2"; package acme.two.v1;
      message All { required string name = 1; optional int32 number = 2 [default = 7]; repeated int32 numbers = 3;
        optional group Part = 4 { optional string text = 1; } optional Colour colour = 5;
        enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; } }`,
    "acme/orders/v1/order.proto": `syntax = "proto3"; package acme.orders.v1;
      import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
      message OrderPlaced {
        option (hawser.v1.topic) = {topic: "orders" subject: "orders.{tenant}.{number}.{urgent}" key: "tenant"};
        string tenant = 1;
        int64 number = 2;
        bool urgent = 3;
        repeated Line lines = 4 [(buf.validate.field).repeated.max_items = 3];
        map<string, Line> by_name = 5;
        oneof payment { option (buf.validate.oneof).required = true; string card = 6; bool cash = 7; }
      }
      message Line { string sku = 1 [(buf.validate.field).string.min_len = 2]; uint32 count = 2; }`,
  });
  all = ["three.v1.All", "three.v1.Optional", "edition.v1.All"].map((name) => messageIn(registry, `acme.${name}`));
});

describe("the rules", () => {
  it("are those of the table", () => {
    const wrong: unknown[] = [];
    for (const [index, { rule, body, good, bad }] of ruleCases.entries()) {
      const schema = messageIn(registry, `${rulesPackage}.${caseName(index)}`);
      for (const value of [...good, ...bad]) {
        const message = fromJson(schema, value === undefined ? {} : { value });
        const expected = good.includes(value) ? undefined : rule;
        for (const [way, code, call] of [
          ["encode", "invalid_argument", () => encode(schema, message)],
          ["decode", "invalid_message", () => decode(schema, toBinary(schema, message))],
          ["JSON", "invalid_argument", () => encode(schema, message, "json")],
        ] as const) {
          const found = brokenBy(call, code);
          if (found !== expected && !(found === "required" && body.includes("required"))) {
            wrong.push({ way, body, value, found, expected });
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  function brokenBy(call: () => unknown, code: string): string | undefined {
    try {
      call();
      return undefined;
    } catch (error) {
      expect(error).toMatchObject({ code });
      return /\(([a-z0-9_.]+)\)$/.exec((error as Error).message)?.[1] ?? (error as Error).message;
    }
  }
});

/** Smaller values of messages with fifty fields would be sought for hours. */
const noShrinking = { endOnFailure: true };

describe("the binary format", () => {
  it("is what protobuf-es writes and reads, for all types", () => {
    for (const schema of all) {
      fc.assert(
        fc.property(initOf(schema, 1), (init) => {
          const whole = create(schema, init);
          const bytes = Buffer.from(toBinary(schema, whole));
          expect(Buffer.from(encode(schema, init))).toEqual(bytes);
          expect(Buffer.from(encode(schema, whole))).toEqual(bytes);
          const read = decode(schema, bytes);
          const expected = fromBinary(schema, new Uint8Array(bytes));
          expect(read).toEqual(expected);
          expect(Object.getPrototypeOf(read)).toEqual(Object.getPrototypeOf(expected));
          expect(Buffer.from(toBinary(schema, read))).toEqual(Buffer.from(toBinary(schema, expected)));
        }),
        { numRuns: atDepth(300), ...noShrinking },
      );
    }
  });

  it("keeps fields that the schema does not have", () => {
    const [schema, other] = all as [DescMessage, DescMessage];
    fc.assert(
      fc.property(initOf(schema, 1), (init) => {
        const { $typeName: _, ...fields } = init as { $typeName?: string };
        const bytes = toBinary(schema, create(schema, fields));
        // Optional has only the first numbers.
        const expected = fromBinary(other, new Uint8Array(bytes));
        const read = decode(other, bytes);
        expect(read).toEqual(expected);
        expect(Buffer.from(encode(other, read))).toEqual(Buffer.from(toBinary(other, expected)));
      }),
      { numRuns: atDepth(200), ...noShrinking },
    );
  });

  it("merges what comes twice", () => {
    const schema = all[0]!;
    fc.assert(
      fc.property(initOf(schema, 1), initOf(schema, 1), (one, other) => {
        const bytes = Buffer.concat([encode(schema, one), encode(schema, other)]);
        expect(decode(schema, bytes)).toEqual(fromBinary(schema, new Uint8Array(bytes)));
      }),
      { numRuns: atDepth(200), ...noShrinking },
    );
  });

  it("refuses what protobuf-es refuses, and reads nothing else than it does", () => {
    const schema = all[0]!;
    fc.assert(
      fc.property(initOf(schema, 1), fc.nat(), fc.nat(255), fc.boolean(), (init, place, byte, cut) => {
        const bytes = Buffer.from(encode(schema, init));
        if (bytes.length === 0) return;
        const broken = cut ? bytes.subarray(0, place % bytes.length) : bytes;
        if (!cut) broken[place % bytes.length] = byte;
        const [read, expected] = [() => decode(schema, broken), () => fromBinary(schema, new Uint8Array(broken))].map(
          (call) => {
            try {
              return call();
            } catch {
              return undefined;
            }
          },
        );
        // Of another wire type is refused, which protobuf-es reads as if it were of the right one.
        if (read !== undefined) expect(read).toEqual(expected);
      }),
      { numRuns: atDepth(1000), ...noShrinking },
    );
  });

  it("refuses a tag of more than 32 bits", () => {
    const schema = all[0]!;
    for (const tag of [
      [0xb5, 0xd5, 0xb5, 0xd0, 0x7c],
      [0x88, 0x80, 0x80, 0x80, 0x80, 0x00],
    ]) {
      const bytes = Buffer.from([...tag, 0]);
      expect(() => fromBinary(schema, new Uint8Array(bytes))).toThrow();
      expect(() => decode(schema, bytes)).toThrow("a tag has more than 32 bits");
    }
  });

  it.each(["acme.two.v1.All", "acme.three.v1.WithStruct"])("leaves %s to protobuf-es", (name) => {
    const schema = messageIn(registry, name);
    const init = { name: "a", part: { text: "b" }, numbers: [1, 2], fields: { a: [1, null, "x"] } };
    const bytes = encode(schema, init);
    expect(Buffer.from(bytes)).toEqual(Buffer.from(toBinary(schema, create(schema, init))));
    expect(decode(schema, bytes)).toEqual(fromBinary(schema, new Uint8Array(bytes)));
  });

  it("grows with long messages, and takes those of a getter of another one", () => {
    const schema = all[0]!;
    const part = { singleString: "y" };
    const init = {
      get singleString() {
        encode(schema, part);
        return "x".repeat(100_000);
      },
      listBytes: [new Uint8Array(300_000), Buffer.from("abc")],
      listInt32: Array.from({ length: 100_000 }, (_, index) => index),
      parts: [{ singleString: "ä".repeat(70_000) }],
    };
    const bytes = encode(schema, init);
    // toEqual() would take its time.
    expect(Buffer.compare(bytes, toBinary(schema, create(schema, init)))).toBe(0);
    expect(Buffer.compare(bytes, toBinary(schema, decode(schema, bytes)))).toBe(0);
  });
});

it("reads and writes the JSON of Protobuf", () => {
  const schema = all[0]!;
  fc.assert(
    fc.property(initOf(schema, 0), (init) => {
      const whole = create(schema, init);
      const payload = encode(schema, init, "json");
      expect(Buffer.from(payload).toString()).toEqual(JSON.stringify(toJson(schema, whole)));
      expect(decode(schema, payload, "json")).toEqual(fromJson(schema, JSON.parse(Buffer.from(payload).toString())));
    }),
    { numRuns: atDepth(100) },
  );
  expect(decode(schema, Buffer.from('{"newer": 1, "singleInt32": 7}'), "json")).toMatchObject({ singleInt32: 7 });
});

const line = { sku: "ab", count: 1 };
const order = { tenant: "acme", number: 7n, lines: [line], payment: { case: "cash", value: true } };

describe("errors", () => {
  it.each<[string, object, string]>([
    ["a rule", { lines: [line, { sku: "a" }] }, '.lines[1].sku "a": must have at least 2 characters (string.min_len)'],
    [
      "a rule in a map",
      { byName: { "a b": { sku: "" } } },
      '.by_name["a b"].sku "": must have at least 2 characters (string.min_len)',
    ],
    [
      "a list",
      { lines: [line, line, line, line] },
      ".lines 4 elements: must have at most 3 elements (repeated.max_items)",
    ],
    ["a oneof", { payment: { case: undefined } }, ".payment nothing: must have one of its fields set (required)"],
    ["a type", { tenant: 7 }, ".tenant 7: must be a string of well-formed Unicode (type)"],
    ["half a character", { tenant: "\ud800" }, '.tenant "\\ud800": must be a string of well-formed Unicode (type)'],
    ["a list that is none", { lines: line }, ".lines an object: must be an array (type)"],
    [
      "an element's type",
      { lines: [{ ...line, count: -1 }] },
      ".lines[0].count -1: must be an integer of 32 bits, 0 or more (type)",
    ],
    [
      "a number that is too great",
      { number: 2n ** 63n },
      ".number 9223372036854775808: must be a bigint of 64 bits (type)",
    ],
    [
      "the chosen field's type",
      { payment: { case: "card", value: true } },
      ".card true: must be a string of well-formed Unicode (type)",
    ],
    [
      "another message",
      { lines: [{ $typeName: "acme.B", sku: "ab" }] },
      ".lines[0] a message acme.B: must be a acme.orders.v1.Line (type)",
    ],
  ])("name field, value and rule of %s", (_, change, why) => {
    const schema = messageIn(registry, "acme.orders.v1.OrderPlaced");
    expect(() => encode(schema, { ...order, ...change })).toThrow(
      expect.objectContaining({ code: "invalid_argument", message: `acme.orders.v1.OrderPlaced${why}` }),
    );
  });

  it.each<[string, string, string]>([
    ["nothing of a message", "ff", ": cannot be decoded from Protobuf: the message ends in the middle of a field"],
    [
      "a text that ends early",
      "0a056162",
      ".tenant: cannot be decoded from Protobuf: the message ends in the middle of a field",
    ],
    ["bytes that are no text", "0a02c328", ".tenant: cannot be decoded from Protobuf: is not valid UTF-8"],
    [
      "another type",
      "0801",
      ".tenant: cannot be decoded from Protobuf: has the wire type 0, which its type in the schema does not have",
    ],
    ["a field in a list", "22050a0361c328", ".lines[0].sku: cannot be decoded from Protobuf: is not valid UTF-8"],
    [
      "a rule",
      "3801220508012a0161",
      ".lines[0].sku: cannot be decoded from Protobuf: has the wire type 0, which its type in the schema does not have",
    ],
    ["a broken rule", "380122030a0161", '.lines[0].sku "a": must have at least 2 characters (string.min_len)'],
  ])("name the field of %s", (_, hex, why) => {
    const schema = messageIn(registry, "acme.orders.v1.OrderPlaced");
    expect(() => decode(schema, Buffer.from(hex, "hex"))).toThrow(
      expect.objectContaining({ code: "invalid_message", message: `acme.orders.v1.OrderPlaced${why}` }),
    );
  });

  it("say what is wrong with JSON", () => {
    const schema = messageIn(registry, "acme.orders.v1.OrderPlaced");
    expect(() => decode(schema, Buffer.from('{"number": "x"}'), "json")).toThrow(
      /^acme.orders.v1.OrderPlaced: cannot be decoded from JSON: .*number/,
    );
  });
});

describe("a subject", () => {
  it("has the values of its fields", () => {
    const topic = topicOf(messageIn(registry, "acme.orders.v1.OrderPlaced"));
    expect(subjectOf(topic, order)).toBe("orders.acme.7.false");
    expect(keyOfMessage(topic, order)).toBe("acme");
  });

  it.each(["", "a.b", "*", ">", "a b", "\n"])("refuses the word %j", (tenant) => {
    const topic = topicOf(messageIn(registry, "acme.orders.v1.OrderPlaced"));
    const must = "goes into the subject and must be one token: not empty, without '.', '*', '>' and white space";
    expect(() => subjectOf(topic, { tenant })).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: `acme.orders.v1.OrderPlaced.tenant ${JSON.stringify(tenant)}: ${must}`,
      }),
    );
  });

  it("needs a key that is not empty", () => {
    const topic = topicOf(messageIn(registry, "acme.orders.v1.OrderPlaced"));
    expect(() => keyOfMessage(topic, {})).toThrow(
      'acme.orders.v1.OrderPlaced.tenant "": is the key: it must be 1 to 1024 bytes long in UTF-8',
    );
  });
});

/** Init shapes of messages of a schema. */
function initOf(schema: DescMessage, depth: number): fc.Arbitrary<Record<string, unknown>> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {};
  for (const field of schema.fields) {
    if (field.oneof !== undefined) continue;
    const value = valueInit(field, depth, field.fieldKind === "list" || field.fieldKind === "map");
    if (value === undefined) continue;
    if (field.fieldKind === "list") fields[field.localName] = fc.array(value, { maxLength: 3 });
    else if (field.fieldKind === "map") {
      const keys = scalarOf(field.mapKey).map(String);
      fields[field.localName] = fc.array(fc.tuple(keys, value), { maxLength: 3 }).map((pairs) => {
        const map: Record<string, unknown> = {};
        for (const [key, each] of pairs) if (key !== "__proto__") map[key] = each;
        return map;
      });
    } else fields[field.localName] = value;
  }
  for (const oneof of schema.oneofs) {
    const cases = oneof.fields.flatMap((field) => {
      const value = valueInit(field, depth, true);
      return value === undefined ? [] : [value.map((each) => ({ case: field.localName, value: each }))];
    });
    fields[oneof.localName] = fc.oneof(...cases);
  }
  return fc.record(fields, { requiredKeys: [] });
}

type Field = DescMessage["fields"][number];

function valueInit(field: Field, depth: number, boxed: boolean): fc.Arbitrary<unknown> | undefined {
  if (field.enum !== undefined) return fc.constantFrom(0, 1, -7, 99);
  if (field.message === undefined) {
    const value = scalarOf(field.scalar!);
    return "longAsString" in field && field.longAsString ? value.map(String) : value;
  }
  if (depth === 0) return undefined;
  const isWrapper = field.message.typeName.endsWith("Value") && field.message.fields.length === 1;
  if (isWrapper && !boxed) return scalarOf(field.message.fields[0]!.scalar!);
  return initOf(field.message, depth - 1);
}

const character = fc.constantFrom("a", "ä", "€", "😀", "\0", "\ufeff", "\ufffd");

/** ScalarType: the numbers of descriptor.proto. */
function scalarOf(scalar: number): fc.Arbitrary<unknown> {
  const integer = (min: bigint, max: bigint) =>
    fc.oneof(fc.bigInt({ min, max }), fc.constantFrom(0n, min, max, max / 2n));
  switch (scalar) {
    case 1:
      return fc.oneof(fc.double(), fc.constantFrom(0, -0, Number.NaN));
    case 2:
      return fc.oneof(fc.float(), fc.constantFrom(0, -0));
    case 3:
    case 16:
    case 18:
      return integer(-(2n ** 63n), 2n ** 63n - 1n);
    case 4:
    case 6:
      return integer(0n, 2n ** 64n - 1n);
    case 5:
    case 15:
    case 17:
      return integer(-(2n ** 31n), 2n ** 31n - 1n).map(Number);
    case 7:
    case 13:
      return integer(0n, 2n ** 32n - 1n).map(Number);
    case 8:
      return fc.boolean();
    case 9:
      return fc.oneof(
        fc.string({ unit: character }),
        fc.string({ maxLength: 60 }),
        fc.constantFrom("", "ä".repeat(30)),
      );
    default:
      return fc.uint8Array({ maxLength: 20 });
  }
}

it.each([10, 5_000])("gives a field of %i bytes a copy that is no Buffer, also where the payload is one", (length) => {
  const payload = Buffer.from(toBinary(BytesValueSchema, create(BytesValueSchema, { value: new Uint8Array(length) })));
  const { value } = decode(BytesValueSchema, payload);
  payload.fill(1);
  expect(value).toStrictEqual(new Uint8Array(length));
});
