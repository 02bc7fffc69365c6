/**
 * tsc takes the TypeScript that the plugins make of the shop, with the types that ts-proto makes of it beside: the spec's
 * own in `generated/` is checked with the rest of the project.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, CodeGeneratorResponseSchema } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { compile, requestFor } from "./support/request.js";
import { shop, shopFiles, shopProtos } from "./support/shop.js";

it("compiles", async () => {
  const folder = temporaryDirectory();
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const bufGenYaml = readFileSync(join(projectDirectory, "buf.gen.yaml"), "utf8");
  const options = [...bufGenYaml.matchAll(/^ {6}- (\w+=\S+)$/gm)].map(([, option]) => option);
  // The project's own fields of 64 bits all say `jstype`; those of the shop do not, and are bigints.
  const timestamp = "google/protobuf/timestamp.proto";
  const request = requestFor(
    await compile(shopProtos()),
    [...shopFiles.slice(0, 2), timestamp],
    options.join(",").replace("forceLong=number", "forceLong=bigint"),
  );
  const plugin = fileURLToPath(new URL("../../node_modules/ts-proto/protoc-gen-ts_proto", import.meta.url));
  const input = toBinary(CodeGeneratorRequestSchema, request);
  const { stdout } = spawnSync(process.execPath, [plugin], { input, maxBuffer: 2 ** 26 });
  const codecs = fromBinary(CodeGeneratorResponseSchema, stdout).file;
  expect(codecs.map(({ name }) => name)).toHaveLength(3);
  for (const { name, content } of codecs) write(`ts/codecs/${name}`, content);
  for (const [path, text] of Object.entries((await shop()).files)) if (path.startsWith("ts/")) write(path, text);
  symlinkSync(join(projectDirectory, "node_modules"), join(folder, "node_modules"));
  const tsconfig = { extends: join(projectDirectory, "tsconfig.json"), include: ["ts"] };
  write("tsconfig.json", JSON.stringify(tsconfig));
  write("package.json", '{ "type": "module" }');
  const tsc = join(projectDirectory, "node_modules/.bin/tsc");
  const compiled = spawnSync(tsc, ["--noEmit", "-p", folder], { encoding: "utf8" });
  expect({ status: compiled.status, stdout: compiled.stdout }).toEqual({ status: 0, stdout: "" });
});
