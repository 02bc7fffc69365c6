import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkLayers } from "../../scripts/layers/check.js";
import { temporaryDirectory } from "../support/temporary.js";

/** Files of a source tree, by path; each is a list of lines. */
const files = {
  "src/foundation/README.md": ["# Foundation"],
  "src/nats/README.md": ["# NATS"],
  "src/jobs-and-peers/README.md": Array.from({ length: 41 }, (_, line) => `${line}`),
  "generated/ts/errors.ts": ['import { x } from "../../src/foundation/errors/index.js";'],
  "src/foundation/errors/index.ts": [],
  "src/nats/connections/index.ts": ['import "./operations/core.js";', 'import "./operations/index.js";'],
  "src/nats/connections/operations/index.ts": ['import "./core.js";', 'import "../dial.js";'],
  "src/jobs-and-peers/peer/peer.ts": [
    'import "../../foundation/errors/shop.js";',
    'import "../../nats/connections/index.js";',
  ],
  "src/jobs-and-peers/store/store.ts": ['import pg from "pg";', 'import type { T } from "../transport/t.js";'],
  "src/jobs-and-peers/queue/late.ts": ['import "../../nats/outbox/relay.js";', 'import "../wires/x.js";'],
  "src/nats/outbox/relay.ts": [],
  "src/utils/x.ts": ['import "../jobs-and-peers/wire/x.js";'],
  "src/jobs-and-peers/wire/frame.ts": [
    'import { errors } from "../../../generated/ts/errors.js";',
    'import "../store/side-effect.js";',
    'export { a } from "../store/re-export.js";',
    'export * from "../store/star.js";',
    'export const b = import("../store/dynamic.js");',
    'import { c } from "../../../test/support/c.js";',
    '// import { d } from "../store/comment.js";',
    "export const e = 'import { f } from \"../store/string.js\"';",
  ],
};

describe("the check of the layers", () => {
  it("names file, line, import and rule of each wrong import, whatever its kind", () => {
    const root = temporaryDirectory();
    for (const [path, lines] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), lines.join("\n"));
    }
    expect(checkLayers(root)).toEqual({
      files: 10,
      imports: 17,
      violations: [
        'generated/ts/errors.ts:1 imports "../../src/foundation/errors/index.js": errors is above generated, and imports point down',
        'src/jobs-and-peers/peer/peer.ts:1 imports "../../foundation/errors/shop.js": src/foundation/errors may be imported from outside only through its index.ts',
        'src/jobs-and-peers/peer/peer.ts:2 imports "../../nats/connections/index.js": nothing of jobs-and-peers imports from nats',
        'src/jobs-and-peers/queue/late.ts:1 imports "../../nats/outbox/relay.js": nothing of jobs-and-peers imports from nats',
        'src/jobs-and-peers/store/store.ts:2 imports "../transport/t.js": store and transport are in the same tier, and may not import each other',
        ...["side-effect", "re-export", "star", "dynamic"].map(
          (name, index) =>
            `src/jobs-and-peers/wire/frame.ts:${index + 2} imports "../store/${name}.js": store is above wire, and imports point down`,
        ),
        'src/jobs-and-peers/wire/frame.ts:6 imports "../../../test/support/c.js": wire is shipped, and test/support/c.js is not',
        'src/nats/connections/index.ts:1 imports "./operations/core.js": src/nats/connections/operations may be imported from outside only through its index.ts',
        expect.stringMatching(/^src\/utils\/x\.ts is in no room of a wing; the wings are jobs-and-peers \(peer, /),
        "src/jobs-and-peers: a wing needs a README.md of at most 40 lines, and this one has 41",
      ],
    });
  });

  it("names a wing, and a folder of more than ten files, without a page on how it works", () => {
    const root = temporaryDirectory();
    for (let n = 0; n < 11; n += 1) {
      mkdirSync(join(root, "src/jobs-and-peers/wire"), { recursive: true });
      writeFileSync(join(root, `src/jobs-and-peers/wire/${n}.ts`), "");
    }
    expect(checkLayers(root).violations).toEqual([
      "src/jobs-and-peers/wire: 11 files need a README.md on how the folder works",
      "src/jobs-and-peers: a wing needs a README.md of at most 40 lines, and this one has 0",
    ]);
    writeFileSync(join(root, "src/jobs-and-peers/README.md"), "# Jobs and peers");
    writeFileSync(join(root, "src/jobs-and-peers/wire/README.md"), "");
    expect(checkLayers(root).violations).toEqual([]);
  });

  it("refuses a file that is no TypeScript, naming it", () => {
    const root = temporaryDirectory();
    mkdirSync(join(root, "src/jobs-and-peers/wire"), { recursive: true });
    writeFileSync(join(root, "src/jobs-and-peers/wire/x.ts"), "import {");
    expect(() => checkLayers(root)).toThrow(/^src\/jobs-and-peers\/wire\/x\.ts: /);
  });
});
