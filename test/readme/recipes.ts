/**
 * The recipes of CONTRIBUTING: each names a test, and has a block for each file that it changes:
 *
 *     ```diff src/peer/inbox.ts
 *      a line that is there
 *     +a new line
 *     @@
 *     -a line that goes
 *     ```
 *
 * The lines that are there and that go stand in the file exactly once, in this order. Without such lines a file is made, or, if it
 * exists, gets the new lines at its end.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { blocksOf } from "./snippets.js";

/** A recipe. */
export interface Recipe {
  readonly title: string;
  /** The test that passes when all has been done. */
  readonly test: string;
  readonly changes: readonly { readonly file: string; readonly diff: string }[];
}

/** The recipes of a page, which are the sections below its heading "Recipes". */
export function recipesOf(page: string): Recipe[] {
  const recipes = /^## Recipes$(.*?)^## /ms.exec(page)?.[1] ?? "";
  return recipes
    .split(/^### /m)
    .slice(1)
    .map((section) => {
      const test = /^Test: `([^`]+)`/m.exec(section)?.[1];
      const title = section.slice(0, section.indexOf("\n"));
      if (test === undefined) throw new Error(`the recipe "${title}" names no test`);
      const changes = blocksOf(section).flatMap(({ info, content }) => {
        const file = /^diff (\S+)$/.exec(info)?.[1];
        return file === undefined ? [] : [{ file, diff: content }];
      });
      return { title, test, changes };
    });
}

/** Does what a recipe says in a copy of the project. @throws Error if a block does not fit its file */
export function follow({ title, changes }: Recipe, root: string): void {
  for (const { file, diff } of changes) {
    const path = join(root, file);
    let text = existsSync(path) ? readFileSync(path, "utf8") : "";
    for (const hunk of diff.split(/^@@\n/m)) {
      const lines = hunk.split("\n").slice(0, -1);
      const linesWith = (marks: string) =>
        lines.filter((line) => marks.includes(line[0] ?? " ")).map((line) => `${line.slice(1)}\n`);
      const [before, after] = [linesWith(" -").join(""), linesWith(" +").join("")];
      const parts = `\n${text}`.split(`\n${before}`);
      if (before === "") text += after;
      else if (parts.length === 2) text = `${parts[0]}\n${after}${parts[1]}`.slice(1);
      else throw new Error(`"${title}": these lines stand in ${file} ${parts.length - 1} times, not once:\n${before}`);
    }
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}
