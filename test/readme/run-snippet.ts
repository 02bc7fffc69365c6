/**
 * Examples of the pages as programs: each runs against a real Postgres and prints the output that its page shows.
 */
import { symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { transform } from "esbuild";
import { expect, type TestContext } from "vitest";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { pagesOfUsers, readPage } from "./pages.js";
import { programOf, type Snippet, snippetsOf } from "./snippets.js";

/** An example, with its page, and a name that says where it is. */
interface PageSnippet extends Snippet {
  readonly page: string;
  readonly name: string;
}

/** The project as it was compiled for this run: starting it from TypeScript takes three times as long. */
const compiled = process.env["HAWSER_TEST_PROGRAMS"]!;
/** The examples of all pages. */
export const snippets: readonly PageSnippet[] = pagesOfUsers.flatMap((page) =>
  snippetsOf(readPage(page)).map((snippet) => ({ ...snippet, page, name: nameOf(page, snippet.line) })),
);

/** As of `docs/peers.md`, line 12: `snippet-peers-line-12`. */
function nameOf(page: string, line: number): string {
  return `snippet-${basename(page, ".md")}-line-${line}`;
}

/** Runs an example, and expects that it prints what its page says. */
export async function expectToRun(snippet: PageSnippet, context: TestContext): Promise<void> {
  const directory = temporaryDirectory(context);
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
}
