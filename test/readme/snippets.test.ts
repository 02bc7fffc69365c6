/**
 * What the README shows is type-checked, run against a real Postgres, and prints what it says.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { transform } from "esbuild";
import { describe, expect, it } from "vitest";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { programOf, projectStepsOf, type Snippet, snippetsOf } from "./snippets.js";

const require = createRequire(import.meta.url);
/** The project as it was compiled for this run: starting it from TypeScript takes three times as long. */
const compiled = process.env["HAWSER_TEST_PROGRAMS"]!;
const readme = readFileSync(join(projectDirectory, "README.md"), "utf8");
const snippets = snippetsOf(readme);
const files = projectStepsOf(readme).flatMap((step) => (step.kind === "file" ? [step] : []));
const fileOf = ({ line }: Snippet) => `readme-line-${line}.mts`;

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

describe("the README's examples", () => {
  it("are there", () => {
    expect(snippets.length).toBeGreaterThanOrEqual(7);
    expect(snippets.some(({ prints }) => prints !== undefined)).toBe(true);
  });

  it("pass the type checker", async () => {
    const directory = temporaryDirectory();
    for (const snippet of snippets) writeFileSync(join(directory, fileOf(snippet)), programOf(snippet));
    for (const { line, content } of files) {
      const program = programOf({ code: content, preamble: undefined });
      writeFileSync(join(directory, `readme-line-${line}.mts`), program);
    }
    const config = { compilerOptions: userOptions, include: ["*.mts"] };
    writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
    const compiler = join(require.resolve("typescript/package.json"), "../bin/tsc");
    const { status, stdout } = await startCommand(process.execPath, [compiler, "-p", directory]).ended;
    // Mistakes in the project's own sources are for `npm run lint` to find.
    expect(stdout.split("\n").filter((line) => /readme-line-|^error /.test(line))).toEqual([]);
    expect(status === 0 || stdout.includes("src/")).toBe(true);
  });

  it.concurrent.each(snippets.map((snippet) => ({ ...snippet })))(
    "do what they say, on line $line",
    async (snippet) => {
      const file = join(temporaryDirectory(), `readme-line-${snippet.line}.mjs`);
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
