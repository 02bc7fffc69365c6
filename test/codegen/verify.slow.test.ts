/**
 * The steps of `npm run verify` that look at the spec, in a small project of its own: the steps are this project's, the
 * spec is one message.
 */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { bufScript } from "./support/request.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;

const good = `syntax = "proto3";

package hawser.yard.v1;

// A ship.
message Ship {
  // Its name.
  string name = 1;
}
`;

const verifyScript = `
import { breakingStep } from "./verify/breaking.js";
import { formatStep } from "./verify/format.js";
import { generatedStep } from "./verify/generated.js";
import { lintStep } from "./verify/lint.js";
import { runSteps } from "./verify/step.js";

process.exitCode = (await runSteps([lintStep, formatStep, generatedStep, breakingStep])) ? 0 : 1;
`;

const folders: string[] = [];
let prepared: string;
let project: string;

beforeAll(async () => {
  prepared = project = temporaryFolder();
  cpSync(join(root, "scripts/verify"), join(project, "scripts/verify"), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(project, "node_modules"));
  mkdirSync(join(project, "proto/hawser/yard/v1"), { recursive: true });
  write("scripts/verify.ts", verifyScript);
  write("package.json", '{ "type": "module" }');
  write("buf.yaml", "version: v2\nmodules:\n  - path: proto\n");
  write(
    "buf.gen.yaml",
    "version: v2\nclean: true\nplugins:\n  - local: [node, node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es]\n    out: generated/es\n    opt: [target=ts]\n",
  );
  write("proto/hawser/yard/v1/yard.proto", good);
  await run(process.execPath, [bufScript, "generate"], { cwd: project });
  await baseline();
});

beforeEach(() => {
  project = temporaryFolder();
  cpSync(prepared, project, { recursive: true, verbatimSymlinks: true });
});

afterAll(() => {
  for (const folder of folders) {
    rmSync(folder, { recursive: true });
  }
});

describe("verify", () => {
  it("is content with a tree that agrees with its spec, also without git", async () => {
    const { status, output } = await verify();
    expect(output).toMatch(/^ok +lint +\d+ ms\nok +format +\d+ ms\nok +generated +\d+ ms\nok +breaking +\d+ ms\n/);
    expect(status).toBe(0);
  });

  it("fails on lint and on format, goes on, names files that are missing, extra and changed, and says what to do", async () => {
    write("generated/es/hawser/yard/v1/old.ts", "");
    write("proto/hawser/yard/v1/crane.proto", good.replaceAll("Ship", "Crane"));
    write("proto/hawser/yard/v1/yard.proto", good.replace("string name", "bytes   shipName"));
    const { status, output } = await verify();
    expect(output).toContain("failed  lint");
    expect(output).toContain('Field name "shipName" should be lower_snake_case');
    expect(output).toContain("failed  format");
    expect(output).toContain("→ Run: npx buf format --write");
    expect(output).toContain("failed  generated");
    expect(output).toContain("  missing: generated/es/hawser/yard/v1/crane_pb.ts\n");
    expect(output).toContain("  extra: generated/es/hawser/yard/v1/old.ts\n");
    expect(output).toContain("  changed: generated/es/hawser/yard/v1/yard_pb.ts\n");
    expect(output).toMatch(/\n +- +name: string;\n +\+ +shipName: Uint8Array;\n/);
    expect(output).toContain("→ Run: npx buf generate");
    expect(status).toBe(1);
  });

  it("says where the spec cannot be generated from", async () => {
    write("proto/hawser/yard/v1/yard.proto", good.replace("string name", "strnig name"));
    const { status, output } = await verify();
    expect(output).toContain("strnig");
    expect(status).toBe(1);
  });
});

describe("verify before a release", () => {
  it("refuses what breaks the baseline, until that is made anew", async () => {
    await change(good.replace("string name = 1", "bytes name = 1"));
    const { status, output } = await verify();
    expect(output).toContain("failed  breaking");
    expect(output).toContain('changed type from "string" to "bytes"');
    expect(output).toContain("run: npm run baseline");
    expect(status).toBe(1);
    await baseline();
    expect(await verify()).toMatchObject({ status: 0 });
  });

  it("asks for a baseline where there is none", async () => {
    rmSync(join(project, "proto/baseline.binpb"));
    const { status, output } = await verify();
    expect(output).toContain("proto/baseline.binpb does not exist\n  → Run: npm run baseline");
    expect(status).toBe(1);
  });

  it("compares a spec whose files have moved to another module", async () => {
    write("buf.yaml", "version: v2\nmodules:\n  - path: proto\n    excludes: [proto/wire]\n  - path: proto/wire\n");
    mkdirSync(join(project, "proto/wire/hawser/yard/v1"), { recursive: true });
    renameSync(join(project, "proto/hawser/yard/v1/yard.proto"), join(project, "proto/wire/hawser/yard/v1/yard.proto"));
    write("proto/hawser/yard/v1/crane.proto", good.replaceAll("Ship", "Crane"));
    expect((await verify()).output).toMatch(/^ok +breaking/m);
  });
});

describe("verify after a release", () => {
  beforeEach(async () => {
    await git("init", "--quiet", "--initial-branch=main");
    write(".gitignore", "node_modules");
    await commit("release");
    await git("tag", "v0.9.0");
    await git("tag", "v0.10.0");
  });

  it("takes an addition", async () => {
    await change(good.replace("  string name = 1;", "  string name = 1;\n  // Its flag.\n  string flag = 2;"));
    const { status, output } = await verify();
    expect(output).toMatch(/ok +breaking/);
    expect(status).toBe(0);
  });

  it("refuses what breaks the last release, whether committed or not", async () => {
    await change(good.replace("string name = 1", "bytes name = 1"));
    const before = await verify();
    expect(before.output).toContain("failed  breaking");
    expect(before.output).toContain('changed type from "string" to "bytes"');
    expect(before.output).toContain("peers of v0.10.0 read the spec as it was");
    expect(before.status).toBe(1);
    await commit("break it");
    expect((await verify()).output).toContain("failed  breaking");
  });

  it("works in a shallow, detached clone", async () => {
    write("proto/hawser/yard/v1/yard.proto", good.replace("string name = 1", "bytes name = 1"));
    await commit("break it");
    const clone = temporaryFolder();
    await run("git", ["clone", "--quiet", "--depth=1", "--branch=main", `file://${project}`, clone]);
    symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
    await run("git", ["checkout", "--quiet", "--detach"], { cwd: clone });
    project = clone;
    expect((await verify()).output).toContain("run: npm run baseline");
    await git("fetch", "--quiet", "--depth=1", "origin", "tag", "v0.10.0");
    expect((await verify()).output).toContain("peers of v0.10.0 read the spec as it was");
  });
});

async function verify(): Promise<{ status: number; output: string }> {
  const script = join(project, "scripts/verify.ts");
  const env = { ...process.env, GIT_CEILING_DIRECTORIES: tmpdir() };
  const args = ["--import", tsx, script];
  const ended = await run(process.execPath, args, { cwd: project, env }).catch((error) => error);
  return { status: ended.code ?? 0, output: `${ended.stdout}${ended.stderr}` };
}

/** Makes the baseline as `npm run baseline` does. */
async function baseline(): Promise<void> {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  const [program, ...args] = scripts["baseline"]!.split(" ");
  expect(program).toBe("buf");
  await run(process.execPath, [bufScript, ...args], { cwd: project });
}

async function change(proto: string): Promise<void> {
  write("proto/hawser/yard/v1/yard.proto", proto);
  await run(process.execPath, [bufScript, "generate"], { cwd: project });
}

async function commit(message: string): Promise<void> {
  await git("add", "--all");
  await git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", message);
}

async function git(...args: string[]): Promise<void> {
  await run("git", args, { cwd: project });
}

function write(path: string, text: string): void {
  writeFileSync(join(project, path), text);
}

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "hawser-verify-test-"));
  folders.push(folder);
  return folder;
}
