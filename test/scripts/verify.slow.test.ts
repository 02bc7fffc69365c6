/**
 * `npm run verify` in a small project of its own: the steps that look at the spec are this project's, the spec is one message.
 */
import { execFile } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { runSteps } from "../../scripts/verify/step.js";
import { bufScript } from "../codegen/support/request.js";
import { projectDirectory } from "../support/program.js";

const run = promisify(execFile);
const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;

const good = `syntax = "proto3";

package hawser.yard.v1;

// A ship.
message Ship {
  // Its name.
  string name = 1;
}
`;
const breaking = good.replace("string name = 1", "bytes name = 1");
const yard = "proto/hawser/yard/v1/yard.proto";
const crane = "proto/hawser/yard/v1/crane.proto";

/** Runs the steps that its arguments name, or all. */
const verifyScript = `
import { breakingStep } from "./verify/breaking.js";
import { formatStep } from "./verify/format.js";
import { generatedStep } from "./verify/generated.js";
import { lintStep } from "./verify/lint.js";
import { runSteps } from "./verify/step.js";

const asked = process.argv.slice(2);
const steps = [lintStep, formatStep, generatedStep, breakingStep];
const chosen = asked.length === 0 ? steps : steps.filter(({ name }) => asked.includes(name));
process.exitCode = (await runSteps(chosen)) ? 0 : 1;
`;

const root = mkdtempSync(join(realpathSync(tmpdir()), "hawser-verify-test-"));
const prepared = join(root, "prepared");
let project = prepared;
let copies = 0;

beforeAll(async () => {
  cpSync(join(projectDirectory, "scripts/verify"), join(prepared, "scripts/verify"), { recursive: true });
  symlinkSync(join(projectDirectory, "node_modules"), join(prepared, "node_modules"));
  mkdirSync(join(prepared, "proto/hawser/yard/v1"), { recursive: true });
  const plugin = "[node, node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es]";
  write("scripts/verify.ts", verifyScript);
  write("package.json", '{ "type": "module" }');
  write("buf.yaml", "version: v2\nmodules:\n  - path: proto\n");
  write(
    "buf.gen.yaml",
    `version: v2\nclean: true\nplugins:\n  - local: ${plugin}\n    out: generated/es\n    opt: [target=ts]\n`,
  );
  write(yard, good);
  await run(process.execPath, [bufScript, "generate"], { cwd: prepared });
  await baseline();
});

beforeEach(() => {
  project = join(root, `copy-${copies++}`);
  cpSync(prepared, project, { recursive: true, verbatimSymlinks: true });
});

afterAll(() => rmSync(root, { recursive: true }));

describe("npm run verify", () => {
  it("is content with a tree that agrees with its spec but for line ends, also without git", async () => {
    const generated = "generated/es/hawser/yard/v1/yard_pb.ts";
    write(generated, readFileSync(join(project, generated), "utf8").replaceAll("\n", "\r\n"));
    const { status, output } = await verify();
    expect(output).toMatch(/^ok +lint +\d+ ms\nok +format +\d+ ms\nok +generated +\d+ ms\nok +breaking +\d+ ms\n/);
    expect(output).toContain("verify: ok");
    expect(status).toBe(0);
  });

  it("goes on after a failed step, names files that are missing, extra and changed, and says what to do", async () => {
    write("generated/es/hawser/yard/v1/old.ts", "");
    write(crane, good.replaceAll("Ship", "Crane"));
    write(yard, good.replace("string name", "bytes   shipName"));
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

  it("counts a step that could not run as failed", async () => {
    const lines: string[] = [];
    const broken = { name: "broken", run: () => Promise.reject(new Error("no buf")) };
    expect(await runSteps([broken], (line) => lines.push(line))).toBe(false);
    expect(lines.join("\n")).toMatch(
      /^failed {2}broken +\d+ ms\n {2}Error: no buf\n[\s\S]+→ The step itself could not run: read the error above\.\nverify: 1 of 1 failed$/,
    );
  });
});

describe("npm run verify before a release", () => {
  it("refuses what breaks the baseline, until that is made anew", async () => {
    write(yard, breaking);
    const { output } = await verify("breaking");
    expect(output).toContain("failed  breaking");
    expect(output).toContain('changed type from "string" to "bytes"');
    expect(output).toContain("run: npm run baseline");
    await baseline();
    expect(await verify("breaking")).toMatchObject({ status: 0 });
  });
});

describe("npm run verify after a release", () => {
  beforeEach(async () => {
    await git("init", "--quiet", "--initial-branch=main");
    write(".gitignore", "node_modules");
    await commit("release");
    await git("tag", "v0.9.0");
    await git("tag", "v0.10.0");
  });

  it("accepts an addition to the last release, and refuses what breaks it, committed or not", async () => {
    write(yard, good.replace("  string name = 1;", "  string name = 1;\n  // Its flag.\n  string flag = 2;"));
    expect((await verify("breaking")).output).toMatch(/^ok +breaking/m);
    write(yard, breaking);
    const { output } = await verify("breaking");
    expect(output).toContain("failed  breaking");
    expect(output).toContain('changed type from "string" to "bytes"');
    expect(output).toContain("peers of v0.10.0 read the spec as it was");
    await commit("break it");
    expect((await verify("breaking")).output).toContain("failed  breaking");
  });
});

async function verify(...steps: string[]): Promise<{ status: number; output: string }> {
  const env = { ...process.env, GIT_CEILING_DIRECTORIES: root };
  const args = ["--import", tsx, join(project, "scripts/verify.ts"), ...steps];
  const ended = await run(process.execPath, args, { cwd: project, env }).catch((error) => error);
  return { status: ended.code ?? 0, output: `${ended.stdout}${ended.stderr}` };
}

/** Makes the baseline as `npm run baseline` does. */
async function baseline(): Promise<void> {
  const { scripts } = JSON.parse(readFileSync(join(projectDirectory, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  const [program, ...args] = scripts["baseline"]!.split(" ");
  expect(program).toBe("buf");
  await run(process.execPath, [bufScript, ...args], { cwd: project });
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
