import { describe, expect, it } from "vitest";
import { longTest } from "../support/limits.js";
import { pagesOfUsers, readPage } from "./pages.js";
import { expectToRun, snippets } from "./run-snippet.js";
import { blocksOf, pageStepsOf, runOf } from "./snippets.js";

/** Pages that show files of a project, and the test that makes this project and runs all of them. */
const projects: Readonly<Record<string, string>> = {
  "docs/getting-started.md": "test/readme/own-project.slow.test.ts",
  "docs/rpc.md": "test/connect/page.slow.test.ts",
  "docs/testing.md": "test/testing/samples.slow.test.ts",
  "docs/orms.md": "test/queue/adapters.slow.test.ts",
  "docs/typed.md": "test/typed/page.slow.test.ts",
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

/** Objects of the database and of NATS that statements make, by kind; a stream also claims the first word of its subjects. */
const madeBySql: Readonly<Record<string, RegExp>> = {
  table: /CREATE TABLE (\w+)/g,
  function: /CREATE FUNCTION (\w+)/g,
  stream: /nats_create_stream\('(\w+)'/g,
  "stream of the subjects": /nats_create_stream\('\w+', ARRAY\['(\w+)/g,
  "bucket or store": /nats_(?:put|kv_create)_\w+\('(\w+)'/g,
  "subscription or responder": /(?:nats_subscribe|register_responder)\('([^']+)'/g,
  "subscription to a stream": /nats_subscribe_stream\('\w+', '\w+', (?:name => )?'([\w-]+)'/g,
};

it("no two pages make the same object by SQL, so that a reader can follow all of them in one database", () => {
  const pagesOf = new Map<string, Set<string>>();
  for (const page of pagesOfUsers) {
    const sql = pageStepsOf(readPage(page)).flatMap((step) => (step.kind === "sql" ? step.statements : []));
    for (const [kind, pattern] of Object.entries(madeBySql)) {
      for (const [, name] of sql.join("").matchAll(pattern)) {
        const object = `${kind} ${name}`;
        pagesOf.set(object, (pagesOf.get(object) ?? new Set()).add(page));
      }
    }
  }
  expect(pagesOf.size).toBeGreaterThan(30);
  expect([...pagesOf].filter(([, made]) => made.size > 1)).toEqual([]);
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

describe("the examples of README.md", () => {
  it.concurrent.for(snippets.filter(({ page, isRun }) => isRun && page === "README.md"))(
    "do what they say, on line $line",
    longTest,
    expectToRun,
  );
});
