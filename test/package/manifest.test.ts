/**
 * Files that package.json promises: they are there to be packed. package.slow.test.ts tests the installed package.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { manifest } from "./pack.js";

const exists = (path: string) => existsSync(join(projectDirectory, path));

it("package.json has a source for each entry point and for the command", () => {
  const bin = (manifest as unknown as { bin: Record<string, string> }).bin["hawser"];
  const compiled = [bin, ...Object.values(manifest.exports).flatMap((one) => Object.values(one as object))];
  const sources = compiled
    .filter((path): path is string => typeof path === "string" && path.startsWith("./dist/"))
    .map((path) => path.replace("./dist/", "").replace(/(\.d)?\.[jt]s$/, ".ts"));
  expect(sources).toContain("src/jobs-and-peers/peer/index.ts");
  expect(sources.length).toBeGreaterThanOrEqual(7);
  expect(sources.filter((path) => !exists(path))).toEqual([]);
});

it("package.json names only files that exist, to pack or to leave out", () => {
  const files = manifest.files.map((path) => path.replace(/^!/, "")).filter((path) => path !== "dist");
  expect(files.filter((path) => !exists(path))).toEqual([]);
});

it("package-lock.json has at most 40 packages for users, with this one", () => {
  const lock = JSON.parse(readFileSync(join(projectDirectory, "package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, Readonly<Record<"dev" | "devOptional" | "peer" | "optional", boolean>>>>;
  };
  const needed = Object.entries(lock.packages).filter(
    ([, { dev, devOptional, peer, optional }]) => !(dev || devOptional || peer || optional),
  );
  expect(needed.map(([path]) => path)).toContain("node_modules/pg");
  expect(needed.length).toBeLessThanOrEqual(40);
});
