/**
 * The frames in Go and in Python, outside of the checkout, from what the package has: `buf generate` as docs/protocol.md
 * has it, and protovalidate, which refuses what the decoder in TypeScript refuses. Programs of frames/ read the vectors.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { findProgram } from "../../src/development/dev/server-process.js";
import { readPage } from "../readme/pages.js";
import { blocksOf } from "../readme/snippets.js";
import { kept } from "../support/kept.js";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { frameVectors, longFrameVectors, refusedBeyondRules, refusedVectors } from "../wire/vectors.js";
import { projectBin, run } from "./pack.js";

/** Time limit of downloads and compilers: the machine may have much other work. */
const buildsMs = 1_500_000;
vi.setConfig({ testTimeout: buildsMs });

const go = findProgram("go");
const isNewPython = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).status === 0;
const protobufOfGo = "v1.36.12";
const protovalidateOfGo = "v1.4.0";
const pythonPackages = ["grpcio-tools==1.85.1", "protovalidate==2.1.0"];

const valid = [...frameVectors, ...longFrameVectors];
const bodies = [...valid, ...refusedVectors].map(({ frameHex }) => `${frameHex.slice(8)}\n`);

/** Makes a project with the protos of the package, a team's own, and the settings of the page. */
async function projectOfTeam(): Promise<string> {
  const project = temporaryDirectory();
  const listed = await run("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], projectDirectory);
  const [{ files }] = JSON.parse(listed) as [{ files: { path: string }[] }];
  const protos = files.map(({ path }) => path).filter((path) => path.startsWith("proto/"));
  expect(protos).toContain("proto/wire/hawser/peer/v1/frames.proto");
  for (const path of protos) cpSync(join(projectDirectory, path), join(project, path.replace("proto/", "hawser/")));
  const programs = join(projectDirectory, "test/package/frames");
  mkdirSync(join(project, "proto/acme/v1"), { recursive: true });
  cpSync(join(programs, "owner.proto"), join(project, "proto/acme/v1/owner.proto"));
  cpSync(join(programs, "main.go"), join(project, "main.go"));
  cpSync(join(programs, "main.py"), join(project, "python/main.py"));
  const [modules, settings] = blocksOf(readPage("docs/protocol.md")).filter(({ info }) => info === "yaml");
  writeFileSync(join(project, "buf.yaml"), modules!.content);
  writeFileSync(join(project, "buf.gen.yaml"), settings!.content);
  return project;
}

/** Keeps the plugins of the settings that a language has. */
function withPlugins(settings: string, name: string): string {
  const [head, plugins] = settings.split(/^plugins:\n/m);
  const own = plugins!.split(/^(?= {2}- )/m).filter((plugin) => plugin.includes(name));
  expect(own).toHaveLength(1);
  return `${head}plugins:\n${own.join("")}`;
}

/** Runs a program over the bodies of all vectors, and compares what it says of each. */
function expectVerdicts(program: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv): void {
  const input = bodies.join("");
  const ran = spawnSync(program, args, { cwd, env, input, encoding: "utf8", maxBuffer: 2 ** 26 });
  expect({ status: ran.status, stderr: ran.stderr }).toEqual({ status: 0, stderr: "" });
  const [linked, ...verdicts] = ran.stdout.trim().split("\n");
  expect(linked).toBe("sales 11");
  expect(verdicts).toHaveLength(bodies.length);
  expect(new Set(verdicts.slice(0, valid.length))).toEqual(new Set(["valid"]));
  const taken = refusedVectors.filter((_, index) => verdicts[valid.length + index] === "valid");
  expect(taken.map(({ name }) => name)).toEqual(refusedBeyondRules);
}

describe.runIf(go !== undefined)("Go", () => {
  it("vets, links an option with a number of the team's own, and refuses what TypeScript refuses", async () => {
    const env = { ...process.env, GOFLAGS: "-mod=mod" };
    const project = await projectOfTeam();
    const place = `protoc-gen-go/${protobufOfGo}-${process.platform}-${process.arch}`;
    const plugin = await kept(place, "protoc-gen-go", async (directory) => {
      const command = `google.golang.org/protobuf/cmd/protoc-gen-go@${protobufOfGo}`;
      await run("go", ["install", "-trimpath", command], directory, { ...env, GOBIN: directory });
    });
    const settings = join(project, "buf.gen.yaml");
    writeFileSync(settings, withPlugins(readFileSync(settings, "utf8"), "protoc-gen-go"));
    const path = `${dirname(plugin)}${delimiter}${process.env["PATH"]}`;
    await run(join(projectBin, "buf"), ["generate"], project, { PATH: path });
    writeFileSync(join(project, "go.mod"), "module example.com/acme\n\ngo 1.24\n");
    const modules = [`google.golang.org/protobuf@${protobufOfGo}`, `buf.build/go/protovalidate@${protovalidateOfGo}`];
    await run("go", ["get", ...modules], project, env);
    await run("go", ["vet", "./..."], project, env);
    await run("go", ["build", "-o", "main", "."], project, env);
    expectVerdicts(join(project, "main"), [], project, process.env);
  });
});

describe.runIf(isNewPython)("Python", () => {
  it("has an option with a number of the team's own, and refuses what TypeScript refuses", async () => {
    const project = await projectOfTeam();
    const versions = pythonPackages.map((name) => name.replace("==", "-")).join("-");
    const packages = await kept(`${versions}-${process.platform}-${process.arch}`, "packages", async (directory) => {
      const target = join(directory, "packages");
      await run("python3", ["-m", "pip", "install", "--quiet", "--target", target, ...pythonPackages], directory);
    });
    const settings = join(project, "buf.gen.yaml");
    writeFileSync(settings, withPlugins(readFileSync(settings, "utf8"), "grpc_tools"));
    const env = { ...process.env, PYTHONPATH: packages, PYTHONDONTWRITEBYTECODE: "1" };
    await run(join(projectBin, "buf"), ["generate"], project, env);
    expectVerdicts("python3", ["python/main.py"], project, env);
  });
});
