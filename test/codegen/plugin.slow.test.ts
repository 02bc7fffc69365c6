/**
 * The plugins as buf runs them: processes of their own, by buf.gen.yaml.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { table } from "./refusals/spec-text.js";
import { bufScript, writeModule } from "./support/request.js";

const run = promisify(execFile);
const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const codegen = fileURLToPath(new URL("../../codegen", import.meta.url));

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "hawser-plugin-"));
  await writeModule(folder, { "hawser/yard/v1/yard.proto": spec(table("int32 id = 1;")) });
  const plugin = (name: string, out: string) =>
    `  - local: [${[process.execPath, "--import", tsx, join(codegen, name, "plugin.ts")].map((word) => JSON.stringify(word)).join(", ")}]
    out: ${out}
    opt: [package=hawser.yard.v1]
    strategy: all`;
  writeFileSync(
    join(folder, "buf.gen.yaml"),
    `version: v2\nclean: true\nplugins:\n${plugin("sql", "generated/sql")}\n${plugin("rows", "generated/ts/rows")}\n`,
  );
});

afterAll(() => rmSync(folder, { recursive: true }));

describe("buf generate", () => {
  it("writes what the plugins make, each below its own folder", async () => {
    await run(process.execPath, [bufScript, "generate"], { cwd: folder });
    expect(filesBelow("generated")).toEqual(["sql/grants.sql", "sql/schema.sql", "ts/rows/yard.ts"]);
    expect(readFileSync(join(folder, "generated/sql/schema.sql"), "utf8")).toContain("CREATE TABLE hawser.foo (");
  });

  it("prints what a plugin refuses and ends with a status other than zero", async () => {
    const proto = join(folder, "proto/hawser/yard/v1/yard.proto");
    writeFileSync(proto, spec(table('string id = 1 [(hawser.spec.v1.column) = {type: "money"}];')));
    await expect(run(process.execPath, [bufScript, "generate"], { cwd: folder })).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining(
        'hawser/yard/v1/yard.proto: message Foo.id: unknown column type "money"; use one of smallint, integer,',
      ),
    });
  });
});

function spec(text: string): string {
  return `syntax = "proto3"; package hawser.yard.v1; import "hawser/spec/v1/options.proto"; ${text}`;
}

function filesBelow(path: string): string[] {
  const root = join(folder, path);
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort();
}
