/**
 * What the pages show is type-checked, run against a real Postgres, and prints what they say.
 */
import { symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { transform } from "esbuild";
import { describe, expect, it } from "vitest";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { pagesOfUsers, readPage } from "./pages.js";
import { programOf, projectStepsOf, snippetsOf } from "./snippets.js";

const require = createRequire(import.meta.url);
/** The project as it was compiled for this run: starting it from TypeScript takes three times as long. */
const compiled = process.env["HAWSER_TEST_PROGRAMS"]!;
/** The examples, each with its page, and a name that says where it is. */
const snippets = pagesOfUsers.flatMap((page) =>
  snippetsOf(readPage(page)).map((snippet) => ({ ...snippet, page, name: nameOf(page, snippet.line) })),
);
/** The files of a user's own project. */
const files = pagesOfUsers.flatMap((page) =>
  projectStepsOf(readPage(page)).flatMap((step) =>
    step.kind === "file" ? [{ code: step.content, preamble: undefined, name: nameOf(page, step.line) }] : [],
  ),
);

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
  types: ["node"],
  typeRoots: [join(projectDirectory, "node_modules/@types")],
};

describe("the examples of the pages", () => {
  it("are there", () => {
    expect(snippets.length).toBeGreaterThanOrEqual(9);
    for (const page of ["README.md", "docs/peers.md", "docs/nats-from-sql.md"]) {
      expect(snippets.map((snippet) => snippet.page)).toContain(page);
    }
    expect(snippets.some(({ prints }) => prints !== undefined)).toBe(true);
  });

  it("pass the type checker", async () => {
    const directory = temporaryDirectory();
    symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
    for (const each of [...snippets, ...files]) writeFileSync(join(directory, `${each.name}.mts`), programOf(each));
    const config = { compilerOptions: userOptions, include: ["*.mts"] };
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
      const file = join(temporaryDirectory(), `${snippet.name}.mjs`);
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
