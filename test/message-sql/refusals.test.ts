/** Refusals of the generator: what SQL cannot have is named, with the field and the remedy. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { madeOf } from "./support/made.js";

const long = "a".repeat(60);

/** A file with a message that has these fields. */
const protoWith = (fields: string): string => `syntax = "proto3"; package acme.v1;
  import "google/protobuf/any.proto"; import "google/protobuf/struct.proto";
  import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
  message A { option (hawser.v1.topic) = {topic: "a"}; ${fields} }`;

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

describe("buf generate", () => {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const main = join(projectDirectory, "codegen/message-sql/main.ts");

  // One for each class of errors.
  it.each<[what: string, fields: string, parameter: string, says: string]>([
    ["a type", "google.protobuf.Any value = 1;", "", "message A.value: google.protobuf.Any is not supported in SQL;"],
    [
      "a rule",
      'string a = 1 [(buf.validate.field).string.pattern = "a"];',
      "",
      'acme.v1.A.a: rule string.pattern: "a" must',
    ],
    ["an option", "", "shema=a", 'there is no option "shema"; the options are schema, prefix, role, file'],
  ])("fails on %s that the plugin refuses, and prints the reason alone", async (_, fields, parameter, says) => {
    const folder = temporaryDirectory();
    mkdirSync(join(folder, "proto/acme/v1"), { recursive: true });
    cpSync(join(projectDirectory, "proto/options"), join(folder, "options"), { recursive: true });
    writeFileSync(join(folder, "proto/acme/v1/a.proto"), protoWith(fields));
    const modules = ["proto", "options/topic", "options/validate"].map((path) => ({ path }));
    writeFileSync(join(folder, "buf.yaml"), JSON.stringify({ version: "v2", modules }));
    const opt = parameter === "" ? [] : [parameter];
    const plugin = { local: ["node", "--import", tsx, main], out: "migrations", opt };
    writeFileSync(join(folder, "buf.gen.yaml"), JSON.stringify({ version: "v2", plugins: [plugin] }));
    const buf = join(projectDirectory, "node_modules/.bin/buf");
    const failure = await promisify(execFile)(buf, ["generate"], { cwd: folder }).then(
      () => "it succeeds",
      (error: { readonly stderr: string }) => error.stderr,
    );
    expect(failure).toContain(says);
    // No stack, as a defect of the generator has.
    expect(failure).not.toContain("    at ");
  });
});
