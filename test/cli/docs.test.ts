/**
 * docs/cli.md is about the commands as they are.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../src/foundation/errors/index.js";
import { commands } from "../../src/operating/cli/run.js";
import { pagesOfUsers, readPage } from "../readme/pages.js";
import { blocksOf } from "../readme/snippets.js";
import { projectDirectory } from "../support/program.js";

const page = readFileSync(`${projectDirectory}docs/cli.md`, "utf8");
const names = Object.keys(commands);

/** The part about a command. */
function sectionOf(name: string): string {
  const from = page.indexOf(`\n## ${name}\n`);
  const next = page.indexOf("\n## ", from + 1);
  return from === -1 ? "" : page.slice(from, next === -1 ? undefined : next);
}

describe("docs/cli.md", () => {
  it("has a section with an example for each command, and for no other", () => {
    const sections = [...page.matchAll(/^## (\S+)$/gm)].map(([, name]) => name!);
    expect(sections.toSorted()).toEqual(names.toSorted());
    const listed = [...page.matchAll(/\[`(\w+)`\]\(#\1\)(?=[^\n]* \|$)/gm)].map(([, name]) => name!);
    expect(listed.toSorted()).toEqual(names.toSorted());
    for (const name of names) expect(sectionOf(name)).toContain(`\`\`\`sh fragment\n`);
    for (const name of names) expect(sectionOf(name)).toMatch(new RegExp(`hawser ${name}\\b`));
  });

  it.each(names)("names only flags that `hawser %s` has; api/hawser-command.md has all", async (name) => {
    const { args: definition } = (await commands[name]!.load()).command;
    const known = Object.keys(definition).filter((flag) => definition[flag]!.type !== "positional");
    const named = [...sectionOf(name).matchAll(/--([a-z][a-z0-9-]*)/g)].map(([, flag]) => flag!);
    expect(named.filter((flag) => !known.includes(flag))).toEqual([]);
    const [, report] = readPage("api/hawser-command.md").split(`\n## ${name}\n`);
    const listed = [...report!.split("\n## ")[0]!.matchAll(/^\| `--([a-z0-9-]+)/gm)].map(([, flag]) => flag!);
    expect(listed).toEqual(known);
  });

  it("has every exit status of an error, and no other", () => {
    const listed = [...page.matchAll(/^\| (\d+), /gm)].map(([, status]) => Number(status));
    const statuses = new Set(Object.values(errorTable).map(({ exitStatus }) => exitStatus));
    expect(listed).toEqual([...statuses].sort());
  });
});

it.each(pagesOfUsers)("%s shows only commands and flags of `hawser` that there are", async (path) => {
  const shell = blocksOf(readPage(path)).filter(({ info }) => info.startsWith("sh "));
  const all = shell.flatMap(({ content }) => content.replaceAll("\\\n", " ").split("\n"));
  // A release of helm may have the name, too.
  const lines = all.filter((line) => !/^(helm|kubectl) /.test(line));
  const calls = lines.flatMap((line) => [
    ...line.replace(/ #.*$/, "").matchAll(/(?:^| )hawser (?:-- |hawser )?([a-z][^|]*)/g),
  ]);
  const unknown: string[] = [];
  for (const [, call] of calls) {
    const name = call!.split(" ")[0]!;
    if (!Object.hasOwn(commands, name)) {
      unknown.push(call!);
      continue;
    }
    const { args: known } = (await commands[name]!.load()).command;
    const flags = [...call!.matchAll(/(?<= )--([a-z][a-z0-9-]*)/g)].map(([, flag]) => flag!);
    unknown.push(...flags.filter((flag) => !Object.hasOwn(known, flag)).map((flag) => `${name} --${flag}`));
  }
  expect(unknown).toEqual([]);
});
