import { readdir, readFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { command } from "./command.js";

/** Lines of diff that are shown of one file, and files of which one is shown. */
const shownLines = 16;
const shownFiles = 5;

/**
 * How a committed tree differs from the one just made: a line for each missing, extra or changed file, with an excerpt
 * of the diff for the first few changed ones.
 *
 * @param name of the committed tree, in the lines
 */
export async function compareTrees(committed: string, made: string, name = "generated"): Promise<string[]> {
  const [before, after] = await Promise.all([filesBelow(committed), filesBelow(made)]);
  const all = [...new Set([...before, ...after])].sort();
  const differences: string[] = [];
  let excerpts = 0;
  for (const path of all) {
    if (!before.includes(path)) {
      differences.push(`missing: ${name}/${path}`);
    } else if (!after.includes(path)) {
      differences.push(`extra: ${name}/${path}`);
    } else if (!(await sameContent(join(committed, path), join(made, path)))) {
      differences.push(`changed: ${name}/${path}`);
      if (++excerpts <= shownFiles) {
        differences.push(await excerpt(join(committed, path), join(made, path)));
      }
    }
  }
  return differences;
}

/** Paths relative to the folder, with slashes; of a folder that is missing, none. */
async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error) => {
    if (error.code === "ENOENT") {
      return [];
    }
    throw error;
  });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"));
}

/** Line ends do not count: a checkout may have its own. */
async function sameContent(one: string, other: string): Promise<boolean> {
  const [left, right] = await Promise.all([readFile(one, "utf8"), readFile(other, "utf8")]);
  return left === right || left.replaceAll("\r\n", "\n") === right.replaceAll("\r\n", "\n");
}

async function excerpt(committed: string, made: string): Promise<string> {
  const { stdout } = await command("git", ["diff", "--no-index", "--no-color", "-U1", "--", committed, made]);
  const lines = stdout.split("\n");
  const firstHunk = lines.findIndex((line) => line.startsWith("@@"));
  const hunks = lines.slice(Math.max(0, firstHunk)).filter((line) => line !== "");
  const more = hunks.length > shownLines ? [`… ${hunks.length - shownLines} more lines`] : [];
  return [...hunks.slice(0, shownLines), ...more].map((line) => `  ${line}`).join("\n");
}
