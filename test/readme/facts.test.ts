/**
 * Facts of the project that its pages name: they are there.
 */

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  handlerSettingsDefaults,
  peerSettingsDefaults,
  protocolConstants,
  storeConstants,
  tuningSettingsDefaults,
} from "../../generated/ts/settings/peer.js";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { projectDirectory } from "../support/program.js";
import { pages, readPage as read } from "./pages.js";

const isThere = (path: string) => existsSync(join(projectDirectory, path));

/** What a page says in each match of a pattern's first group. */
const named = (page: string, pattern: RegExp): string[] => [...read(page).matchAll(pattern)].map(([, name]) => name!);

/** Anchors of a page: its headings in the form of GitHub and others. */
function anchorsOf(markdown: string): Set<string> {
  const headings = [...markdown.replace(/^```.*?^```/gms, "").matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!);
  const words = headings.map((heading) => heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase());
  return new Set(words.map((each) => each.replace(/[^\p{L}\p{N}_ -]/gu, "").replaceAll(" ", "-")));
}

describe.each(pages)("%s", (page) => {
  const links = named(page, /\]\(([^)\s]+)[^)]*\)/g).filter((target) => !target.includes("://"));
  const parts = links.map((target) => target.split("#") as [path: string, anchor?: string]);

  it("links only to files that there are", () => {
    const paths = parts.map(([path]) => path).filter((path) => path !== "");
    expect(paths.filter((path) => !isThere(join(dirname(page), path)))).toEqual([]);
  });

  it("links only to headings that there are", () => {
    const missing = parts.filter(([path, anchor]) => {
      const file = path === "" ? page : join(dirname(page), path);
      return anchor !== undefined && file.endsWith(".md") && !anchorsOf(read(file)).has(anchor);
    });
    expect(missing).toEqual([]);
  });

  it("names only files of src/ and commands of npm that there are", () => {
    expect(named(page, /`(src\/[\w./-]+)`/g).filter((path) => !isThere(path))).toEqual([]);
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const commands = named(page, /`npm run (?:-s )?([\w:-]+)[ `]/g);
    expect(commands.filter((command) => !Object.hasOwn(scripts, command))).toEqual([]);
  });
});

it("docs/decisions/README.md lists all decisions", () => {
  const files = readdirSync(join(projectDirectory, "docs/decisions")).filter((file) => file !== "README.md");
  expect(named("docs/decisions/README.md", /^- \[[^\]]+\]\(([^)]+)\)/gm).sort()).toEqual(files.sort());
});

it("docs/README.md leads to every page of docs/", () => {
  const linked = named("docs/README.md", /\]\(([\w-]+\.md)\)/g);
  const names = pages.flatMap((page) => /^docs\/([^/]+)$/.exec(page)?.[1] ?? []);
  expect(names.filter((name) => name !== "README.md" && !linked.includes(name))).toEqual([]);
});

it.each([
  ["README.md", 700],
  ["CONTRIBUTING.md", 900],
])("%s has at most %i words", (page, limit) => {
  expect(read(page).split(/\s+/).length).toBeLessThanOrEqual(limit);
});

/** Words that are not used, with the term of the glossary in docs/architecture.md for the same thing. */
const otherWords: readonly (readonly [words: RegExp, term: string])[] = [
  [/\b(?:is a|on a|to a|asynchronous) replicas?\b/i, "standby"],
  [/\bscheduled messages? (?:of|for|that)\b|\bmessage is scheduled\b/i, "due later"],
  [/\bnumber that (?:its |`?(?:hawser\.)?|\{@link )?enqueue/i, "id"],
  [/\bNumber of the message"|\breturns its number\b/, "id"],
  [/\bin good order\b/i, "cleanly"],
  [/\b(?:is|are|was|were|be|been) told (?:to|of|not)\b|\btells of\b/i, "notify"],
  [/\b(?:all|its) fix(?:es)?\b/i, "remedy"],
  [/\bto heed\b|\berrands?\b|\bcounterpart\b/i, "a term of the glossary"],
  [/\bdead messages?\b|\bpoison(?:ed)? messages?\b/i, "dead letter"],
  [/\bmessage broker\b|\bmailbox(?:es)?\b/i, "queue"],
];

it("texts of users have one term for one thing, that of the glossary", () => {
  const filesIn = (folder: string, ending: RegExp) =>
    readdirSync(join(projectDirectory, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => ending.test(file))
      .map((file) => `${folder}/${file}`);
  const ofUsers = [...filesIn("docs", /^[\w-]+\.md$/), ...filesIn("proto", /\.proto$/), "README.md"];
  const found = [...ofUsers, ...filesIn("src", /\.ts$/)].flatMap((path) => {
    const text = path.startsWith("src/") ? stringsOf(read(path)) : read(path);
    return otherWords.flatMap(([words, term]) => {
      const [match] = words.exec(text) ?? [];
      return match === undefined ? [] : [`${path}: "${match}", and the term is: ${term}`];
    });
  });
  expect(found).toEqual([]);
});

/** Strings in double quotes and templates of a source, without its comments. */
function stringsOf(source: string): string {
  const code = source.replace(/\/\*.*?\*\/|^\s*\/\/.*$/gms, "");
  return (code.match(/"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g) ?? []).join("\n");
}

it("docs/delivery.md names only settings that there are", () => {
  const tables = [
    peerSettingsDefaults,
    tuningSettingsDefaults,
    handlerSettingsDefaults,
    protocolConstants,
    storeConstants,
  ];
  const settings = named("docs/delivery.md", /`(\w+(?:Ms|Rows|Bytes|Messages))`/g);
  const isKnown = (name: string) => tables.some((table) => name in table) || name in Peer.prototype;
  expect(settings.filter((name) => !isKnown(name))).toEqual([]);
});

it.each(["docs/troubleshooting.md", "docs/operations.md"])(
  "%s quotes only lines of the log that are written",
  (page) => {
    const sources = readdirSync(join(projectDirectory, "src"), { recursive: true, encoding: "utf8" });
    const code = sources.filter((file) => file.endsWith(".ts")).map((file) => read(join("src", file)));
    const quoted = named(page, /(?:^\| |log: )`([a-z][a-z]+ [A-Za-z ,']+)(?::[^`]*)?`/gm);
    expect(quoted.length).toBeGreaterThan(2);
    expect(quoted.filter((line) => !code.some((text) => text.includes(line)))).toEqual([]);
  },
);
