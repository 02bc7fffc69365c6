/**
 * Each part of liner and of litmus_pgnats that Hawser takes the place of, and its tests: the tables of coverage-liner.md and
 * coverage-pgnats.md beside this file are complete, and name tests that there are.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
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

/** The rows of all tables of a page, without their heads. */
function rowsOf(path: string): Row[] {
  const found: Row[] = [];
  let section = "";
  let isHead = true;
  for (const line of readPage(path).split("\n")) {
    if (line.startsWith("## ")) section = line.slice(3);
    if (!line.startsWith("|")) isHead = true;
    else if (/^\|[-|]+$/.test(line)) isHead = false;
    else if (!isHead) {
      const cells = line.split(/(?<!\\)\|/).slice(1, -1);
      const files = [...(cells.at(-1) ?? "").matchAll(/`([^`]+)`/g)].map(([, file]) => file!);
      found.push({ section, cells, files });
    }
  }
  return found;
}

/** The file of tests of that name, in one of the tiers. */
const fileOf = (file: string): string | undefined =>
  ["test.ts", "slow.test.ts", "nightly.test.ts"]
    .map((ending) => join(projectDirectory, "test", `${file}.${ending}`))
    .find((path) => existsSync(path));

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

it.each(["test/readme/coverage-liner.md", "test/readme/coverage-pgnats.md"])(
  "%s names tests in every row, which exist",
  (path) => {
    const rows = rowsOf(path);
    expect(rows.filter(({ files }) => files.length === 0).map(({ cells }) => cells[0])).toEqual([]);
    expect(rows.flatMap(({ files }) => files).filter((file) => fileOf(file) === undefined)).toEqual([]);
  },
);

it("docs/nats-from-sql.md has each function in its table of groups, or docs/nats-to-sql.md tells of it", () => {
  const groups = rowsOf("docs/nats-from-sql.md").filter(({ section }) => section === "The functions");
  const [sends, receives] = [groups.flatMap(({ cells }) => cells).join(" "), readPage("docs/nats-to-sql.md")];
  const isReceiving = (name: string) => /subscribe$|_responder$|(subscribe|seek)_stream$/.test(name);
  expect(functions.filter((name) => !names(isReceiving(name) ? receives : sends, name))).toEqual([]);
});

describe("coverage-pgnats.md", () => {
  const rows = rowsOf("test/readme/coverage-pgnats.md");
  /** What rows say, without the tests that they name. */
  const textOf = ({ cells }: Row): string => cells.slice(0, 2).join(" ");

  it("has a row for each function that the native extension has", () => {
    const shared = functions.filter((name) => !isOwn(name));
    expect(shared.length).toBeGreaterThan(15);
    const text = rows.filter(({ section }) => section === "Functions").map(textOf);
    expect(shared.filter((name) => !names(text.join(" "), name))).toEqual([]);
  });

  it("has a row for each option of the server, with a test that sets it", () => {
    const { properties } = JSON.parse(readPage("schema/nats-server-options.schema.json")) as { properties: object };
    // They name every option, also one whose effect nothing tests.
    const listing = ["nats-options/foreign-server", "nats/connector-options"];
    const isSet = (name: string): boolean =>
      rows
        .filter((row) => row.section === "Server options" && textOf(row).includes(`\`${name}\``))
        .flatMap(({ files }) => files.filter((file) => !listing.includes(file)).flatMap((file) => fileOf(file) ?? []))
        .some((path) => names(readFileSync(path, "utf8"), name));
    const unset = Object.keys(properties).filter((name) => !isSet(name));
    expect(unset, `without a row that names a test of its effect, other than ${listing.join(", ")}`).toEqual([]);
  });
});
