/**
 * The package as a user gets it: packed, installed into an empty project, imported, type-checked and run.
 */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { readPage } from "../readme/pages.js";
import { filesOf } from "../readme/snippets.js";
import { testDatabase } from "../support/database.js";
import { projectDirectory } from "../support/program.js";
import { manifest, pack, projectBin, run } from "./pack.js";

/** How long what runs compilers may take: the machine may have much other work. */
const compilesMs = 400_000;
vi.setConfig({ testTimeout: compilesMs });

/** What can be imported, as a user names it: `hawser`, `hawser/frames`, … */
const entryPoints = Object.keys(manifest.exports)
  .filter((path) => path !== "./package.json")
  .map((path) => `hawser${path.slice(1)}`);

/** Those that are given a connection of nats.js, or a router of Connect, and say so. */
const withConnectionsOfUsers = ["hawser/connect", "hawser/nats"];

const directory = mkdtempSync(join(tmpdir(), "hawser-package-"));
const project = join(directory, "project");
const installed = join(project, "node_modules", "hawser");
const tsc = join(project, "node_modules", "typescript", "bin", "tsc");
let packed: readonly string[] = [];
let tarball: string;
/** What npm said on standard error when it installed the package. */
let warnings = "";

/** Runs npm in the project. Resolves with what it wrote to standard error. */
async function installSaying(args: readonly string[]): Promise<string> {
  const { stderr } = await promisify(execFile)("npm", args, { cwd: project });
  return stderr;
}

function write(name: string, text: string): void {
  mkdirSync(dirname(join(project, name)), { recursive: true });
  writeFileSync(join(project, name), text);
}

beforeAll(async () => {
  ({ tarball, files: packed } = await pack(join(directory, "staged")));

  mkdirSync(project);
  write("package.json", JSON.stringify({ name: "user", private: true, type: "module" }));
  const tools = ["typescript", "@types/node", "@connectrpc/connect"].map(
    (name) => `${name}@${manifest.devDependencies[name]}`,
  );
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"];
  // Alone, and not quiet: what is said is of the package.
  warnings = await installSaying(["install", ...quiet.slice(0, -1), tarball]);
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

it("holds what it should, and nothing else", () => {
  for (const file of [
    "package.json",
    "README.md",
    "LICENSE",
    "NOTICE",
    "CHANGELOG.md",
    "SECURITY.md",
    "buf.yaml",
    "docs/architecture.svg",
    "dist/src/peer/index.js",
    "dist/src/peer/index.d.ts",
    "proto/hawser/peer/v1/frames.proto",
    "proto/hawser/spec/v1/options.proto",
    "schema/nats-server-options.schema.json",
  ]) {
    expect(packed).toContain(file);
  }
  const tops = new Set(packed.map((path) => path.split("/")[0]));
  for (const top of ["src", "bench", "codegen", "scripts", "node_modules", ".ci", ".github"]) {
    expect([...tops]).not.toContain(top);
  }
  expect(packed.filter((path) => /\.(test|spec)\.[jt]s$|(^|\/)test\/(?!vectors\/)/.test(path))).toEqual([]);
});

it("holds what its pages link to, from the README on", () => {
  const pages = packed.filter((path) => path.endsWith(".md"));
  expect(pages).toEqual(expect.arrayContaining(["README.md", "docs/protocol.md", "docs/decisions/README.md"]));
  const links = pages.flatMap((page) => {
    const text = readFileSync(join(installed, page), "utf8");
    const targets = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target!);
    return targets.filter((target) => !target.includes("://")).map((target) => join(page, "..", target));
  });
  expect(links).toContain("test/vectors/handshake.json");
  expect([...new Set(links)].filter((target) => !existsSync(join(installed, target)))).toEqual([]);
});

it("has source maps that lead to the sources", () => {
  const maps = packed.filter((path) => path.endsWith(".js.map"));
  expect(maps).toContain("dist/src/peer/peer.js.map");
  for (const path of maps) {
    const { sources, sourcesContent } = JSON.parse(readFileSync(join(installed, path), "utf8")) as {
      readonly sources: readonly string[];
      readonly sourcesContent?: readonly (string | null)[];
    };
    const source = path.replace(/^dist\/(.*)\.js\.map$/, "$1.ts");
    expect(sources, path).toHaveLength(1);
    expect(sourcesContent, path).toEqual([readFileSync(join(projectDirectory, source), "utf8")]);
  }
});

it("is installed without a warning about the version of Node", () => {
  expect(warnings).not.toContain("EBADENGINE");
});

it.each(entryPoints)("%s imports", async (entryPoint) => {
  const script = `const module = await import(${JSON.stringify(entryPoint)}); console.log(Object.keys(module).join());`;
  const names = (await run(process.execPath, ["--input-type=module", "-e", script], project)).trim().split(",");
  expect(names.length).toBeGreaterThan(0);
  const some: Record<string, string[]> = {
    hawser: ["HawserError", "Peer"],
    "hawser/nats": ["consume", "natsSql", "publish", "serve", "subscribe", "typed"],
  };
  expect(names).toEqual(expect.arrayContaining(some[entryPoint] ?? []));
});

// Without skipLibCheck the compiler also reads what the package declares, with only the package's own dependencies there.
// Those of its client of NATS do not type-check under exactOptionalPropertyTypes; and what its users see of NATS is this
// package's to keep.
it("type-checks without skipLibCheck, and declares nothing in terms of its client of NATS, except what takes connections of users", async () => {
  const args = ["--noEmit", "-p", "own", "--skipLibCheck", "false", "--listFiles"];
  const files = await run(process.execPath, [tsc, ...args], project);
  expect(files).toContain("hawser/dist/src/peer/index.d.ts");
  expect(files.split("\n").filter((file) => file.includes("/@nats-io/"))).toEqual([]);
});

it("is loaded by require() of CommonJS, which TypeScript accepts", async () => {
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

it("refuses what the types forbid", async () => {
  write("wrong.ts", `import { Peer } from "hawser";\nnew Peer({ name: "a", topic: "a", listen: 7 });\n`);
  const check = run(process.execPath, [tsc, "--noEmit", "-p", "."], project);
  await expect(check).rejects.toThrow(/wrong\.ts\(2,.*'number' is not assignable/);
  rmSync(join(project, "wrong.ts"));
});

it("type-checks with skipLibCheck, and sends a message", async () => {
  await using database = await testDatabase({ migrated: false });
  await run(process.execPath, [tsc, "-p", "."], project);
  const said = await run(process.execPath, ["send.js"], project, { DATABASE_URL: database.url });
  expect(said.trim().split("\n")).toEqual(["b got hello from a-1", "delivered to b-1"]);
});

it("has the command", async () => {
  const hawser = join(project, "node_modules", ".bin", "hawser");
  expect(await run(hawser, ["--version"], project)).toContain(manifest.version);
});

it("has a plugin that makes settings of a user's own spec, as docs/codegen.md says", async () => {
  const files = filesOf(readPage("docs/codegen.md"));
  expect(files.map(({ name }) => name)).toEqual([
    "buf.yaml",
    "buf.gen.yaml",
    "proto/acme/app/v1/settings.proto",
    "image.ts",
  ]);
  for (const { name, content } of files) {
    mkdirSync(join(project, name, ".."), { recursive: true });
    write(name, content);
  }
  const path = `${join(project, "node_modules", ".bin")}:${process.env["PATH"]}`;
  await run(join(projectBin, "buf"), ["generate"], project, { PATH: path });
  write(
    "settings.ts",
    `import { checkAppSettings } from "./gen/ts/settings/app.js";
     console.log(JSON.stringify([checkAppSettings({}), checkAppSettings({ payWithinMs: 7 })]));`,
  );
  await run(process.execPath, [tsc, "-p", "."], project);
  const [good, bad] = JSON.parse(await run(process.execPath, ["settings.js"], project)) as [object, object];
  expect(good).toMatchObject({ settings: { payWithinMs: 60_000 } });
  expect(JSON.stringify(bad)).toContain("must be an integer, 1000 to 86400000");
});

it("carries a spec that `buf lint` and `buf build` pass", async () => {
  const buf = join(projectBin, "buf");
  await run(buf, ["lint"], installed);
  await run(buf, ["build", "-o", join(directory, "spec.binpb")], installed);
  expect(readFileSync(join(directory, "spec.binpb")).length).toBeGreaterThan(1_000);
});

it("runs examples/typed/ as its README says: installs, generates, type-checks strictly and runs", async () => {
  const folder = join(directory, "typed");
  cpSync(join(projectDirectory, "examples", "typed"), folder, { recursive: true });
  const manifestFile = join(folder, "package.json");
  const text = readFileSync(manifestFile, "utf8");
  writeFileSync(manifestFile, text.replace(/"hawser": "[^"]+"/, `"hawser": ${JSON.stringify(`file:${tarball}`)}`));

  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"], folder);
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
