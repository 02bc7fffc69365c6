/**
 * The pages for people that are written by hand, by their paths from the root of the project.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { projectDirectory } from "../support/program.js";

const inDocs = readdirSync(join(projectDirectory, "docs"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".md"))
  .map((path) => `docs/${path}`)
  .sort();

/** The pages for users, whose examples are run. */
export const pagesOfUsers: readonly string[] = ["README.md", ...inDocs.filter((page) => !/docs\/.*\//.test(page))];

/** All pages. */
export const pages: readonly string[] = [
  ...["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md", "test/vectors/README.md"],
  ...["proto/README.md", "schema/README.md", "test/README.md", "CODE_OF_CONDUCT.md"],
  ...inDocs,
  ...["test/readme/coverage-liner.md", "test/readme/coverage-pgnats.md", "test/simulator/README.md"],
];

export function readPage(path: string): string {
  return readFileSync(join(projectDirectory, path), "utf8");
}
