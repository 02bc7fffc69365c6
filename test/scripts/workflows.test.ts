/** The workflows of GitHub: actionlint checks their form, these tests what the project wants of them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { load } from "js-yaml";
import { describe, expect, it } from "vitest";
import { readPage } from "../readme/pages.js";
import { projectDirectory } from "../support/program.js";

interface Workflow {
  readonly jobs: Readonly<
    Record<
      string,
      {
        readonly strategy?: {
          readonly matrix: { readonly command?: string[]; readonly include?: { command: string }[] };
        };
        readonly steps: readonly { readonly uses?: string; readonly run?: string }[];
      }
    >
  >;
}

const { scripts } = JSON.parse(readPage("package.json")) as { scripts: Record<string, string> };
const folder = ".github/workflows";

describe.each(readdirSync(join(projectDirectory, folder)))("%s", (file) => {
  const text = readPage(`${folder}/${file}`);
  const jobs = Object.values((load(text) as Workflow).jobs);

  it("names each action by its commit, with the version behind it", () => {
    const actions = text.split("\n").filter((line) => line.includes("uses:"));
    expect(actions.length).toBeGreaterThan(0);
    expect(actions.filter((line) => !/uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(line))).toEqual([]);
  });

  it("runs only commands that package.json has", () => {
    const commands = jobs.flatMap(({ strategy, steps }) => [
      ...(strategy?.matrix.command ?? []),
      ...(strategy?.matrix.include ?? []).map(({ command }) => command),
      ...steps.flatMap(({ run = "" }) => [...run.matchAll(/npm run ([^$\s]+)/g)].map(([, command]) => command!)),
    ]);
    expect(commands.length).toBeGreaterThan(0);
    expect(commands.filter((command) => !Object.hasOwn(scripts, command.split(" ")[0]!))).toEqual([]);
  });
});
