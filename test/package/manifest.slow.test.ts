import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { importsOf } from "../../scripts/layers/imports.js";
import { projectDirectory } from "../support/program.js";
import { manifest, projectBin } from "./pack.js";

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
