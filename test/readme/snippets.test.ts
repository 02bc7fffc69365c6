/**
 * Examples of the pages: they are type-checked, run against a real Postgres, and print the output that the pages show.
 */
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { transform } from "esbuild";
import { describe, expect, it } from "vitest";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { pagesOfUsers, readPage } from "./pages.js";
import { blocksOf, filesOf, programOf, runOf, snippetsOf } from "./snippets.js";

const require = createRequire(import.meta.url);
/** The project as it was compiled for this run: starting it from TypeScript takes three times as long. */
const compiled = process.env["HAWSER_TEST_PROGRAMS"]!;
/** The examples, each with its page, and a name that says where it is. */
const snippets = pagesOfUsers.flatMap((page) =>
  snippetsOf(readPage(page)).map((snippet) => ({ ...snippet, page, name: nameOf(page, snippet.line) })),
);

/** Pages that show files of a project, and the test that makes this project and runs all of them. */
const projects: Readonly<Record<string, string>> = {
  "docs/getting-started.md": "test/readme/own-project.slow.test.ts",
  "docs/rpc.md": "test/connect/page.slow.test.ts",
  "docs/testing.md": "test/testing/samples.slow.test.ts",
  "docs/transactional.md": "test/outbox/adapters.slow.test.ts",
  "docs/typed.md": "test/typed/page.slow.test.ts",
};

/** Pages whose files import nothing but what is installed here, and nothing that is generated but the client of Prisma. */
const pagesWithFiles = ["docs/getting-started.md", "docs/transactional.md"];

/** As of `docs/peers.md`, line 12: `snippet-peers-line-12`. */
function nameOf(page: string, line: number): string {
  return `snippet-${basename(page, ".md")}-line-${line}`;
}

/** The compiler options of a user: strict, but not with every rule that this project has for itself. */
const userOptions = {
  target: "ES2022",
  lib: ["ES2023", "ESNext.Disposable"],
  module: "NodeNext",
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  paths: {
    hawser: [join(projectDirectory, "src/peer/index.ts")],
    "hawser/nats": [join(projectDirectory, "src/serve/public.ts")],
    "hawser/page": [join(projectDirectory, "src/page/public.ts")],
    "hawser/testing": [join(projectDirectory, "src/testing/index.ts")],
  },
  types: ["node"],
  typeRoots: [join(projectDirectory, "node_modules/@types")],
};

it.each(pagesOfUsers)("%s has no sample that is neither run nor marked as a fragment", (page) => {
  const runs = blocksOf(readPage(page)).map(runOf);
  if (runs.includes("file")) {
    expect(Object.keys(projects)).toContain(page);
    expect(readPage(projects[page]!).includes(`readPage("${page}")`)).toBe(true);
  }
  // What is indented as code has no place for such a mark.
  expect(readPage(page).replace(/^( *)```.*?^\1```$/gms, "")).not.toMatch(/\n\n {4,}\S/);
  if (runs.includes("project")) expect(["docs/getting-started.md", "docs/runtimes.md"]).toContain(page);
  if (runs.includes("ci")) expect(page).toBe("README.md");
  if (runs.includes("statement")) expect(page).toBe("docs/store-protocol.md");
});

it("the commands of README.md for CI are those of .ci/run", () => {
  const blocks = blocksOf(readPage("README.md")).filter((block) => runOf(block) === "ci");
  const commands = blocks.flatMap(({ content }) =>
    content
      .replaceAll(/ *#.*$/gm, "")
      .trim()
      .split(/ && |\n/),
  );
  const steps = [...readPage(".ci/run").matchAll(/^step (npm .*)$/gm)].map(([, command]) => command!);
  expect(steps).toEqual(expect.arrayContaining(commands));
});

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
    const prisma = join(directory, "snippet-transactional/generated/prisma");
    mkdirSync(prisma, { recursive: true });
    copyFileSync(join(projectDirectory, "test/outbox/prisma-client.d.mts"), join(prisma, "client.d.ts"));
    writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }));
    const config = { compilerOptions: userOptions, include: ["*.mts", "*/*.ts"] };
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
    const compiler = join(require.resolve("typescript/package.json"), "../bin/tsc");
    const { status, stdout } = await startCommand(process.execPath, [compiler, "-p", directory]).ended;
    // Mistakes in the project's own sources are for `npm run lint` to find.
    expect(stdout.split("\n").filter((line) => /snippet-|^error /.test(line))).toEqual([]);
    expect(status === 0 || stdout.includes("src/")).toBe(true);
  });

  it.concurrent.each(snippets.filter(({ isRun }) => isRun))(
    "do what they say, in $page on line $line",
    async (snippet) => {
      const directory = temporaryDirectory();
      symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
      const file = join(directory, `${snippet.name}.mjs`);
      // What begins with nothing makes the tables itself.
      await using database = await testDatabase({ migrated: snippet.preamble !== undefined });
      const { code } = await transform(programOf(snippet, compiled), { loader: "ts", target: "node20" });
      writeFileSync(file, code);
      const program = startCommand(process.execPath, [file], {
        env: {
          HAWSER_DATABASE_URL: database.url,
          HAWSER_NATS_URL: testNatsUrl(),
          NO_COLOR: "1",
          FORCE_COLOR: undefined,
        },
      });
      const { status, stdout, stderr } = await program.ended;
      expect(stderr).toBe("");
      if (snippet.prints !== undefined) expect(stdout).toBe(snippet.prints);
      expect(status).toBe(0);
    },
  );
});
