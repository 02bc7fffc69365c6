import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkLayers } from "../../scripts/layers/check.js";
import { importsOf } from "../../scripts/layers/imports.js";
import { layerOf, tiers, whyForbidden, whyPastIndex } from "../../scripts/layers/rules.js";
import { projectDirectory, startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

/** A source tree with these files. */
function tree(files: Readonly<Record<string, string>>): string {
  const root = temporaryDirectory();
  for (const [path, source] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), source);
  }
  return root;
}

describe("importsOf", () => {
  it("finds every kind of import with its line", () => {
    const source = [
      'import "./side-effect.js";',
      'import { a } from "./named.js";',
      'import type { B } from "./type.js";',
      'export { c } from "./re-export.js";',
      'export * from "./star.js";',
      'export const d = import("./dynamic.js");',
      '// import { e } from "./comment.js";',
      "export const f = 'import { g } from \"./string.js\"';",
      "export const h = (name: string) => import(name);",
    ].join("\n");
    expect(importsOf("x.ts", source)).toEqual([
      { specifier: "./side-effect.js", line: 1 },
      { specifier: "./named.js", line: 2 },
      { specifier: "./type.js", line: 3 },
      { specifier: "./re-export.js", line: 4 },
      { specifier: "./star.js", line: 5 },
      { specifier: "./dynamic.js", line: 6 },
    ]);
  });

  it("refuses a file that is no TypeScript, naming it", () => {
    expect(() => importsOf("src/wire/x.ts", "import {")).toThrow(/^src\/wire\/x\.ts: /);
  });
});

describe("the rules", () => {
  it("let each layer import itself and what is below, and nothing else", () => {
    for (const [high, upper] of tiers.entries()) {
      for (const [low, lower] of tiers.entries()) {
        for (const from of upper) {
          for (const to of lower) {
            const path = (layer: string) => (layer === "generated" ? "generated/ts/x.ts" : `src/${layer}/x.ts`);
            const allowed = from === to || low > high;
            expect(whyForbidden(path(from), path(to)) === undefined, `${from} imports ${to}`).toBe(allowed);
          }
        }
      }
    }
  });

  it("say nothing about files that are not shipped, and forbid shipped ones to import those", () => {
    expect(layerOf("test/wire/x.test.ts")).toBeUndefined();
    expect(whyForbidden("test/wire/x.test.ts", "src/wire/x.js")).toBeUndefined();
    expect(whyForbidden("src/wire/x.ts", "test/support/x.js")).toBe("wire is shipped, and test/support/x.js is not");
  });

  it("know no other folders", () => {
    expect(whyForbidden("src/utils/x.ts", "src/wire/x.js")).toMatch(/^src\/utils is not a layer; the layers are cli, /);
    expect(whyForbidden("src/peer/x.ts", "src/utils/x.js")).toMatch(/^src\/utils is not a layer/);
  });
});

describe("the rule of index.ts", () => {
  const indexes = new Set(["src/nats/index.ts", "src/nats/operations/index.ts", "src/serve/monitor/index.ts"]);
  const why = (importer: string, imported: string) => whyPastIndex(importer, imported, (path) => indexes.has(path));

  it("lets files outside a folder that has one import it alone", () => {
    expect(why("src/gateway/x.ts", "src/nats/index.js")).toBeUndefined();
    expect(why("src/gateway/x.ts", "src/nats/dial.js")).toBe(
      "src/nats may be imported from outside only through its index.ts",
    );
    expect(why("src/gateway/x.ts", "src/dev/stack.js")).toBeUndefined();
  });

  it("is about the outermost folder around what is imported, and not around the importer", () => {
    expect(why("src/gateway/x.ts", "src/nats/operations/index.js")).toMatch(/^src\/nats may be imported/);
    expect(why("src/nats/x.ts", "src/nats/operations/core.js")).toMatch(/^src\/nats\/operations may be imported/);
    expect(why("src/nats/x.ts", "src/nats/operations/index.js")).toBeUndefined();
    expect(why("src/nats/operations/core.ts", "src/nats/headers.js")).toBeUndefined();
    expect(why("src/cli/x.ts", "src/serve/monitor/metrics.js")).toMatch(/^src\/serve\/monitor may be imported/);
  });

  it("says nothing about tests, which look inside, and about what is generated", () => {
    expect(why("test/nats/x.test.ts", "src/nats/dial.js")).toBeUndefined();
    expect(why("src/cli/x.ts", "generated/ts/nats-options/sql.js")).toBeUndefined();
  });
});

describe("checkLayers", () => {
  it("names file, line, import and rule", () => {
    const root = tree({
      "src/wire/frame.ts": 'import { errors } from "../../generated/ts/errors.js";\nimport "../store/store.js";\n',
      "src/store/store.ts": 'import pg from "pg";\nimport type { T } from "../transport/t.js";\n',
      "src/peer/peer.ts": 'import "../store/store.js";\nimport "./other.js";\nimport "../errors/shop.js";\n',
      "generated/ts/errors.ts": 'import { x } from "../../src/errors/index.js";\n',
      "src/errors/index.ts": "",
      "src/errors/shop.ts": "",
    });
    expect(checkLayers(root)).toEqual({
      files: 6,
      imports: 7,
      violations: [
        'generated/ts/errors.ts:1 imports "../../src/errors/index.js": errors is above generated, and imports point down',
        'src/peer/peer.ts:3 imports "../errors/shop.js": src/errors may be imported from outside only through its index.ts',
        'src/store/store.ts:2 imports "../transport/t.js": ' +
          "store and transport are in the same tier, and may not import each other",
        'src/wire/frame.ts:2 imports "../store/store.js": store is above wire, and imports point down',
      ],
    });
  });

  it("finds nothing in this project", async () => {
    expect(checkLayers(projectDirectory).violations).toEqual([]);
    const { status, stdout } = await startProgram("scripts/check-layers.ts").ended;
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Layers: \d+ files, \d+ imports, 0 against the rules\.\n$/);
  });
});
