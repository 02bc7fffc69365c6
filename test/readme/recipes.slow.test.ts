/**
 * The recipes of CONTRIBUTING, followed in copies of the project.
 */
import { execFile } from "node:child_process";
import { cpSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it, vi } from "vitest";
import { projectDirectory } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { readPage } from "./pages.js";
import { follow, recipesOf } from "./recipes.js";

vi.setConfig({ testTimeout: 900_000 });

const recipes = recipesOf(readPage("CONTRIBUTING.md"));

/** Copies the project without what is built; the copy goes with the test. */
function copyOfProject(): string {
  const copy = temporaryDirectory();
  const isLeftOut = /^\/?(node_modules|dist|dist-bench|\.git)(\/|$)/;
  const root = projectDirectory.replace(/\/$/, "");
  cpSync(root, copy, { recursive: true, filter: (source) => !isLeftOut.test(source.slice(root.length)) });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  return copy;
}

/** Runs a command in a copy, without anything of this run. Rejects with what it printed if it fails. */
async function run(copy: string, command: string, ...args: readonly string[]): Promise<string> {
  const ofThisRun = /^(VITEST|TEST$|NODE_ENV$|HAWSER_TEST_)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ofThisRun.test(name)));
  try {
    return (await promisify(execFile)(command, args, { cwd: copy, env, maxBuffer: 2 ** 26 })).stdout;
  } catch (cause) {
    const { stdout, stderr } = cause as { readonly stdout: string; readonly stderr: string };
    throw new Error(`${command} ${args.join(" ")} failed:\n${stdout.slice(-5_000)}\n${stderr.slice(-5_000)}`, {
      cause,
    });
  }
}

it("are there for an SQL function, a frame, a setting, an error and a metric", () => {
  expect(recipes.map(({ title }) => title)).toEqual([
    "Add an SQL function",
    "Add a frame",
    "Add a setting",
    "Add an error",
    "Add a metric",
  ]);
});

it.each(recipes.map((recipe) => [recipe.title, recipe] as const))(
  "%s: names all that the compiler asks for",
  async (_, recipe) => {
    const copy = copyOfProject();
    follow(recipe, copy);
    await run(copy, "npm", "run", "--silent", "generate");
    await run(copy, "npx", "tsc", "--noEmit");
  },
);

it("pass the format, verify, the layers and their tests, all in one copy", async () => {
  const copy = copyOfProject();
  for (const recipe of recipes) follow(recipe, copy);
  await run(copy, "npm", "run", "--silent", "generate");
  await run(copy, "npm", "run", "--silent", "api");
  const changed = recipes.flatMap(({ changes }) => changes.map(({ file }) => file));
  await run(copy, "npx", "biome", "check", ...new Set(changed.filter((file) => /\.(ts|json)$/.test(file))));
  expect(await run(copy, "npm", "run", "--silent", "verify")).toContain("verify: ok");
  expect(await run(copy, "node", "--import", "tsx", "scripts/check-layers.ts")).toContain("0 against the rules");
  await run(copy, "npx", "vitest", "run", "--project", "fast", ...recipes.map(({ test }) => test));
});
