/**
 * Texts of a descriptor in the SQL of messages: a name that is none is refused, and what else may be in a descriptor stays what it
 * is, whatever it contains: a comment, a string, a name in quotes.
 */
import { clone, create, createFileRegistry, setExtension } from "@bufbuild/protobuf";
import {
  FieldOptionsSchema,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateMessageSql } from "../../codegen/message-sql/generate.js";
import {
  FieldRulesSchema,
  field as fieldRules,
  StringRulesSchema,
} from "../../generated/ts/options/buf/validate/validate_pb.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { slowIt } from "../support/slow-it.js";
import { compileSchemas } from "../typed/support/compile.js";
import { orderProto } from "./support/orders.js";

const ordersFile = "acme/v1/orders.proto";
const statement = "CREATE TABLE public.pwned()";
/** Marks that end a comment, a string, a name, a body or a line in some language. */
const marks = [
  ...["\n", "\r", "\u2028", "\0", "--", "/*", "*/", "-->", "'", '"', "\\", "`"],
  ...["$", "$$", "${", "%", "%s", "|", ";"],
];
const bodies = ["$function$", "$function1$", "$guard$", "$type$", "$older$"];
const hostile = fc
  .array(fc.constantFrom(...marks, ...bodies, "/", "..", "END", "a", "é", ` ${statement}; --`), {
    minLength: 1,
    maxLength: 7,
  })
  .map((pieces) => pieces.join(""));

let protos: FileDescriptorProto[];

beforeAll(async () => {
  const more = "Kind kind = 3; map<string, int32> counts = 4; } enum Kind { KIND_NONE = 0; }";
  const { files } = await compileSchemas(
    orderProto("oneof way { int32 by_sea = 7; int32 by_land = 8; }", `message More { ${more}`),
  );
  protos = [...files].map(({ proto }) => proto);
});

/** The SQL of the orders, changed. */
function sqlWith(change: (file: FileDescriptorProto) => void, parameter = ""): string {
  const changed = protos.map((proto) => clone(FileDescriptorProtoSchema, proto));
  const orders = changed.find(({ name }) => name === ordersFile)!;
  change(orders);
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: changed }));
  return generateMessageSql(registry, [registry.getFile(orders.name)!], parameter)
    .map(({ content }) => content)
    .join("");
}

/** Places for a text in a descriptor. */
const places = {
  "file name": (file, text) => void (file.name = `${text}.proto`),
  package: (file, text) => void (file.package = text),
  "message name": (file, text) => void (file.messageType[1]!.name = text),
  "field name": (file, text) => void (file.messageType[1]!.field[0]!.name = text),
  "oneof name": (file, text) => void (file.messageType[0]!.oneofDecl[0]!.name = text),
  "enum value name": (file, text) => void (file.enumType[0]!.value[0]!.name = text),
  json_name: (file, text) => void (file.messageType[0]!.field[1]!.jsonName = text),
  rule: (file, text) => {
    const field = file.messageType[0]!.field[1]!;
    field.options = create(FieldOptionsSchema);
    const string = create(StringRulesSchema, { const: text, notIn: [text] });
    setExtension(field.options, fieldRules, create(FieldRulesSchema, { type: { case: "string", value: string } }));
  },
} satisfies Readonly<Record<string, (file: FileDescriptorProto, text: string) => void>>;

describe("the SQL of messages", () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeAll(async () => {
    database = await testDatabase();
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
  });

  afterAll(async () => {
    await client?.end();
    await database?.drop();
  });

  /** All that is there beside Postgres's own, when the SQL has run. */
  const madeBy = async (sql: string): Promise<string[]> => {
    await client.query("BEGIN");
    try {
      await client.query(sql);
      const { rows } = await client.query(`SELECT what FROM (
          SELECT format('%s %s', relkind, oid::regclass) FROM pg_class WHERE relkind <> 't' AND relkind <> 'i'
          UNION ALL SELECT oid::regprocedure::text FROM pg_proc
          UNION ALL SELECT nspname::text FROM pg_namespace
        ) AS o (what) WHERE what !~ 'pg_(temp|toast)' ORDER BY what`);
      return rows.map(({ what }) => what);
    } finally {
      await client.query("ROLLBACK");
    }
  };

  it.each<[place: keyof typeof places, text: string, says: string]>([
    ["file name", "x\nCREATE TABLE public.pwned(); --", 'the file name "x\\nCREATE TABLE public.pwned(); --.proto"'],
    ["file name", "../orders", 'the file name "../orders.proto"'],
    ["json_name", "a\0b", 'the json_name "a\\u0000b"'],
    ["message name", 'A"; DROP', 'invalid message name "A\\"; DROP"'],
    ["field name", "a'b", `invalid field name "a'b"`],
    ["oneof name", "a\nb", 'invalid oneof name "a\\nb"'],
    ["enum value name", "a'b", `invalid enum value name "a'b"`],
  ])("is refused, in one line, with a bad %s: %j", (place, text, says) => {
    const made = () => sqlWith((file) => places[place](file, text));
    expect(made).toThrow(says);
    expect(made).toThrow(/^.+$/u);
  });

  slowIt("makes what is meant and nothing else, whatever the descriptor has in it", async () => {
    const expected = await madeBy(sqlWith(() => undefined));
    expect(expected).toContain("messages.publish_pinged(bigint,text,text,timestamp with time zone,jsonb)");
    const outcomes = { made: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...Object.values(places)), hostile, async (place, text) => {
        // A name that is one makes other things.
        fc.pre(!/^[A-Za-z_][A-Za-z0-9_]*$/.test(text));
        let sql: string;
        try {
          sql = sqlWith((file) => place(file, text));
        } catch (error) {
          // With names that nothing refers to any more, the descriptors are none.
          expect((error as Error).name).toMatch(/^(SpecError|HawserError|Error)$/);
          outcomes.refused += 1;
          return;
        }
        expect(await madeBy(sql)).toEqual(expected);
        outcomes.made += 1;
      }),
      { numRuns: atDepth(200) },
    );
    // Each of them is tried for certain.
    for (const text of ["it's -- a $function$ %s", `"; ${statement}; --`, "$guard$'"]) {
      for (const place of [places["file name"], places.json_name, places.rule]) {
        expect(await madeBy(sqlWith((file) => place(file, text)))).toEqual(expected);
      }
    }
    expect(outcomes.made + outcomes.refused).toBeGreaterThan(0);
  });

  it("takes any schema that the options allow, also one like a mark of a body", async () => {
    const made = await madeBy(sqlWith(() => undefined, "schema=a$guard$b$type$c$older$d"));
    expect(made).toContain("a$guard$b$type$c$older$d");
    expect(made.filter((what) => what.includes("pwned"))).toEqual([]);
  });
});
