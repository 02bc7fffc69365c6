/**
 * Mistakes in a spec are refused, in words that name the file and the element.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateCodecs } from "../../codegen/codecs/generate.js";
import { generateDocs } from "../../codegen/docs/generate.js";
import { generateGatewayTypescript } from "../../codegen/gateway/generate.js";
import { generateRows } from "../../codegen/rows/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { errorCases } from "./refusals/errors.js";
import { functionCases } from "./refusals/functions.js";
import { gatewayCases } from "./refusals/gateway.js";
import { metricCases } from "./refusals/metrics.js";
import { ruleCases } from "./refusals/rules.js";
import { settingCases } from "./refusals/settings.js";
import { fn, gatewayFn, type RefusalCase, table } from "./refusals/spec-text.js";
import { tableCases } from "./refusals/tables.js";
import { twinCases } from "./refusals/twins.js";
import { wireRuleCases } from "./refusals/wire-rules.js";
import { compile, refusal, requestFor } from "./support/request.js";

const groups = {
  tableCases,
  twinCases,
  functionCases,
  gatewayCases,
  ruleCases,
  wireRuleCases,
  settingCases,
  metricCases,
  errorCases,
};
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

const view = (file: string): string =>
  `message Foo { option (hawser.spec.v1.view) = {name: "foo" query_file: "${file}"}; int32 id = 1; }`;

/** Queries of views. */
const queryCases: readonly (RefusalCase & { body?: string })[] = [
  {
    name: "a query that is missing",
    proto: view("schema/missing.sql"),
    says: "message Foo: query_file schema/missing.sql is missing; it holds SELECT …",
  },
  ...["", "BEGIN NULL; END", "SELECT 1 AS id;", "CREATE VIEW v AS SELECT 1"].map((body, number) => ({
    name: `the query ${JSON.stringify(body)}`,
    body,
    proto: view(`schema/query_${number}.sql`),
    says: `message Foo: query_file schema/query_${number}.sql is not a query: SELECT …, without ";" at its end`,
  })),
];

/** Bodies of functions of the gateway. */
const gatewayBodyCases: readonly (RefusalCase & { body?: string })[] = [
  {
    name: "a body of the gateway that is missing",
    proto: gatewayFn("", "", 'name: "foo" body_file: "schema/gone.sql"'),
    says: "rpc FooService.Foo: body_file schema/gone.sql is missing; it holds DECLARE … BEGIN … END",
  },
  {
    name: "a body of the gateway that is SQL",
    body: "SELECT 1",
    proto: gatewayFn("", "", 'name: "foo" body_file: "schema/gateway_1.sql"'),
    says: "rpc FooService.Foo: body_file schema/gateway_1.sql is not a PL/pgSQL block: DECLARE … BEGIN … END",
  },
  {
    name: "a body that is a directory",
    proto: gatewayFn("", "", 'name: "foo" body_file: "schema/folder.sql"'),
    says: "rpc FooService.Foo: body_file schema/folder.sql cannot be read: Error: EISDIR: illegal operation on a directory, read; it holds DECLARE … BEGIN … END",
  },
  ...["FooConstants.bar_ms", "Foo.foo_ms", "FooSettings.limit_ms"].map((setting, number) => ({
    name: `the setting ${setting} in a body`,
    body: `BEGIN PERFORM @FooConstants.foo_ms@ + @${setting}@; END`,
    proto: `${gatewayFn("", "", `name: "foo" body_file: "schema/gateway_${number + 3}.sql"`)}
      message FooConstants { option (hawser.spec.v1.settings) = {title: "Foo" fixed: true};
        uint32 foo_ms = 1 [(hawser.spec.v1.setting) = {default: "7"}]; }
      message FooSettings { option (hawser.spec.v1.settings) = {title: "Foo"};
        uint32 limit_ms = 1 [(hawser.spec.v1.setting) = {default: "7"}, (hawser.spec.v1.rules) = {min: 0 max: 9}]; }`,
    says: `rpc FooService.Foo: body_file schema/gateway_${number + 3}.sql names the setting ${setting}, which is not a fixed setting`,
  })),
  {
    name: "an unknown expression of a row in a body",
    body: "BEGIN PERFORM @foo(bar)@; END",
    proto: gatewayFn("", "", 'name: "foo" body_file: "schema/gateway_6.sql"'),
    says: "rpc FooService.Foo: body_file schema/gateway_6.sql contains @foo(bar)@; known are @message_id(row)@, @route(row)@",
  },
];

/** Frames with a list that has no greatest length. */
const framesFile = "hawser/peer/v1/frames.proto";
const frames = `syntax = "proto3";
  package hawser.peer.v1;
  message Frame { oneof kind { Batch batch = 1; } }
  message Batch { repeated bytes payloads = 1; }`;

let descriptors: Awaited<ReturnType<typeof compile>>;
const before = process.cwd();

beforeAll(async () => {
  // One buf build for all: each case has a package of its own, and a request asks for its file alone.
  const cases = [...all, ...bodyCases, ...queryCases, ...gatewayBodyCases, goodTable];
  descriptors = await compile({
    ...Object.fromEntries(cases.map((one) => [pathOf(one), protoOf(one)])),
    [framesFile]: frames,
  });
  await mkdir(join(root, "schema/folder.sql"), { recursive: true });
  for (const [number, { body }] of bodyCases.slice(1).entries()) {
    await writeFile(join(root, `schema/body_${number}.sql`), body ?? "");
  }
  for (const [number, { body }] of queryCases.slice(1).entries()) {
    await writeFile(join(root, `schema/query_${number}.sql`), body ?? "");
  }
  for (const [number, { body }] of gatewayBodyCases.entries()) {
    if (body !== undefined) await writeFile(join(root, `schema/gateway_${number}.sql`), body);
  }
  await writeFile(join(root, "package.json"), JSON.stringify({ version: "0.0.0" }));
});

afterAll(() => {
  process.chdir(before);
  rmSync(root, { recursive: true });
});

const goodTable: RefusalCase = { name: "nothing", proto: table("int32 id = 1;"), says: "" };

describe.each(Object.entries(groups))("%s", (_, cases) => {
  it.each(cases)("refuses $name", async (one) => {
    // Constraint names are made by the generator of SQL, everything else is checked by all of them.
    const generator = one.says.includes("constraint name") ? generateSql : generateDocs;
    expect(await refusal(requestFor(descriptors, [pathOf(one)]), generator)).toBe(expected(one));
  });
});

describe("bodies", () => {
  it.each(bodyCases)("refuses $name", async (one) => {
    process.chdir(root);
    expect(await refusal(requestFor(descriptors, [pathOf(one)]), generateSql)).toBe(expected(one));
  });
});

describe("bodies of the gateway", () => {
  it.each(queryCases)("refuses $name", async (one) => {
    process.chdir(root);
    expect(await refusal(requestFor(descriptors, [pathOf(one)]), generateSql)).toBe(expected(one));
  });

  it.each(gatewayBodyCases)("refuses $name", async (one) => {
    process.chdir(root);
    const request = requestFor(descriptors, [pathOf(one)]);
    expect(await refusal(request, generateGatewayTypescript)).toBe(expected(one));
  });
});

it("refuses a list of a frame without a greatest length", async () => {
  expect(await refusal(requestFor(descriptors, [framesFile]), generateCodecs)).toBe(
    `${framesFile}: message Batch.payloads: a list of a frame has a rule repeated.max_items`,
  );
});

it("refuses nothing of what is right", async () => {
  expect(await refusal(requestFor(descriptors, [pathOf(goodTable)]), generateRows)).toBe("");
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
    import "buf/validate/validate.proto";
    import "hawser/spec/v1/options.proto";
    ${one.proto}`;
}

function expected(one: RefusalCase): string {
  return `${pathOf(one)}: ${one.says.replace("FILE", pathOf(one))}`;
}
