/**
 * The package as a user gets it: packed, installed into an empty project, imported, type-checked and run.
 */
import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { installNode } from "../../scripts/node/install-node.js";
import { installPackage } from "../../scripts/npm-cache/install-package.js";
import { cacheDirectory } from "../../src/development/dev/index.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { manifest, pack, projectBin, run } from "./pack.js";

/** Time limit of compilers: the machine may have much other work. */
const compilesMs = 400_000;
vi.setConfig({ testTimeout: compilesMs });

/** Entry points as a user names them: `hawser`, `hawser/frames`, … */
const entryPoints = Object.keys(manifest.exports)
  .filter((path) => path !== "./package.json")
  .map((path) => `hawser${path.slice(1)}`);

/** Entry points that take a connection of nats.js, or a router of Connect, and have their types. */
const withConnectionsOfUsers = ["hawser/connect", "hawser/nats"];

const directory = mkdtempSync(join(tmpdir(), "hawser-package-"));
const project = join(directory, "project");
const installed = join(project, "node_modules", "hawser");
const tsc = join(project, "node_modules", "typescript", "bin", "tsc");
let packed: readonly string[] = [];
let tarball: string;
/** Standard error of npm's installation of the package. */
let warnings = "";
/** Sizes of all packages that npm installs for the package, with its own. */
let installedBytes: readonly number[] = [];

/** Runs npm in the project. Resolves with what it wrote to standard error. */
async function installSaying(args: readonly string[]): Promise<string> {
  const { stderr } = await promisify(execFile)("npm", args, { cwd: project });
  return stderr;
}

/** Folders of the packages that are installed in a project. */
function packagesOf(folder: string): string[] {
  const lock = JSON.parse(readFileSync(join(folder, "node_modules/.package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, unknown>>;
  };
  return Object.keys(lock.packages).map((path) => join(folder, path));
}

/** Size of a package's files, without the packages in it. */
function bytesOf(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.slice(folder.length).includes("/node_modules/"))
    .reduce((sum, path) => sum + statSync(path).size, 0);
}

function write(name: string, text: string): void {
  mkdirSync(dirname(join(project, name)), { recursive: true });
  writeFileSync(join(project, name), text);
}

beforeAll(async () => {
  ({ tarball, files: packed } = await pack(join(directory, "staged")));

  mkdirSync(project);
  write("package.json", JSON.stringify({ name: "user", private: true, type: "module" }));
  const tools = ["typescript", "@types/node", "@connectrpc/connect", "@opentelemetry/api"].map(
    (name) => `${name}@${manifest.devDependencies[name]}`,
  );
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"];
  // Alone, and not quiet: what is said is of the package.
  warnings = await installSaying(["install", ...quiet.slice(0, -1), tarball]);
  installedBytes = packagesOf(project).map(bytesOf);
  await run("npm", ["install", ...quiet, ...tools], project);
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "ESNext.Disposable"],
    module: "NodeNext",
    moduleResolution: "NodeNext",
    types: ["node"],
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: true,
  };
  write("tsconfig.json", JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const imports = entryPoints.map((entryPoint, n) => `import * as entry${n} from ${JSON.stringify(entryPoint)};`);
  const uses = entryPoints.map((_, n) => `console.log(Object.keys(entry${n}));`);
  write("every-entry.ts", [...imports, ...uses].join("\n"));
  const isOwn = (_: string, n: number): boolean => !withConnectionsOfUsers.includes(entryPoints[n]!);
  write("own/entries.ts", [...imports.filter(isOwn), ...uses.filter(isOwn)].join("\n"));
  write("own/tsconfig.json", JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  write("send.ts", sendProgram);
}, compilesMs);

afterAll(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));

it("the package holds what it should, and nothing else", () => {
  for (const file of [
    "package.json",
    "README.md",
    "LICENSE",
    "NOTICE",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/pictures/overview.svg",
    "dist/src/jobs-and-peers/peer/index.js",
    "dist/src/jobs-and-peers/peer/index.d.ts",
    "proto/wire/hawser/peer/v1/frames.proto",
    "proto/options/topic/hawser/v1/topic.proto",
    "schema/nats-server-options.schema.json",
  ]) {
    expect(packed).toContain(file);
  }
  const tops = new Set(packed.map((path) => path.split("/")[0]));
  for (const top of ["src", "bench", "codegen", "scripts", "node_modules", ".ci", ".github"]) {
    expect([...tops]).not.toContain(top);
  }
  const own = packed.filter((path) => !path.startsWith("examples/"));
  expect(own.filter((path) => /\.(test|spec)\.[jt]s$|(^|\/)test\/(?!vectors\/)/.test(path))).toEqual([]);
});

/** Pages and folders for maintainers, and pictures, which only the repository has. */
const forMaintainers =
  /^(CONTRIBUTING\.md|generated\/docs\/catalog\.md|deploy\/chart\/alerts\.test\.yaml|docs\/(benchmarks|decisions|images|releasing)\b.*|examples\/(README\.md|[a-z-]+\.ts|orders\b.*)|scripts\/docs\/demo\.ts)$/;

it("the package holds what its pages for users link to, from the README on", () => {
  const pages = packed.filter((path) => path.endsWith(".md"));
  expect(pages).toEqual(expect.arrayContaining(["README.md", "docs/protocol.md", "examples/service/README.md"]));
  expect(pages.filter((page) => forMaintainers.test(page))).toEqual([]);
  const links = pages.flatMap((page) => {
    const text = readFileSync(join(installed, page), "utf8");
    const targets = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target!);
    return targets.filter((target) => !target.includes("://")).map((target) => join(page, "..", target));
  });
  expect(links).toContain("test/vectors/handshake.json");
  const missing = [...new Set(links)].filter((target) => !existsSync(join(installed, target)));
  expect(missing.filter((target) => !forMaintainers.test(target))).toEqual([]);
  expect(missing.filter((target) => !existsSync(join(projectDirectory, target)))).toEqual([]);
});

it("the package has code without comments, source maps without sources, and declarations with comments", () => {
  const read = (path: string): string => readFileSync(join(installed, path), "utf8");
  const code = packed.filter((path) => path.startsWith("dist/") && path.endsWith(".js"));
  expect(code.filter((path) => read(path).includes("/**"))).toEqual([]);
  expect(packed.filter((path) => path.endsWith(".map"))).toEqual(code.map((path) => `${path}.map`));
  expect(code.filter((path) => read(`${path}.map`).includes("sourcesContent"))).toEqual([]);
  expect(read("dist/src/jobs-and-peers/peer/peer.d.ts")).toContain("/**");
});

it("the package is refused by its own check if a file of dist/ is missing", async () => {
  const staged = join(directory, "staged");
  const [, chunk] = /"\.\.\/\.\.\/(development\/chunks\/.*?)"/.exec(
    readFileSync(join(staged, "dist/src/jobs-and-peers/peer/index.js"), "utf8"),
  )!;
  const [file, away] = [join(staged, "dist/src", chunk!), join(directory, "away")];
  renameSync(file, away);
  const check = run(process.execPath, ["--import", "tsx", "scripts/check-package.ts"], staged);
  await expect(check).rejects.toThrow(
    `dist/src/${chunk}, which dist/src/jobs-and-peers/peer/index.js names, does not exist`,
  );
  renameSync(away, file);
});

it("the package comes with at most 40 packages and 16 MB, itself included", () => {
  expect(installedBytes.length).toBeLessThanOrEqual(40);
  expect(installedBytes.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThanOrEqual(16_000_000);
});

it("the package is installed without a warning about the version of Node", () => {
  expect(warnings).not.toContain("EBADENGINE");
});

it.each(entryPoints)("%s imports", async (entryPoint) => {
  const script = `const module = await import(${JSON.stringify(entryPoint)}); console.log(Object.keys(module).join());`;
  const names = (await run(process.execPath, ["--input-type=module", "-e", script], project)).trim().split(",");
  expect(names.length).toBeGreaterThan(0);
  const some: Record<string, string[]> = {
    hawser: ["HawserError", "Peer"],
    "hawser/frames": ["frames"],
    "hawser/nats": ["consume", "natsSql", "publish", "serve", "subscribe", "typed"],
    "hawser/page": ["page"],
    "hawser/protobuf": ["decode", "encode"],
  };
  expect(names).toEqual(expect.arrayContaining(some[entryPoint] ?? []));
});

// Without skipLibCheck the compiler also reads what the package declares, with only the package's own dependencies there.
// Those of its client of NATS do not type-check under exactOptionalPropertyTypes; and what its users see of NATS is this
// package's to keep.
it("the package type-checks without skipLibCheck, and declares nothing in terms of its client of NATS, except what takes connections of users", async () => {
  const args = ["--noEmit", "-p", "own", "--skipLibCheck", "false", "--listFiles"];
  const files = await run(process.execPath, [tsc, ...args], project);
  expect(files).toContain("hawser/dist/src/jobs-and-peers/peer/index.d.ts");
  expect(files.split("\n").filter((file) => file.includes("/@nats-io/"))).toEqual([]);
});

it("importing the package loads few of its files, since each costs half a millisecond, no Protobuf, and no client of Postgres", async () => {
  const hook = `data:text/javascript,${encodeURIComponent(
    "export const load = (url, context, next) => (console.log(url), next(url, context));",
  )}`;
  const script = `import { register } from "node:module"; register(${JSON.stringify(hook)}); await import("hawser");`;
  const loaded = await run(process.execPath, ["--input-type=module", "-e", script], project);
  const own = loaded.split("\n").filter((url) => url.includes("/node_modules/hawser/"));
  expect(own.length).toBeGreaterThan(1);
  expect(own.length).toBeLessThanOrEqual(20);
  expect(loaded).not.toContain("/node_modules/@bufbuild/protobuf/");
  expect(loaded).not.toContain("/node_modules/pg/");
});

it("the package is loaded by require() of CommonJS, which TypeScript accepts", async () => {
  write("common/main.cts", 'import { Peer } from "hawser";\nconsole.log(typeof Peer);\n');
  write(
    "common/tsconfig.json",
    JSON.stringify({
      compilerOptions: { module: "node20", target: "es2022", types: ["node"], strict: true, skipLibCheck: true },
    }),
  );
  await run(process.execPath, [tsc, "-p", "common"], project);
  expect((await run(process.execPath, ["common/main.cjs"], project)).trim()).toBe("function");
});

it("the package's errors are printed by the names of their classes", async () => {
  const script = `
    import { HawserError, Reject } from "hawser";
    console.log(HawserError.name, Reject.name);
    throw new HawserError("busy", "the queue is full");
  `;
  const { stdout, stderr } = await startCommand(process.execPath, ["--input-type=module", "-e", script], {
    cwd: project,
  }).ended;
  expect(stdout.trim()).toBe("HawserError Reject");
  expect(stderr).toMatch(/^HawserError: the queue is full$/m);
});

it("the package refuses what the types forbid", async () => {
  write("wrong.ts", `import { Peer } from "hawser";\nnew Peer({ name: "a", topic: "a", listen: 7 });\n`);
  const check = run(process.execPath, [tsc, "--noEmit", "-p", "."], project);
  await expect(check).rejects.toThrow(/wrong\.ts\(2,.*'number' is not assignable/);
  rmSync(join(project, "wrong.ts"));
});

it("the package type-checks with skipLibCheck, and sends a message", async () => {
  await using database = await testDatabase({ migrated: false });
  await run(process.execPath, [tsc, "-p", "."], project);
  const said = await run(process.execPath, ["send.js"], project, { DATABASE_URL: database.url });
  expect(said.trim().split("\n")).toEqual(["b got hello from a-1", "delivered to b-1"]);
});

it.runIf(process.platform === "linux").each(["Node 20", "Node 22", "Node 24", "Bun", "Deno"])(
  "the package sends a message in %s",
  async (runtime) => {
    await using database = await testDatabase({ migrated: false });
    await run(process.execPath, [tsc, "-p", "."], project);
    const [program, ...args] = commandOf(runtime);
    const said = await run(program!, [...args, "send.js"], project, { DATABASE_URL: database.url });
    expect(said.trim().split("\n")).toEqual(["b got hello from a-1", "delivered to b-1"]);
  },
);

/** Command line of a runtime. Packages of the npm registry have it; the cache keeps them. */
function commandOf(runtime: string): string[] {
  const inPackage = (name: string, version: string, file: string): string =>
    join(installPackage(name, version, join(cacheDirectory(), `${name}-${version}`)), file);
  if (runtime === "Bun") {
    return [inPackage(`@oven/bun-linux-${process.arch === "arm64" ? "aarch64" : process.arch}`, "1.4.4", "bin/bun")];
  }
  if (runtime === "Deno") {
    const deno = inPackage(`@deno/linux-${process.arch}-glibc`, "2.9.6", "deno");
    return [deno, "run", "--node-modules-dir=manual", "--allow-net", "--allow-env", "--allow-read", "--allow-sys"];
  }
  return [installNode(runtime.replace("Node ", "")).program];
}

it("the package has the command", async () => {
  const hawser = join(project, "node_modules", ".bin", "hawser");
  expect(await run(hawser, ["--version"], project)).toContain(manifest.version);
});

it("the package carries protos that `buf lint` and `buf build` pass", async () => {
  expect(packed.filter((path) => path.startsWith("proto/hawser/"))).toEqual([]);
  const buf = join(projectBin, "buf");
  const modules = ["wire", "options/topic", "options/validate"].map(
    (path) => `  - path: node_modules/hawser/proto/${path}\n`,
  );
  write("buf.yaml", `version: v2\nmodules:\n${modules.join("")}`);
  await run(buf, ["lint"], project);
  await run(buf, ["build", "-o", join(directory, "spec.binpb")], project);
  expect(readFileSync(join(directory, "spec.binpb")).length).toBeGreaterThan(1_000);
});

/** Copies an example of the installed package, and lets it depend on the tarball. */
function copyExample(name: string): string {
  const folder = join(directory, name);
  cpSync(join(installed, "examples", name), folder, { recursive: true });
  const file = join(folder, "package.json");
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace(/"hawser": "[^"]+"/, `"hawser": ${JSON.stringify(`file:${tarball}`)}`));
  return folder;
}

/** Installs the dependencies of a copied example. */
const install = (folder: string) =>
  run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], folder);

it("the package has a service to copy that type-checks, passes its test, books an order and stops", async () => {
  const folder = copyExample("service");
  await install(folder);
  await run("npm", ["run", "check"], folder);
  await run("npm", ["test"], folder, { HAWSER_DATABASE_URL: undefined, HAWSER_NATS_URL: undefined });

  await using database = await testDatabase({ migrated: false });
  const env = { HAWSER_DATABASE_URL: database.url };
  const service = startCommand(process.execPath, ["--import", "tsx", "src/main.ts"], { cwd: folder, env });
  expect(await service.firstLine).toBe("the service runs; Ctrl-C stops it");
  expect((await run("npm", ["run", "--silent", "order", "--", "buoy"], folder, env)).trim()).toBe("placed order 1");
  const booked = "SELECT order_id FROM bookings WHERE article = 'buoy'";
  await eventually("the order is booked", async () => (await rowsOf(database.url, booked)).length === 1);
  service.child.kill("SIGINT");
  const { status, stdout, stderr } = await service.ended;
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toContain("booked order 1: buoy");
});

it("the package has examples/typed/, which does as its README says: installs, generates, type-checks strictly and runs", async () => {
  const folder = copyExample("typed");
  await install(folder);
  await run("npx", ["buf", "lint"], folder);
  await run("npx", ["buf", "generate"], folder);
  await run("npm", ["run", "check"], folder);
  const env = { HAWSER_DATABASE_URL: undefined, HAWSER_NATS_URL: undefined, NO_COLOR: "1" };
  const printed = await run("npm", ["start", "--silent"], folder, env);
  expect(printed.trim().split("\n")).toEqual([
    "SQL function: order 17 of north, 4950 cents, 3 things",
    "SQL function: order 18 of south, 120 cents, 5 things",
    "NATS: buoy costs 24 cents",
    "NATS: rope costs 1299 cents",
    "Peer: order 17 weighs 12.5 kg",
    "Peer: order 18 weighs 0.75 kg",
    "RPC over peers: 7 ropes in stock",
    "RPC over NATS: 7 ropes in stock",
  ]);

  const sources = ["src/main.ts", "src/routes.ts", "src/stack.ts"].map((file) =>
    readFileSync(join(folder, file), "utf8"),
  );
  expect(sources.join("\n")).not.toMatch(/\bany\b|as unknown|@ts-/);
});

/** A user's first program. */
const sendProgram = `
import { HawserError, Peer, type Message, type PeerOptions, type PeerStatus, type Receipt } from "hawser";

const databaseUrl = process.env["DATABASE_URL"] ?? "";
const options = (name: string): PeerOptions => ({
  name: \`\${name}-1\`, databaseUrl,
});
await using a = new Peer(options("a"));
await using b = new Peer(options("b"));
a.on("status", (status: PeerStatus) => {
  if (status.kind === "sender_send_error") console.error(status.error.code);
});
await a.start();
await b.handle("b", (message: Message) => {
  console.log(\`\${message.topic} got \${message.text()} from \${message.sender}\`);
});
await b.start();
try {
  const receipt: Receipt = await a.send("b", "hello", { headers: { trace: "1" } });
  console.log(\`\${receipt.outcome} to \${receipt.peer}\`);
} catch (error) {
  if (error instanceof HawserError) console.error(error.code, error.message);
  throw error;
}
`;
