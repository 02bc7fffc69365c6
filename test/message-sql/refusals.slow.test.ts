/** Refusals of the generator as `buf generate` prints them. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { protoWith } from "./support/proto-with.js";

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
