/**
 * docs/coverage-liner.md is complete, and names tests that there are.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isErrorCodeName } from "../../generated/ts/errors/errors.js";
import type { PeerStatusKind } from "../../src/peer/index.js";
import { projectDirectory, startProgram } from "../support/program.js";

const text = readFileSync(join(projectDirectory, "docs/coverage-liner.md"), "utf8");

/** A row of a table. */
interface Row {
  /** The heading that it stands under. */
  readonly section: string;
  readonly cells: readonly string[];
  /** The tests that its last cell names. */
  readonly tests: readonly { readonly file: string; readonly title: string }[];
}

const rows = rowsOf(text);

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
      found.push({ section, cells, tests: testsOf(cells.at(-1) ?? "") });
    }
  }
  return found;
}

/** The tests that a cell names: code spans of file and full title, with > between. */
function testsOf(cell: string): Row["tests"] {
  const spans = [...cell.matchAll(/(`+)(.+?)(?<!`)\1(?!`)/g)].map(([, , code]) => code!.trim());
  return spans.map((span) => {
    const [file = "", ...titles] = span.split(" > ");
    return { file, title: titles.join(" > ") };
  });
}

const rowsUnder = (section: string): Row[] => rows.filter((row) => row.section === section);

describe("docs/coverage-liner.md", () => {
  it("names a test in every row, and only ones that exist", async () => {
    expect(rows.filter(({ tests }) => tests.length === 0).map(({ cells }) => cells[0])).toEqual([]);
    const named = rows.flatMap(({ tests }) => tests);
    const files = [...new Set(named.map(({ file }) => file))];
    expect(files.filter((file) => !existsSync(join(projectDirectory, file)))).toEqual([]);
    const { status, stdout, stderr } = await startProgram("test/readme/programs/list-tests.ts", files).ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const existing = JSON.parse(stdout) as Record<string, string[]>;
    const missing = named.filter(({ file, title }) => !existing[file]?.includes(title));
    expect(missing).toEqual([]);
  });

  it("has a row for each of the 12 error codes, with the code that it is here", () => {
    const coded = rowsUnder("Errors").filter(({ cells }) => /^\w+ \d+\b/.test(cells[0] ?? ""));
    expect(coded.map(({ cells }) => Number(/\d+/.exec(cells[0] as string)?.[0]))).toEqual(
      Array.from({ length: 12 }, (_, code) => code),
    );
    const codes = coded.slice(1).map(({ cells }) => /^`(\w+)`/.exec(cells[1] as string)?.[1] ?? "none");
    expect(codes.filter((code) => !isErrorCodeName(code))).toEqual([]);
  });

  it("has a row for each of the nine kinds of status", () => {
    const kinds: readonly PeerStatusKind[] = [
      "peer_connected",
      "peer_disconnected",
      "peer_subscribed",
      "peer_unsubscribed",
      "sender_route_lost",
      "sender_store_error",
      "sender_send_error",
      "sender_busy",
      "listener_store_error",
    ];
    expect(rowsUnder("Status events").map(({ cells }) => /^`(\w+)`/.exec(cells[1] as string)?.[1])).toEqual(kinds);
  });

  it("has a row for each of the ten shortfalls", () => {
    const numbers = rowsUnder("Where it fell short").map(({ cells }) => Number(/^\d+/.exec(cells[0] as string)?.[0]));
    expect(numbers).toEqual(Array.from({ length: 10 }, (_, n) => n + 1));
  });

  it("links to nothing that is missing", () => {
    const targets = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target!);
    const files = targets.filter((target) => !target.includes("://"));
    expect(files.filter((target) => !existsSync(join(projectDirectory, "docs", target)))).toEqual([]);
  });
});
