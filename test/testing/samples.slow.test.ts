/**
 * The samples of docs/testing.md: type-checked as a user would, and run by vitest and node:test as they stand.
 */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readPage } from "../readme/pages.js";
import { filesOf } from "../readme/snippets.js";
import { projectDirectory } from "../support/program.js";
import { runners, sampleProject, startIn } from "./sample-project.js";

const page = readPage("docs/testing.md");

/** The files that a section of the page shows whole. */
function filesUnder(heading: string): Record<string, string> {
  const section = page.split(/^## /m).find((each) => each.startsWith(`${heading}\n`)) ?? "";
  return Object.fromEntries(filesOf(section).map(({ name, content }) => [name, content]));
}

const sections = [
  { heading: "With vitest", command: runners.vitest, said: /Tests {2}2 passed/ },
  { heading: "A handler alone", command: [...runners.node, "handler.test.ts"], said: /^. pass 1$/m },
  { heading: "With node:test", command: [...runners.node, "orders.test.ts"], said: /^. pass 1$/m },
];

it("are all in these sections", () => {
  const here = sections.flatMap(({ heading }) => Object.keys(filesUnder(heading)));
  expect(filesOf(page).map(({ name }) => name)).toEqual(here);
});

describe.each(sections)("$heading", ({ heading, command, said }) => {
  const files = filesUnder(heading);

  it("passes", async () => {
    expect(Object.keys(files).length).toBeGreaterThanOrEqual(1);
    const { status, stdout, stderr } = await startIn(sampleProject(files), command).ended;
    expect(`${stdout}${stderr}`).toMatch(said);
    expect(status).toBe(0);
  });

  it("type-checks", async () => {
    const compilerOptions = {
      target: "ES2022",
      lib: ["ES2023", "ESNext.Disposable"],
      module: "NodeNext",
      types: ["node"],
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      // The package as it was compiled for this run has no declarations: its sources have the same types.
      paths: {
        hawser: [join(projectDirectory, "src/jobs-and-peers/peer/index.ts")],
        "hawser/testing": [join(projectDirectory, "src/development/testing/index.ts")],
      },
    };
    const tsconfig = JSON.stringify({ compilerOptions, include: ["*.ts"] });
    const project = sampleProject({ ...files, "tsconfig.json": tsconfig });
    const { status, stdout } = await startIn(project, ["node_modules/typescript/bin/tsc", "-p", "."]).ended;
    expect(stdout).toBe("");
    expect(status).toBe(0);
  });
});
