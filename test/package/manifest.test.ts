/**
 * What package.json promises is there to be packed. That it works once installed is package.slow.test.ts's.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { manifest } from "./pack.js";

const exists = (path: string) => existsSync(join(projectDirectory, path));

it("has a source for each entry point and for the command", () => {
  const bin = (manifest as unknown as { bin: Record<string, string> }).bin["hawser"];
  const compiled = [bin, ...Object.values(manifest.exports).flatMap((one) => Object.values(one as object))];
  const sources = compiled
    .filter((path): path is string => typeof path === "string" && path.startsWith("./dist/"))
    .map((path) => path.replace("./dist/", "").replace(/(\.d)?\.[jt]s$/, ".ts"));
  expect(sources).toContain("src/peer/index.ts");
  expect(sources.length).toBeGreaterThanOrEqual(7);
  expect(sources.filter((path) => !exists(path))).toEqual([]);
});

it("packs only what is there, and the pages that the README links to", () => {
  const files = manifest.files.filter((path) => path !== "dist");
  expect(files.filter((path) => !exists(path))).toEqual([]);
  const readme = readFileSync(join(projectDirectory, "README.md"), "utf8");
  const targets = [...readme.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target!);
  const own = targets.filter((target) => !target.includes("://") && exists(target));
  expect(own).toContain("docs/security.md");
  const packed = [...files, "README.md", "LICENSE", "package.json"];
  const missing = own.filter((target) => !packed.some((path) => target === path || target.startsWith(`${path}/`)));
  expect(missing).toEqual([]);
});
