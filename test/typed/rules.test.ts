/**
 * Rules of `buf.validate` in Hawser, compared with protovalidate itself.
 */
import {
  clone,
  create,
  createFileRegistry,
  createRegistry,
  type DescMessage,
  fromBinary,
  fromJson,
  setExtension,
  toBinary,
} from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import * as standard from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { beforeAll, describe, expect, it } from "vitest";
import { file_buf_validate_validate as ours } from "../../generated/ts/options/buf/validate/validate_pb.js";
import { allRulesOf, formatPatterns, patternProblem, rulesOf, topicOf } from "../../src/protobuf/typed/index.js";
import { caseName, ruleCases, rulesPackage, rulesProto } from "./rules-table.js";
import { compileSchemas, messageIn } from "./support/compile.js";

const standardFile = standard.file_buf_validate_validate;
let schemas: DescMessage[];

beforeAll(async () => {
  const registry = await compileSchemas({ "acme/rules/v1/rules.proto": rulesProto() });
  schemas = ruleCases.map((_, index) => messageIn(registry, `${rulesPackage}.${caseName(index)}`));
});

describe("the table of values", () => {
  it("is what protovalidate says", () => {
    const validator = createValidator({ registry: createRegistry(...schemas) });
    const wrong: unknown[] = [];
    for (const [index, { rule, body, good, bad }] of ruleCases.entries()) {
      for (const value of [...good, ...bad]) {
        const schema = schemas[index]!;
        const json = fromJson(schema, value === undefined ? {} : { value });
        // As it arrives: a float has lost what is not in its 32 bits.
        const result = validator.validate(schema, fromBinary(schema, toBinary(schema, json)));
        const found = result.violations?.map(({ ruleId }) => ruleId.replace(/_empty$/, "")) ?? [];
        const expected = good.includes(value) ? "valid" : "invalid";
        const isNamed = expected === "valid" || found.includes(rule) || found.includes("required");
        if (result.kind !== expected || !isNamed) wrong.push({ body, value, kind: result.kind, found });
      }
    }
    expect(wrong).toEqual([]);
  });

  it("has every rule that is supported", () => {
    const inTable = ruleCases.map(({ rule }) => rule.replace(/_exclusive$/, ""));
    const missing = ours.messages.flatMap((message) => {
      const type = message.name.replace("Rules", "").toLowerCase();
      if (["field", "message", "oneof", "messageoneofrule", "rule"].includes(type)) return [];
      return message.fields
        .map(({ name }) => name)
        .filter((name) => !["items", "keys", "values"].includes(name))
        .filter(
          (name) => !inTable.some((rule) => new RegExp(`^${type}\\.(?:[a-z]+_)?${name}(?:_l[a-z]+)?$`).test(rule)),
        )
        .map((name) => `${type}.${name}`);
    });
    expect(missing).toEqual([]);
  });

  it("makes rules as data of each case", () => {
    for (const [index, schema] of schemas.entries()) {
      expect(topicOf(schema)).toMatchObject({ topic: caseName(index).toLowerCase() });
      expect(allRulesOf(schema)[0]).toBe(rulesOf(schema));
    }
  });
});

describe("buf/validate/validate.proto", () => {
  it("has numbers, names and types of protovalidate", () => {
    for (const message of ours.messages) {
      const theirs = standardFile.messages.find(({ name }) => name === message.name)!;
      for (const field of message.fields) {
        const same = theirs.fields.find(({ number }) => number === field.number);
        expect(`${same?.name} ${same?.scalar} ${same?.message?.typeName} ${same?.fieldKind} ${same?.oneof?.name}`).toBe(
          `${field.name} ${field.scalar} ${field.message?.typeName} ${field.fieldKind} ${field.oneof?.name}`,
        );
      }
    }
    const numbers = ours.enums[0]!.values.map(({ name, number }) => `${name} ${number}`);
    expect(numbers).toEqual(standardFile.enums[0]!.values.map(({ name, number }) => `${name} ${number}`));
    for (const extension of ours.extensions) {
      const theirs = standardFile.extensions.find(({ name }) => name === extension.name)!;
      expect(extension.number).toBe(theirs.number);
      expect(extension.extendee.typeName).toBe(theirs.extendee.typeName);
    }
  });

  it("reserves every other number of protovalidate, with its name", () => {
    for (const message of ours.messages) {
      const theirs = standardFile.messages.find(({ name }) => name === message.name)!;
      const others = theirs.fields.filter(({ number }) => !message.fields.some((field) => field.number === number));
      const { reservedRange, reservedName } = message.proto;
      const reserved = reservedRange.map(({ start }, index) => `${start} ${reservedName[index]}`);
      expect(reserved.sort()).toEqual(others.map(({ number, name }) => `${number} ${name}`).sort());
    }
  });
});

describe("refuses", () => {
  const { STRING, INT32, DOUBLE, BYTES } = FieldDescriptorProto_Type;

  /** A message with one field that has these rules, made with protovalidate's own descriptors. */
  function schemaWith(type: FieldDescriptorProto_Type, rules: object, isList = false): DescMessage {
    const options = create(FieldOptionsSchema);
    setExtension(options, standard.field, create(standard.FieldRulesSchema, rules));
    const label = isList ? FieldDescriptorProto_Label.REPEATED : FieldDescriptorProto_Label.OPTIONAL;
    const file = create(FileDescriptorProtoSchema, {
      name: "acme/v1/a.proto",
      package: "acme.v1",
      syntax: "proto3",
      messageType: [{ name: "A", field: [{ name: "value", number: 1, type, label, jsonName: "value", options }] }],
    });
    // As it comes from a file: without knowledge of the extension.
    const set = create(FileDescriptorSetSchema, { file: [clone(FileDescriptorProtoSchema, file)] });
    const read = fromBinary(FileDescriptorSetSchema, toBinary(FileDescriptorSetSchema, set));
    return messageIn(createFileRegistry(read), "acme.v1.A");
  }

  const rule = (value: object): object => ({ type: value });

  it.each<[string, FieldDescriptorProto_Type, object, string]>([
    [
      "cel",
      STRING,
      { cel: [{ id: "a", expression: "true" }] },
      "rule cel: not supported; docs/typed.md lists the rules that are",
    ],
    [
      "cel_expression",
      STRING,
      { celExpression: ["true"] },
      "rule cel_expression: not supported; docs/typed.md lists the rules that are",
    ],
    [
      "a format",
      STRING,
      rule({ case: "string", value: { wellKnown: { case: "uri", value: true } } }),
      "rule string.uri: not supported; docs/typed.md lists the rules that are",
    ],
    [
      "a pattern of bytes",
      BYTES,
      rule({ case: "bytes", value: { pattern: "^a$" } }),
      "rule bytes.pattern: not supported; docs/typed.md lists the rules that are",
    ],
    [
      "rules of another type",
      STRING,
      rule({ case: "int32", value: { const: 1 } }),
      "rules of int32 do not fit the field, which takes those of string",
    ],
    [
      "rules of a list",
      STRING,
      rule({ case: "repeated", value: { minItems: 1n } }),
      "rules of repeated do not fit the field, which takes those of string",
    ],
    [
      "a limit that is NaN",
      DOUBLE,
      rule({ case: "double", value: { greaterThan: { case: "gt", value: Number.NaN } } }),
      "rule double.gt: NaN cannot be compared; remove it",
    ],
    [
      "NUL",
      STRING,
      rule({ case: "string", value: { prefix: "\0" } }),
      "rule string.prefix: has NUL, which Postgres cannot store in a text; remove it",
    ],
    [
      "a length that nothing has",
      STRING,
      rule({ case: "string", value: { maxLen: 2n ** 31n } }),
      "rule string.max_len: 2147483648 is more than a value can have; use at most 1073741824",
    ],
    [
      "a pattern for a part",
      STRING,
      rule({ case: "string", value: { pattern: "a" } }),
      'rule string.pattern: "a" must begin with ^ and end with $, so that it matches the whole string',
    ],
    [
      "a pattern that RE2 cannot read",
      STRING,
      rule({ case: "string", value: { pattern: "^\\u0041$" } }),
      'rule string.pattern: "^\\u0041$" has \\u, which RE2 does not read; write the character itself',
    ],
    [
      "a pattern that can take very long",
      STRING,
      rule({ case: "string", value: { pattern: "^(?:a+)+$" } }),
      'rule string.pattern: "^(?:a+)+$" can read "aaaaaaaa" in more than 100 ways, so a match may take very long; ' +
        "write it so that the next character determines the branch, such as (?:[a-z]+-)*[a-z]* for ([a-z]+-?)*",
    ],
  ])("%s", (_, type, rules, why) => {
    expect(() => rulesOf(schemaWith(type, rules))).toThrow(
      expect.objectContaining({ code: "invalid_schema", message: `acme.v1.A.value: ${why}` }),
    );
  });

  it.each<[string, FieldDescriptorProto_Type, object, string]>([
    ["unique floats", DOUBLE, { unique: true }, "rule repeated.unique: not supported for floats"],
    [
      "required elements",
      INT32,
      { items: { required: true } },
      "rule repeated.items.required: not supported; only fields are required",
    ],
    [
      "cel of elements",
      INT32,
      { items: { celExpression: ["true"] } },
      "rule repeated.items.cel_expression: not supported; docs/typed.md lists the rules that are",
    ],
    [
      "rules of another type for elements",
      INT32,
      { items: rule({ case: "string", value: { len: 1n } }) },
      "rules of repeated.items.string do not fit the field, which takes those of int32",
    ],
  ])("%s", (_, type, repeated, why) => {
    expect(() => rulesOf(schemaWith(type, rule({ case: "repeated", value: repeated }), true))).toThrow(
      expect.objectContaining({ code: "invalid_schema", message: `acme.v1.A.value: ${why}` }),
    );
  });

  it("cel of a message", async () => {
    const text = `syntax = "proto3";
      package acme.v1;
      import "buf/validate/validate.proto";
      message A {
        option (buf.validate.message).cel = {id: "a", expression: "this.value == 1"};
        int32 value = 1;
      }`;
    const schema = messageIn(await compileSchemas({ "acme/v1/a.proto": text }), "acme.v1.A");
    expect(() => rulesOf(schema)).toThrow(
      "acme.v1.A: rule message.cel: not supported; docs/typed.md lists the rules that are",
    );
  });

  it("no examples", () => {
    const schema = schemaWith(STRING, rule({ case: "string", value: { minLen: 1n, example: ["a"] } }));
    expect(rulesOf(schema).fields[0]).toMatchObject({ value: { rules: [{ id: "string.min_len" }] } });
  });
});

it.each(Object.entries(formatPatterns))("the format %s is a pattern that all read alike", (_, format) => {
  for (const pattern of [format.pattern, "butNot" in format ? format.butNot : "^$"]) {
    expect(patternProblem(pattern)).toBeUndefined();
  }
});
