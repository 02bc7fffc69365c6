/** The pictures of the docs: drawn from their sources, and shown with the same words. */
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { stepsSvg } from "../../scripts/pictures/draw.js";
import { pictureProblems, writePictures } from "../../scripts/pictures/files.js";
import { steps } from "../../scripts/pictures/sources.js";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

const folder = join(projectDirectory, "docs/pictures");
const pictures = readdirSync(folder);

it("each picture is as its source, small, and shown by a page", () => {
  expect(pictureProblems(projectDirectory)).toEqual([]);
  const docs = readdirSync(join(projectDirectory, "docs")).filter((name) => name.endsWith(".md"));
  const pages = docs.map((name) => readFileSync(join(projectDirectory, "docs", name), "utf8")).join("\n");
  for (const name of pictures) {
    const svg = readFileSync(join(folder, name), "utf8");
    expect(Buffer.byteLength(svg), name).toBeLessThan(12_000);
    expect(pages, name).toContain(`![${/<desc id="description">(.+)<\/desc>/.exec(svg)![1]}](pictures/${name})`);
  }
});

it("a picture and a text that were changed by hand are found, and mended", () => {
  const root = temporaryDirectory();
  cpSync(join(projectDirectory, "docs"), join(root, "docs"), { recursive: true });
  const change = (path: string, from: string, to: string): void => {
    const text = readFileSync(join(root, path), "utf8");
    expect(text).toContain(from);
    writeFileSync(join(root, path), text.replaceAll(from, to));
  };
  change("docs/pictures/retries.svg", "1,500 ms", "1,600 ms");
  change("docs/jobs.md", "![Your row and the job", "![Your row or the job");
  // A ratio at a glance is that of the page of results.
  const [, most = ""] = /to ([\d.]+×)\), and behind/.exec(readFileSync(join(root, "docs/benchmarks.md"), "utf8")) ?? [];
  change("docs/benchmarks/results.md", `| ${most} |`, "| 99.99× |");
  rmSync(join(root, "docs/pictures/takeover.svg"));
  writeFileSync(join(root, "docs/pictures/old.svg"), "");
  expect(pictureProblems(root).sort()).toEqual([
    "changed: docs/benchmarks.md",
    "changed: docs/jobs.md",
    "changed: docs/pictures/glance.svg",
    "changed: docs/pictures/retries.svg",
    "extra: docs/pictures/old.svg",
    "missing: docs/pictures/takeover.svg",
  ]);
  writePictures(root);
  expect(pictureProblems(root)).toEqual([]);
  const results = join(root, "docs/benchmarks/results.md");
  writeFileSync(results, readFileSync(results, "utf8").replaceAll("| river |", "| River |"));
  expect(() => writePictures(root)).toThrow("results.md has no ratio to river");
});

it("a text that does not fit into its place is an error", () => {
  const long = { ...steps["path-live"]!, steps: "0>1 a message that is longer than its arrow" };
  expect(() => stepsSvg(long)).toThrow('"a message that is longer than its arrow" is longer than 160 px');
});
