/**
 * docs/coverage-liner.md and docs/coverage-pgnats.md are complete, and name tests that there are.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isErrorCodeName } from "../../generated/ts/errors/errors.js";
import { isOrdinary } from "../../src/cli/options.js";
import { projectDirectory } from "../support/program.js";
import { readPage } from "./pages.js";

/** A row of a table. */
interface Row {
  /** The heading that it stands under. */
  readonly section: string;
  readonly cells: readonly string[];
  /** The files of tests that its last cell names, as `folder/name`. */
  readonly files: readonly string[];
}

const liner = pageOf("docs/coverage-liner.md");
const pgnats = pageOf("docs/coverage-pgnats.md");

/** A page, and the rows under each of its headings. */
function pageOf(path: string) {
  const rows = rowsOf(readPage(path));
  return { rows, rowsUnder: (section: string) => rows.filter((row) => row.section === section) };
}

/** The rows of all tables of a page, without their heads. */
function rowsOf(page: string): Row[] {
  const found: Row[] = [];
  let section = "";
  let isHead = true;
  for (const line of page.split("\n")) {
    if (line.startsWith("## ")) section = line.slice(3);
    if (!line.startsWith("|")) isHead = true;
    else if (/^\|[-|]+$/.test(line)) isHead = false;
    else if (!isHead) {
      const cells = line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim().replaceAll("\\|", "|"));
      const files = [...(cells.at(-1) ?? "").matchAll(/`([^`]+)`/g)].map(([, file]) => file!);
      found.push({ section, cells, files });
    }
  }
  return found;
}

/** The file of tests of that name, in one of the tiers. */
const fileOf = (file: string): string | undefined =>
  ["test.ts", "slow.test.ts"]
    .map((ending) => join(projectDirectory, "test", `${file}.${ending}`))
    .find((path) => existsSync(path));

describe.each([
  ["docs/coverage-liner.md", liner],
  ["docs/coverage-pgnats.md", pgnats],
] as const)("%s", (_path, { rows }) => {
  it("names tests in every row, and only files that exist", () => {
    expect(rows.filter(({ files }) => files.length === 0).map(({ cells }) => cells[0])).toEqual([]);
    const named = new Set(rows.flatMap(({ files }) => files));
    expect([...named].filter((file) => fileOf(file) === undefined)).toEqual([]);
  });
});

describe("docs/coverage-liner.md", () => {
  const { rowsUnder } = liner;

  it("has a row for each of the 12 error codes, with the code that it is here", () => {
    const coded = rowsUnder("Errors").filter(({ cells }) => /^\w+ \d+\b/.test(cells[0] ?? ""));
    expect(coded.map(({ cells }) => Number(/\d+/.exec(cells[0] as string)?.[0]))).toEqual(
      Array.from({ length: 12 }, (_, code) => code),
    );
    const codes = coded.slice(1).map(({ cells }) => /^`(\w+)`/.exec(cells[1] as string)?.[1] ?? "none");
    expect(codes.filter((code) => !isErrorCodeName(code))).toEqual([]);
  });

  it("has a row for each of liner's nine kinds of status, and names Hawser's own", () => {
    const rows = rowsUnder("Status events").map(({ cells }) => /^`(\w+)`/.exec(cells[1] as string)?.[1]);
    expect(rows).toHaveLength(9);
    const own = /Hawser has\s+more kinds: ([^.]*)\./.exec(readPage("docs/coverage-liner.md"))?.[1]?.match(/\w+/g) ?? [];
    expect([...rows, ...own].sort()).toEqual(Object.keys(isOrdinary).sort());
  });

  it("has a row for each of the ten shortcomings", () => {
    const numbers = rowsUnder("Where it fell short").map(({ cells }) => Number(/^\d+/.exec(cells[0] as string)?.[0]));
    expect(numbers).toEqual(Array.from({ length: 10 }, (_, n) => n + 1));
  });
});

/** As a whole word. */
const names = (text: string, name: string): boolean => new RegExp(`\\b${name}\\b`).test(text);

/** True for a name that the native extension does not have. */
const isOwn = (name: string): boolean =>
  /^nats_flush$|^nats_(kv|enqueue)_|_(ack|batch)$|^nats_(subscribe|unsubscribe|seek)_stream$|^nats_(create|update|delete)_stream$|^nats_get_stream_list$/.test(
    name,
  );

/** The functions of the reference, with T for the type of the payload. */
const functions = [...readPage("generated/docs/nats-functions/nats-functions.md").matchAll(/^## (\w+)$/gm)].map(
  ([, name]) => name!,
);

it("docs/nats-from-sql.md has each function in its table of groups, or docs/nats-to-sql.md tells of it", () => {
  const groups = pageOf("docs/nats-from-sql.md").rowsUnder("The functions");
  const [sends, receives] = [groups.flatMap(({ cells }) => cells).join(" "), readPage("docs/nats-to-sql.md")];
  const isReceiving = (name: string) => /subscribe$|_responder$|(subscribe|seek)_stream$/.test(name);
  const untold = functions.filter((name) => !names(isReceiving(name) ? receives : sends, name));
  expect(untold).toEqual([]);
});

describe("docs/coverage-pgnats.md", () => {
  const { rowsUnder } = pgnats;
  const named = (section: string): string =>
    rowsUnder(section)
      .flatMap(({ cells }) => cells.slice(0, 2))
      .join(" ");

  it("has a row for each function, but those that are Hawser's own", () => {
    const shared = functions.filter((name) => !isOwn(name));
    expect(shared.length).toBeGreaterThan(15);
    const text = named("Functions");
    const missing = shared.filter((name) => !names(text, name));
    expect(missing).toEqual([]);
  });

  it("has a row for each option of the server, with a test that sets it", () => {
    const { properties } = JSON.parse(readPage("schema/nats-server-options.schema.json")) as { properties: object };
    // They name every option, also one whose effect nothing tests.
    const listing = ["nats-options/foreign-server", "nats/connector-options"];
    const isSet = (name: string): boolean =>
      rowsUnder("Server options")
        .filter(({ cells }) => cells.slice(0, 2).join(" ").includes(`\`${name}\``))
        .flatMap(({ files }) => files.filter((file) => !listing.includes(file)).flatMap((file) => fileOf(file) ?? []))
        .some((path) => new RegExp(`\\b${name}\\b`).test(readFileSync(path, "utf8")));
    const unset = Object.keys(properties).filter((name) => !isSet(name));
    expect(unset, `options without a row that names a test of their effect, other than ${listing.join(", ")}`).toEqual(
      [],
    );
  });

  it("has a row for each of the seven ways to authenticate, and each of the six shortcomings, in their order", () => {
    const numbers = (section: string) =>
      rowsUnder(section).map(({ cells }) => Number(/^\d+/.exec(cells[0] as string)?.[0]));
    expect(numbers("Authentication")).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(numbers("Where it falls short")).toEqual([1, 2, 3, 4, 5, 6]);
  });
});
