/**
 * Mistakes in a spec are refused, in words that name the file and the element.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateDocs } from "../../codegen/docs/generate.js";
import { generateRows } from "../../codegen/rows/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { generateSqlText } from "../../codegen/sql-text/generate.js";
import { errorCases } from "./refusals/errors.js";
import { functionCases } from "./refusals/functions.js";
import { ruleCases } from "./refusals/rules.js";
import { settingCases } from "./refusals/settings.js";
import { fn, type RefusalCase, table } from "./refusals/spec-text.js";
import { tableCases } from "./refusals/tables.js";
import { twinCases } from "./refusals/twins.js";
import { compile, refusal, requestFor } from "./support/request.js";

const groups = { tableCases, twinCases, functionCases, ruleCases, settingCases, errorCases };
const all: RefusalCase[] = Object.values(groups).flat();

/** A project root of the tests' own, for body files. */
const root = mkdtempSync(join(tmpdir(), "hawser-refusals-"));
const bodyCases: readonly (RefusalCase & { body?: string })[] = [
  {
    name: "a body that is missing",
    proto: fn("int32 p_id = 1;", "int32 id = 1;", 'body_file: "schema/missing.sql"'),
    says: "rpc FooService.Foo: body_file schema/missing.sql is missing; it holds DECLARE … BEGIN … END",
  },
  ...["", "SELECT 1", "CREATE FUNCTION f() RETURNS void AS 'BEGIN END'", "BEGIN NULL; END; DROP TABLE x"].map(
    (body, number) => ({
      name: `the body ${JSON.stringify(body)}`,
      body,
      proto: fn("int32 p_id = 1;", "int32 id = 1;", `body_file: "schema/body_${number}.sql"`),
      says: `rpc FooService.Foo: body_file schema/body_${number}.sql is not a PL/pgSQL block: DECLARE … BEGIN … END`,
    }),
  ),
];

let descriptors: Awaited<ReturnType<typeof compile>>;
const before = process.cwd();

beforeAll(async () => {
  // One buf build for all: each case has a package of its own, and a request asks for its file alone.
  descriptors = await compile(
    Object.fromEntries([...all, ...bodyCases, goodTable].map((one) => [pathOf(one), protoOf(one)])),
  );
  await mkdir(join(root, "schema"));
  for (const [number, { body }] of bodyCases.slice(1).entries()) {
    await writeFile(join(root, `schema/body_${number}.sql`), body ?? "");
  }
});

afterAll(() => {
  process.chdir(before);
  rmSync(root, { recursive: true });
});

const goodTable: RefusalCase = { name: "nothing", proto: table("int32 id = 1;"), says: "" };

describe.each(Object.entries(groups))("%s", (_, cases) => {
  it.each(cases)("refuses $name", (one) => {
    // Constraint names are made by the sql plugin, everything else is checked by all of them.
    const generator = one.says.includes("constraint name") ? generateSqlText : generateDocs;
    expect(refusal(requestFor(descriptors, [pathOf(one)]), generator)).toBe(expected(one));
  });
});

describe("bodies", () => {
  it.each(bodyCases)("refuses $name", (one) => {
    process.chdir(root);
    expect(refusal(requestFor(descriptors, [pathOf(one)]), generateSqlText)).toBe(expected(one));
  });
});

describe("plugin options", () => {
  it("refuses a run without the package", () => {
    expect(refusal(requestFor(descriptors, [pathOf(goodTable)]), generateSql)).toBe(
      "the option package is missing; add opt: [package=hawser.peer.v1] to buf.gen.yaml",
    );
  });

  it("refuses a package without files", () => {
    expect(refusal(requestFor(descriptors, [pathOf(goodTable)], "package=hawser.nowhere.v1"), generateSql)).toBe(
      'the option package names "hawser.nowhere.v1", of which there is no file',
    );
  });

  it("refuses nothing else", () => {
    expect(refusal(requestFor(descriptors, [pathOf(goodTable)]), generateRows)).toBe("");
  });
});

function areaOf(one: RefusalCase): string {
  return one.name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .replace(/_+$/, "");
}

function pathOf(one: RefusalCase): string {
  return `hawser/${areaOf(one)}/v1/spec.proto`;
}

function protoOf(one: RefusalCase): string {
  return `syntax = "proto3";
    package hawser.${areaOf(one)}.v1;
    import "hawser/spec/v1/options.proto";
    ${one.proto}`;
}

function expected(one: RefusalCase): string {
  return `${pathOf(one)}: ${one.says.replace("FILE", pathOf(one))}`;
}
