/**
 * Files that package.json promises: they are there to be packed. package.slow.test.ts tests the installed package.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { importsOf } from "../../scripts/layers/imports.js";
import { projectDirectory } from "../support/program.js";
import { manifest, projectBin } from "./pack.js";

const exists = (path: string) => existsSync(join(projectDirectory, path));

it("package.json has a source for each entry point and for the command", () => {
  const bin = (manifest as unknown as { bin: Record<string, string> }).bin["hawser"];
  const compiled = [bin, ...Object.values(manifest.exports).flatMap((one) => Object.values(one as object))];
  const sources = compiled
    .filter((path): path is string => typeof path === "string" && path.startsWith("./dist/"))
    .map((path) => path.replace("./dist/", "").replace(/(\.d)?\.[jt]s$/, ".ts"));
  expect(sources).toContain("src/peer/index.ts");
  expect(sources.length).toBeGreaterThanOrEqual(7);
  expect(sources.filter((path) => !exists(path))).toEqual([]);
});

it("package.json names only files that exist, to pack or to leave out", () => {
  const files = manifest.files.map((path) => path.replace(/^!/, "")).filter((path) => path !== "dist");
  expect(files.filter((path) => !exists(path))).toEqual([]);
});

it("the build compiles only what runs with its dependencies and peer dependencies", () => {
  const { dependencies, peerDependencies } = manifest;
  const tsc = join(projectBin, "tsc");
  const { stdout } = spawnSync(tsc, ["-p", "tsconfig.build.json", "--listFilesOnly"], {
    cwd: projectDirectory,
    encoding: "utf8",
  });
  const files = stdout.split("\n").filter((path) => path !== "" && !path.includes("/node_modules/"));
  expect(files.length).toBeGreaterThan(300);
  const strangers = files.flatMap((file) =>
    importsOf(file, readFileSync(file, "utf8"))
      .filter(({ specifier }) => !specifier.startsWith(".") && !specifier.startsWith("node:"))
      .map(({ specifier }) => specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/"))
      .filter((name) => !(name in dependencies) && !(name in peerDependencies))
      .map((name) => `${file}: ${name}`),
  );
  expect(strangers).toEqual([]);
});
