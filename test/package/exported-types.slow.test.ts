/**
 * Errors that the types of an entry point name can be imported from `hawser`: a user who catches one has to be able to say
 * so. Types are exported only if users must write their names.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseSync } from "oxc-parser";
import { afterAll, beforeAll, expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";

const manifest = JSON.parse(readFileSync(join(projectDirectory, "package.json"), "utf8"));
const entryPoints = Object.entries<{ types: string }>(manifest.exports).filter(([, { types }]) => types !== undefined);

const directory = mkdtempSync(join(tmpdir(), "hawser-types-"));

beforeAll(() => {
  const tsc = join(projectDirectory, "node_modules/typescript/bin/tsc");
  const args = ["-p", "tsconfig.build.json", "--emitDeclarationOnly", "--outDir", directory];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...args], { cwd: projectDirectory, encoding: "utf8" });
  expect(status, stdout).toBe(0);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The file of declarations that `types` of the manifest names. */
function declarationsOf(types: string): string {
  return join(directory, types.replace(/^\.\/dist\//, ""));
}

/** A node of the syntax tree, as far as it is looked at here. */
interface Node {
  readonly type: string;
  readonly start: number;
  // biome-ignore lint/suspicious/noExplicitAny: which property a node has depends on its type.
  readonly [property: string]: any;
}

/** Origin of a name: a file here, or undefined for another package. The name `*` is all that the file exports. */
interface Origin {
  readonly file: string | undefined;
  readonly name: string;
}

/** A file of declarations. */
interface Module {
  readonly text: string;
  readonly declared: Map<string, Node>;
  readonly imported: Map<string, Origin>;
  readonly exported: Map<string, Origin>;
}

const modules = new Map<string, Module>();

function moduleOf(file: string): Module {
  const known = modules.get(file);
  if (known !== undefined) return known;
  const text = readFileSync(file, "utf8");
  const made: Module = { text, declared: new Map(), imported: new Map(), exported: new Map() };
  modules.set(file, made);
  const beside = (source: string): string | undefined =>
    source.startsWith(".") ? join(dirname(file), source.replace(/\.js$/, ".d.ts")) : undefined;
  const { body } = parseSync(file, text).program as unknown as { body: Node[] };
  for (const node of body) {
    if (node.type === "ImportDeclaration") {
      for (const { imported, local } of node["specifiers"] as Node[]) {
        made.imported.set(local.name, { file: beside(node["source"].value), name: imported?.name ?? "*" });
      }
    } else if (node.type === "ExportAllDeclaration") {
      const from = beside(node["source"].value)!;
      for (const [name, origin] of moduleOf(from).exported) {
        if (!made.exported.has(name)) made.exported.set(name, origin);
      }
    } else {
      const isExport = node.type === "ExportNamedDeclaration";
      const declaration: Node | undefined = isExport ? (node["declaration"] ?? undefined) : node;
      for (const name of declaration === undefined ? [] : namesOf(declaration)) {
        // Of a name that is a type and a value, such as a message and its codec, the type is what users write.
        const isValue = declaration!.type === "VariableDeclaration";
        // The comment stands before `export`.
        if (!isValue || !made.declared.has(name))
          made.declared.set(name, { ...declaration!, type: declaration!.type, start: node.start });
        if (isExport) made.exported.set(name, { file, name });
      }
      for (const { local, exported } of (node["specifiers"] ?? []) as Node[]) {
        const from = node["source"] ? beside(node["source"].value) : undefined;
        const origin = node["source"] ? { file: from, name: local.name } : { file, name: local.name };
        made.exported.set(exported.name, resolved(origin));
      }
    }
  }
  return made;
}

function namesOf(declaration: Node): string[] {
  if (declaration.type === "VariableDeclaration") return declaration["declarations"].map(({ id }: Node) => id.name);
  return declaration["id"]?.name === undefined ? [] : [declaration["id"].name];
}

/** Follows imports and exports to the declaration. */
function resolved(origin: Origin): Origin {
  if (origin.file === undefined) return origin;
  const { declared, imported, exported } = moduleOf(origin.file);
  if (declared.has(origin.name)) return origin;
  const next = imported.get(origin.name) ?? exported.get(origin.name);
  return next === undefined ? origin : resolved(next);
}

/** Exports of an entry point; in place of a namespace its members. */
function membersOf(file: string): [string, Origin][] {
  return [...moduleOf(file).exported].flatMap(([as, origin]): [string, Origin][] => {
    if (origin.name !== "*") return [[as, origin]];
    return membersOf(origin.file!).map(([name, member]) => [`${as}.${name}`, member]);
  });
}

/** The errors that the comments of a declaration name, with a code behind each. */
function errorsIn({ text }: Module, declaration: Node): string[] {
  const comment = /\/\*\*(?:[^*]|\*(?!\/))*\*\/\s*$/.exec(text.slice(0, declaration.start))?.[0] ?? "";
  const all = `${comment}${text.slice(declaration.start, declaration["end"])}`.matchAll(/\b(\w+Error) `\w+`/g);
  return [...all].map(([, error]) => error!).filter((error) => !(error in globalThis));
}

it.each(entryPoints)("%s has as many names as its API report says", (path, { types }) => {
  const { exported } = moduleOf(declarationsOf(types));
  const entryPoint = `hawser${path.slice(1)}`;
  const report = readFileSync(join(projectDirectory, "api", `${entryPoint.replaceAll("/", "-")}.api.md`), "utf8");
  expect(report.split("\n")[0]).toBe(`# ${entryPoint}: ${exported.size} names`);
});

it.each(entryPoints)("hawser exports every error that the types of %s say is thrown", (_, { types }) => {
  const members = membersOf(declarationsOf(types));
  expect(members.length).toBeGreaterThan(0);
  const { exported } = moduleOf(declarationsOf(manifest.exports["."].types));
  const missing = new Set<string>();
  for (const [as, { file, name }] of members) {
    const module = moduleOf(file!);
    const declaration = module.declared.get(name);
    expect(declaration, `${as} is declared in ${file}`).toBeDefined();
    for (const error of errorsIn(module, declaration!)) if (!exported.has(error)) missing.add(`${as} names ${error}`);
  }
  expect([...missing]).toEqual([]);
});
