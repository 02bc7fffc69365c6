/**
 * The generated service of these tests is that of its proto.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";

it("is what protoc-gen-es makes", () => {
  const directory = mkdtempSync(join(tmpdir(), "hawser-connect-"));
  try {
    const protos = join(projectDirectory, "test/connect/protos");
    const buf = join(projectDirectory, "node_modules/@bufbuild/buf/bin/buf");
    const args = [buf, "generate", protos, "--template", join(protos, "buf.gen.yaml"), "-o", directory];
    const made = spawnSync(process.execPath, args, { cwd: projectDirectory, encoding: "utf8" });
    expect(made.stderr).toBe("");
    const file = "test/connect/generated/acme/warehouse/v1/warehouse_pb.ts";
    expect(readFileSync(join(directory, file), "utf8")).toBe(readFileSync(join(projectDirectory, file), "utf8"));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
