/** The examples of README.md run in `snippets.test.ts`. */
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { readPage } from "./pages.js";
import { expectToRun, snippets } from "./run-snippet.js";
import { filesOf, programOf } from "./snippets.js";

const require = createRequire(import.meta.url);

/** Pages whose files import nothing but what is installed here, and nothing that is generated but the client of Prisma. */
const pagesWithFiles = ["docs/getting-started.md", "docs/orms.md"];

/** The compiler options of a user: strict, but not with every rule that this project has for itself. */
const userOptions = {
  target: "ES2022",
  lib: ["ES2023", "ESNext.Disposable"],
  module: "NodeNext",
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  paths: {
    hawser: [join(projectDirectory, "src/jobs-and-peers/peer/index.ts")],
    "hawser/nats": [join(projectDirectory, "src/nats/client/index.ts")],
    "hawser/page": [join(projectDirectory, "src/operating/page/public.ts")],
    "hawser/testing": [join(projectDirectory, "src/development/testing/index.ts")],
  },
  types: ["node"],
  typeRoots: [join(projectDirectory, "node_modules/@types")],
};

describe("the examples of the pages", () => {
  it("pass the type checker", async () => {
    const directory = temporaryDirectory();
    symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
    for (const each of snippets) writeFileSync(join(directory, `${each.name}.mts`), programOf(each));
    for (const page of pagesWithFiles) {
      const folder = join(directory, `snippet-${basename(page, ".md")}`);
      mkdirSync(folder);
      for (const { name, content } of filesOf(readPage(page))) writeFileSync(join(folder, name), content);
    }
    const prisma = join(directory, "snippet-orms/generated/prisma");
    mkdirSync(prisma, { recursive: true });
    copyFileSync(join(projectDirectory, "test/queue/prisma-client.d.mts"), join(prisma, "client.d.ts"));
    writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }));
    const config = { compilerOptions: userOptions, include: ["*.mts", "*/*.ts"] };
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
    const compiler = join(require.resolve("typescript/package.json"), "../bin/tsc");
    const { status, stdout } = await startCommand(process.execPath, [compiler, "-p", directory]).ended;
    // Mistakes in the project's own sources are for `npm run lint` to find.
    expect(stdout.split("\n").filter((line) => /snippet-|^error /.test(line))).toEqual([]);
    expect(status === 0 || stdout.includes("src/")).toBe(true);
  });

  it.concurrent.for(snippets.filter(({ page, isRun }) => isRun && page !== "README.md"))(
    "do what they say, in $page on line $line",
    expectToRun,
  );
});
