/** Refusals of the generator: what SQL cannot have is named, with the field and the remedy. */
import { expect, it } from "vitest";
import { madeOf } from "./support/made.js";
import { protoWith } from "./support/proto-with.js";

const long = "a".repeat(60);

it.each<[what: string, proto: string, says: string, parameter?: string]>([
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
])("the generator refuses %s", async (_, fields, says, parameter) => {
  const made = madeOf({ "acme/v1/a.proto": protoWith(fields) }, parameter);
  const refused = await made.then(
    () => "nothing was refused",
    (error: Error) => error.message,
  );
  expect(refused).toBe(says);
});

it("the generator refuses closed enums and groups, which proto2 has", async () => {
  const made = (fields: string): Promise<unknown> =>
    madeOf({
      "acme/v1/a.proto": `syntax = "proto2"; package acme.v1; import "hawser/v1/topic.proto";
        message A { option (hawser.v1.topic) = {topic: "a"}; ${fields} }`,
    });
  await expect(made("optional E e = 1; enum E { Z = 0; }")).rejects.toThrow(
    "acme/v1/a.proto: enum A.E: closed enums (of proto2) are not supported in SQL; use an open one",
  );
  await expect(made("optional group B = 1 { optional int32 a = 1; }")).rejects.toThrow(
    "acme/v1/a.proto: message A.b: groups (DELIMITED) are not supported in SQL; use a message with a length",
  );
});

it("the generator leaves out messages without a topic, and makes nothing of a file without any", async () => {
  const { sql } = await madeOf({ "acme/v1/a.proto": 'syntax = "proto3"; package acme.v1; message A { int32 a = 1; }' });
  expect(sql).toBe("");
});
