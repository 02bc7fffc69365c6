/** Pages of the site, from the table of `docs/README.md`, and their addresses. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, posix } from "node:path";

/** Folder for all that `npm run docs` writes, from the root of the project. */
export const outputFolder = "dist-docs";

/** Folder of the site with the demo of the operator's page, and the program that records it, to which pages link. */
export const demoFolder = "demo";
export const demoProgram = "scripts/docs/demo.ts";

/** Folder for the reference of the entry points, from the root of the project. */
export const referenceFolder = `${outputFolder}/typedoc`;

/** Row of the table. */
interface Group {
  readonly text: string;
  /** `page`: path from the root of the project. */
  readonly links: readonly { readonly text: string; readonly page: string }[];
}

export interface Pages {
  readonly groups: readonly Group[];
  /** Path of each page on the site, such as `reference/settings.md`, by its path from the root of the project. */
  readonly paths: ReadonlyMap<string, string>;
  /** Markdown files of the project that are no pages of the site. */
  readonly others: readonly string[];
}

/**
 * Reads the table, and finds the pages in folders that a page of the table introduces, such as the decisions.
 *
 * @throws Error that names the pages that are missing in the table
 */
export function readPages(root: string): Pages {
  const table = readFileSync(join(root, "docs/README.md"), "utf8");
  const groups = [...table.matchAll(/^\| ([a-z][^|]*) \| (.*) \|$/gm)].slice(1).map(([, task, cell]) => ({
    text: capital(task!),
    links: [...cell!.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)].map(([, text, target]) => ({
      text: capital(text!).replaceAll("`", ""),
      page: pageAt(posix.join("docs", target!)),
    })),
  }));
  const listed = new Set(groups.flatMap(({ links }) => links.map(({ page }) => page)));
  const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "*.md"], { cwd: root, encoding: "utf8" });
  const markdown = files.split("\n").filter((file) => file !== "");
  const introduced = markdown.filter((file) => {
    const folder = dirname(file);
    return folder.startsWith("docs/") && [`${folder}.md`, `${folder}/README.md`].some((page) => listed.has(page));
  });
  const pages = new Set(["README.md", "docs/README.md", ...listed, ...introduced, ...referencePages(root)]);
  const missing = markdown.filter((file) => /^(docs|generated|api)\//.test(file) && !pages.has(pageAt(file)));
  if (missing.length > 0) throw new Error(`The table of docs/README.md does not list ${missing.join(", ")}.`);
  return {
    groups,
    paths: new Map([...pages].map((page) => [page, pathOf(page)])),
    others: [...markdown.filter((file) => !pages.has(file)), `${referenceFolder}/README.md`],
  };
}

/** Page of the site that stands for a file: for the API report of an entry point, its reference by TypeDoc. */
export function pageAt(file: string): string {
  const entry = /^api\/(.+)\.api\.md$/.exec(file)?.[1];
  return entry === undefined ? file : `${referenceFolder}/${entry.replaceAll("-", ".")}.md`;
}

/** Pages that TypeDoc has written: one for each entry point, and one for each namespace in it. */
function referencePages(root: string): string[] {
  const folder = join(root, referenceFolder);
  const files = existsSync(folder) ? readdirSync(folder) : [];
  return files.filter((file) => file !== "README.md").map((file) => `${referenceFolder}/${file}`);
}

function pathOf(page: string): string {
  if (page === "README.md") return "index.md";
  if (page === "docs/README.md") return "contents.md";
  const [top] = page.split("/");
  const name = page.replace(/\/README\.md$/, "/index.md");
  if (top === "docs") return name.slice("docs/".length);
  if (top === outputFolder) return `api/${basename(page)}`;
  if (top === "generated" || top === "api") return `reference/${basename(page)}`;
  return basename(page.replace(/\/README\.md$/, ".md")).toLowerCase();
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
