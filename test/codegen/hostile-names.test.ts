/**
 * Texts of a descriptor in what is generated: a name that is none is refused, and what else may stand in a descriptor stays
 * what it is, whatever it has in it: a comment, a string, a name in quotes.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { clone, create, createFileRegistry, setExtension } from "@bufbuild/protobuf";
import {
  type FieldDescriptorProto,
  FieldOptionsSchema,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateFromSpec } from "../../codegen/generate.js";
import { generateMessageSql } from "../../codegen/message-sql/generate.js";
import {
  FieldRulesSchema,
  field as fieldRules,
  StringRulesSchema,
} from "../../generated/ts/options/buf/validate/validate_pb.js";
import { orderProto } from "../message-sql/support/orders.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { compileSchemas } from "../typed/support/compile.js";
import { compile, generated, requestFor } from "./support/request.js";
import { shopFiles, shopProtos } from "./support/shop.js";

const ordersFile = "acme/v1/orders.proto";
const statement = "CREATE TABLE public.pwned()";
/** Marks that end a comment, a string, a name, a body or a line in some language. */
const marks = [
  "\n",
  "\r",
  "\u2028",
  "\0",
  "--",
  "/*",
  "*/",
  "-->",
  "'",
  '"',
  "\\",
  "`",
  "$",
  "$$",
  "${",
  "%",
  "%s",
  "|",
  ";",
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

const firstField = (file: FileDescriptorProto): FieldDescriptorProto => file.messageType[0]!.field[1]!;

function setRule(field: FieldDescriptorProto, value: string): void {
  field.options = create(FieldOptionsSchema);
  const string = create(StringRulesSchema, { const: value, notIn: [value] });
  setExtension(field.options, fieldRules, create(FieldRulesSchema, { type: { case: "string", value: string } }));
}

describe("SQL of messages", () => {
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

  it.each<[why: string, name: string, change: (file: FileDescriptorProto, name: string) => void]>([
    [
      "the file name",
      "x\nCREATE TABLE public.pwned(); --.proto",
      (file, name) => {
        file.name = name;
      },
    ],
    [
      "the file name",
      "../orders.proto",
      (file, name) => {
        file.name = name;
      },
    ],
    [
      "the json_name",
      "a\0b",
      (file, name) => {
        firstField(file).jsonName = name;
      },
    ],
    [
      "invalid message name",
      'A"; DROP',
      (file, name) => {
        file.messageType[1]!.name = name;
      },
    ],
    [
      "invalid field name",
      "a'b",
      (file, name) => {
        file.messageType[1]!.field[0]!.name = name;
      },
    ],
    [
      "invalid oneof name",
      "a\nb",
      (file, name) => {
        file.messageType[0]!.oneofDecl[0]!.name = name;
      },
    ],
    [
      "invalid enum value name",
      "a'b",
      (file, name) => {
        file.enumType[0]!.value[0]!.name = name;
      },
    ],
  ])("refuses, with %s: %j", (why, name, change) => {
    const refuses = () => sqlWith((file) => change(file, name));
    expect(refuses).toThrow(`${why} ${JSON.stringify(name)}`);
    // In one line of the terminal.
    expect(refuses).toThrow(/^.+$/u);
  });

  it("makes what is meant and nothing else, whatever the descriptor has in it", async () => {
    const expected = await madeBy(sqlWith(() => undefined));
    expect(expected).toContain("messages.publish_pinged(bigint,text,text,timestamp with time zone,jsonb)");
    const outcomes = { made: 0, refused: 0 };
    const places: ((file: FileDescriptorProto, text: string) => void)[] = [
      (file, text) => void (file.name = `${text}.proto`),
      (file, text) => void (file.package = text),
      (file, text) => void (file.messageType[1]!.name = text),
      (file, text) => void (file.messageType[1]!.field[0]!.name = text),
      (file, text) => void (file.messageType[0]!.oneofDecl[0]!.name = text),
      (file, text) => void (file.enumType[0]!.value[0]!.name = text),
      (file, text) => void (firstField(file).jsonName = text),
      (file, text) => setRule(firstField(file), text),
    ];
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...places), hostile, async (place, text) => {
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
      for (const place of [places[0]!, places[6]!, places[7]!]) {
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

describe("TypeScript and pages", () => {
  const text = [
    "A comment. */ globalThis.pwned = true; /*",
    "`; globalThis.pwned = true; //",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it must not become one
    "${(globalThis.pwned = true)} --> <script>pwned()</script> | `` ` |",
    "\u2028globalThis.pwned = true; \r globalThis.pwned = true; //",
  ].join("\n");

  it("have comments in comments, strings in strings, and no HTML", async () => {
    const descriptors = (await compile(shopProtos())).map((proto) => {
      for (const location of proto.sourceCodeInfo?.location ?? []) {
        if (location.leadingComments !== "" && shopFiles.includes(proto.name)) location.leadingComments = text;
      }
      return proto;
    });
    const files = await generated(requestFor(descriptors, shopFiles), generateFromSpec);
    const folder = mkdtempSync(join(tmpdir(), "hawser-hostile-"));
    try {
      writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
      for (const [path, content] of Object.entries(files)) {
        mkdirSync(dirname(join(folder, path)), { recursive: true });
        writeFileSync(join(folder, path), content);
      }
      const modules = [
        "rules/shop/parcels.ts",
        "rows/shop.ts",
        "settings/shop.ts",
        "errors/shop.ts",
        "sql/shop-schema.ts",
      ];
      for (const path of modules) await import(/* @vite-ignore */ pathToFileURL(join(folder, "ts", path)).href);
    } finally {
      rmSync(folder, { recursive: true });
    }
    expect("pwned" in globalThis).toBe(false);
    const pages = Object.entries(files).filter(([path]) => path.startsWith("docs/"));
    expect(pages.length).toBeGreaterThan(3);
    for (const [, content] of pages) expect(content).not.toContain("<script>");
  });
});
