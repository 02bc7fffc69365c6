/** Refusals of the generator: what SQL cannot have is named, with the field and the remedy. */
import type { FileRegistry } from "@bufbuild/protobuf";
import { beforeAll, describe, expect, it } from "vitest";
import { generateMessageSql } from "../../codegen/message-sql/generate.js";
import { compileSchemas } from "../typed/support/compile.js";
import { protoWith } from "./support/proto-with.js";

const long = "a".repeat(60);

const cases: readonly [what: string, fields: string, says: string, parameter?: string][] = [
  [
    "google.protobuf.Any",
    "google.protobuf.Any value = 1;",
    "acme/v1/a.proto: message A.value: google.protobuf.Any is not supported in SQL; use a message or bytes",
  ],
  [
    "google.protobuf.Struct",
    "repeated google.protobuf.Struct value = 1;",
    "acme/v1/a.proto: message A.value: google.protobuf.Struct is not supported in SQL; use a string with JSON in it",
  ],
  [
    "a message that contains itself",
    "B b = 1; message B { repeated C c = 1; } message C { B b = 1; }",
    "acme/v1/a.proto: message A.C.b: no type of SQL can contain itself: acme.v1.A.B → acme.v1.A.C → acme.v1.A.B; use bytes for one of them",
  ],
  [
    "a long name of a field",
    `int32 ${long}aaaa = 1;`,
    `acme/v1/a.proto: message A.${long}aaaa: its name has 64 bytes, and Postgres takes 63; shorten it`,
  ],
  [
    "a long name of a message",
    `B${long} b = 1; message B${long} {}`,
    `acme/v1/a.proto: message A.B${long}: its name in SQL, "a_b${long}", has 63 bytes, and may have 49; shorten it`,
  ],
  [
    "the name of a parameter",
    "string _key = 1;",
    "acme/v1/a.proto: message A._key: its name is that of a parameter of publish_a; choose another",
  ],
  [
    "two types of one name",
    "map<string, string> b = 1; B other = 2; message B {}",
    'acme/v1/a.proto: message A.B: in SQL, the name "a_b" is taken by message A in acme/v1/a.proto; choose another',
  ],
  [
    "more fields than a function has parameters",
    Array.from({ length: 96 }, (_, n) => `int32 f${n} = ${n + 1};`).join("\n"),
    "acme/v1/a.proto: message A: it has 96 fields, and a function in SQL takes 95; move some to a message in it",
  ],
  // Rules of its own fields: below, and test/typed/rules.test.ts.
  [
    "a rule of a message in a field",
    "B b = 1; message B { repeated double value = 1 [(buf.validate.field).repeated.unique = true]; }",
    "acme.v1.A.B.value: rule repeated.unique: not supported for floats",
  ],
  ["a role", "", 'the option role is "a;b"; give a name of letters, digits, _ and -, of at most 63 bytes', "role=a;b"],
  ["an option twice", "", "the option schema is given twice; give it once", "schema=a,schema=b"],
  ["a file elsewhere", "", 'the option file is "../a.sql"; give a relative path that ends with .sql', "file=../a.sql"],
];

const proto2 = (fields: string): string => `syntax = "proto2"; package acme.v1; import "hawser/v1/topic.proto";
  message A { option (hawser.v1.topic) = {topic: "a"}; ${fields} }`;
const closed = proto2("optional E e = 1; enum E { Z = 0; }");
const group = proto2("optional group B = 1 { optional int32 a = 1; }");
const noTopic = 'syntax = "proto3"; package acme.v1; message A { int32 a = 1; }';
const protos = [...cases.map(([, fields]) => protoWith(fields)), closed, group, noTopic];

/** Each file has a package of its own, so that buf compiles all of them at once. */
const ofFile = (proto: string, text: string): string =>
  text.replace(/acme([/.])v1/g, `acme$1v${protos.indexOf(proto) + 1}`);

let registry: FileRegistry;
beforeAll(async () => {
  const files = protos.map((proto) => [ofFile(proto, "acme/v1/a.proto"), ofFile(proto, proto)]);
  registry = await compileSchemas(Object.fromEntries(files));
});

const generate = (proto: string, parameter = ""): unknown[] =>
  generateMessageSql(registry, [registry.getFile(ofFile(proto, "acme/v1/a.proto"))!], parameter);

describe("the generator", () => {
  it.each(cases)("refuses %s", (_, fields, says, parameter) => {
    const proto = protoWith(fields);
    expect(() => generate(proto, parameter)).toThrow(expect.objectContaining({ message: ofFile(proto, says) }));
  });

  it("refuses closed enums and groups, which proto2 has", () => {
    expect(() => generate(closed)).toThrow(
      ofFile(closed, "acme/v1/a.proto: enum A.E: closed enums (of proto2) are not supported in SQL; use an open one"),
    );
    expect(() => generate(group)).toThrow(
      ofFile(
        group,
        "acme/v1/a.proto: message A.b: groups (DELIMITED) are not supported in SQL; use a message with a length",
      ),
    );
  });

  it("leaves out messages without a topic, and makes nothing of a file without any", () => {
    expect(generate(noTopic)).toEqual([]);
  });
});
