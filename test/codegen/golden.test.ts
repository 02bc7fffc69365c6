/**
 * What each plugin makes of the protos in `protos/`, kept in `golden/`. After a wanted change rewrite it with
 * `UPDATE_GOLDEN=1 npx vitest run test/codegen/golden.test.ts` and read the diff.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, CodeGeneratorResponseSchema } from "@bufbuild/protobuf/wkt";
import { beforeAll, describe, expect, it } from "vitest";
import { generateDocs } from "../../codegen/docs/generate.js";
import { generateErrors } from "../../codegen/errors/generate.js";
import { generateGatewayDocs, generateGatewaySql, generateGatewayTypescript } from "../../codegen/gateway/generate.js";
import type { Generator } from "../../codegen/plugin.js";
import { generateRows } from "../../codegen/rows/generate.js";
import { generateSettings } from "../../codegen/settings/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { generateSqlText } from "../../codegen/sql-text/generate.js";
import { generateValidators } from "../../codegen/validators/generate.js";
import { compile, generated, requestFor } from "./support/request.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const golden = join(here, "golden");
const shopFiles = ["orders", "parcels", "shop", "till"].map((name) => `hawser/shop/v1/${name}.proto`);

/** As in buf.gen.yaml, without what does not change the types. */
const codecOptions = [
  "forceLong=bigint",
  "oneof=unions-value",
  "importSuffix=.js",
  "exportCommonSymbols=false",
  "emitImportedFiles=false",
  "outputServices=none",
  "outputJsonMethods=false",
  "outputPartialMethods=false",
  "useExactTypes=false",
  "annotateFilesWithVersion=false",
  "removeEnumPrefix=true",
];

/** Each plugin with its folder below golden/, as `out` is below generated/. */
const plugins: readonly { name: string; out: string; generator: Generator; parameter?: string }[] = [
  { name: "codegen/sql", out: "sql", generator: generateSql, parameter: "package=hawser.shop.v1" },
  { name: "codegen/sql-text", out: "ts/sql", generator: generateSqlText },
  { name: "codegen/rows", out: "ts/rows", generator: generateRows },
  { name: "codegen/validators", out: "ts/rules", generator: generateValidators },
  { name: "codegen/settings", out: "ts/settings", generator: generateSettings },
  { name: "codegen/errors", out: "ts/errors", generator: generateErrors },
  { name: "codegen/docs", out: "docs", generator: generateDocs },
  ...[
    { name: "codegen/gateway, TypeScript", out: "ts/gateway", generator: generateGatewayTypescript },
    { name: "codegen/gateway, SQL", out: "gateway/sql", generator: generateGatewaySql },
    { name: "codegen/gateway, docs", out: "gateway/docs", generator: generateGatewayDocs },
  ].map((plugin) => ({ ...plugin, parameter: "package=hawser.shop.v1" })),
];

const timestamp = "google/protobuf/timestamp.proto";

/** ts-proto's part, only for tsc to check the golden validators against. */
const codecs: Generator = () => {
  const request = requestFor(descriptors, [...shopFiles.slice(0, 2), timestamp], codecOptions.join(","));
  const plugin = fileURLToPath(new URL("../../node_modules/ts-proto/protoc-gen-ts_proto", import.meta.url));
  const input = toBinary(CodeGeneratorRequestSchema, request);
  const { stdout } = spawnSync(process.execPath, [plugin], { input, maxBuffer: 2 ** 26 });
  const response = fromBinary(CodeGeneratorResponseSchema, stdout);
  return response.file.map(({ name, content }) => ({ path: name, content }));
};

let descriptors: Awaited<ReturnType<typeof compile>>;

beforeAll(async () => {
  const texts = shopFiles.map((path) => [path, readFileSync(join(here, "protos", path.slice(7)), "utf8")]);
  descriptors = await compile(Object.fromEntries(texts));
});

it("keeps ts-proto's types beside, so that tsc checks that the golden TypeScript compiles", () => {
  const files = generated(requestFor(descriptors, shopFiles), codecs);
  compareWithGolden("ts/codecs", files);
});

describe.each(plugins)("$name", ({ out, generator, parameter }) => {
  it("makes what it made", () => {
    const files = generated(requestFor(descriptors, shopFiles, parameter), generator);
    compareWithGolden(out, files);
  });

  it("makes the same whatever the order of the files", () => {
    const one = generated(requestFor(descriptors, shopFiles, parameter), generator);
    const other = generated(requestFor(descriptors, [...shopFiles].reverse(), parameter), generator);
    expect(other).toEqual(one);
  });

  it("names itself, its sources and that nobody edits it in each file's head", () => {
    const files = generated(requestFor(descriptors, shopFiles, parameter), generator);
    for (const [path, content] of Object.entries(files)) {
      const head = content.slice(0, 300);
      expect(head, path).toMatch(/Code generated by codegen\/\S+ \(npx buf generate\)\. DO NOT EDIT\./);
      expect(head, path).toMatch(
        path === "violation.ts" || path === "argument.ts" ? /source: codegen\// : /source: hawser\/shop\/v1\//,
      );
    }
  });
});

function compareWithGolden(out: string, files: Record<string, string>): void {
  const folder = join(golden, out);
  if (process.env["UPDATE_GOLDEN"] === "1") {
    rmSync(folder, { recursive: true, force: true });
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
  }
  expect(Object.keys(files).sort()).toEqual(filesBelow(folder));
  for (const [path, content] of Object.entries(files)) {
    expect(content, path).toBe(readFileSync(join(folder, path), "utf8"));
  }
}

function filesBelow(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}
