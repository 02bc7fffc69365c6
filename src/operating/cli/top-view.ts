/** State of an installation as lines of a terminal: what `hawser top` shows. */

import { withoutPasswords } from "../../foundation/errors/index.js";
import {
  age,
  type Cell,
  columnsIn,
  examinedDeadLetters,
  type OverviewTable,
  outboxTable,
  peersTable,
  pendingTable,
  type Tone as Severity,
  type ShownVerdict,
  type Snapshot,
  schedulesTable,
  shownRows,
  snapshotRows,
  streamsTable,
  topicRatesTable,
} from "../console/index.js";
import { shownCharacters } from "../page/index.js";
import { doctorSummary } from "./doctor.js";
import { type Column, cut, printable, styled, tableLines } from "./output.js";

type Tone = "title" | "dim" | Severity;

/** Line without control characters and without a line end. */
export interface Line {
  readonly text: string;
  readonly tone?: Tone | undefined;
}

/** State and how it came about. */
export interface TopView {
  /** Undefined before the first reading has ended. */
  readonly snapshot: Snapshot | undefined;
  readonly verdict: ShownVerdict;
  /** Time to which ages are counted, in ms since 1970. */
  readonly now: number;
  /** Reason why the newest reading failed, so that the snapshot is an older one. */
  readonly problem?: string | undefined;
  /** Words about refreshes and keys. */
  readonly hint?: string | undefined;
  /** Number of the shown page of each list; a list that ends before shows its last one. Default: 0. */
  readonly page?: number | undefined;
  /** Text in the names of the listed rows. */
  readonly filter?: string | undefined;
  /** Order of the lists. Default: that of each. */
  readonly sort?: string | undefined;
}

/** Size of the window. Without a number of rows, each section shows up to `shownRows`. */
export interface Size {
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

/** Part of the screen. A section without rows has its text in the head. */
interface Section {
  readonly head: Line;
  readonly rows: readonly Line[];
  /** Number of rows, of which `rows` may be the first ones. */
  readonly total: number;
}

/** Lines of the window. There are never more than it has rows, nor are they wider than it is. */
export function topLines(view: TopView, size: Size): Line[] {
  const { columns = Number.POSITIVE_INFINITY, rows } = size;
  const header = headerLines(view);
  const sections = view.snapshot === undefined ? [] : sectionsOf(view, view.snapshot, columns);
  const lines = [...header, ...fitted(sections, rows === undefined ? undefined : rows - header.length, view.page ?? 0)];
  const cropped = rows === undefined ? lines : cropTo(rows, lines);
  return cropped.map(({ text, tone }) => ({ text: cut(text, columns), tone }));
}

const styles = { title: "bold", error: "red", warning: "yellow", dim: "dim" } as const;

/** Line with the style of its tone. */
export function painted({ text, tone }: Line): string {
  if (tone === undefined) return text;
  return styled(styles[tone], text);
}

function headerLines({ snapshot, now, problem, hint, page = 0, filter, sort }: TopView): Line[] {
  const place = snapshot && `${shown(snapshot.database)} as ${shown(snapshot.login)}`;
  const time = snapshot?.at.toISOString().replace(/\.\d+/, "");
  const part = page === 0 ? undefined : `page ${page + 1}`;
  const filtered = filter === undefined ? undefined : `only ${JSON.stringify(shown(filter))}`;
  const sorted = sort === undefined ? undefined : `by ${sort}`;
  const parts = [place ?? "hawser top", filtered, sorted, part, hint, time].filter((each) => each !== undefined);
  const lines: Line[] = [{ text: parts.join("  "), tone: "dim" }];
  if (problem !== undefined) {
    const since = snapshot === undefined ? "" : `; the numbers are from ${age(now - snapshot.at.getTime())}`;
    lines.push({ text: `Trying again${since}: ${shown(problem)}`, tone: "error" });
  } else if (snapshot === undefined) lines.push({ text: "The first numbers are being read." });
  return lines;
}

/** Lines of the sections, which share the rows evenly. A section that is cut says how much is missing. */
function fitted(sections: readonly Section[], rows: number | undefined, page: number): Line[] {
  const given = sections.map(() => 0);
  let spare = rows === undefined ? Number.POSITIVE_INFINITY : rows - sections.length;
  const most = rows === undefined ? shownRows + 1 : Number.POSITIVE_INFINITY;
  const needs = (at: number) => given[at]! < Math.min(most, wantedLines(sections[at]!));
  while (spare > 0 && sections.some((_, at) => needs(at))) {
    for (const at of sections.keys()) {
      if (spare === 0 || !needs(at)) continue;
      given[at]! += 1;
      spare -= 1;
    }
  }
  const hasGaps = spare >= sections.length;
  return sections.flatMap((section, at) => [...(hasGaps ? [{ text: "" }] : []), ...linesOf(section, given[at]!, page)]);
}

/** Number of lines below the head with which a section is shown as far as it can be. */
function wantedLines({ rows, total }: Section): number {
  return rows.length + (total > rows.length ? 1 : 0);
}

function linesOf({ head, rows, total }: Section, lines: number, page: number): Line[] {
  if (lines === 0) return [head];
  const isWhole = lines >= total;
  const count = isWhole ? Math.max(1, total) : Math.max(1, lines - 1);
  const last = Math.max(0, Math.ceil(rows.length / count) - 1);
  const from = Math.min(page, last) * count;
  const part = isWhole || lines > 1 ? rows.slice(from, from + count) : [];
  const rest = total - from - part.length;
  const before = from === 0 ? "" : `${from} before, `;
  return [head, ...part, ...(isWhole ? [] : [{ text: `… ${before}${rest} more`, tone: "dim" } as const])];
}

function cropTo(rows: number, lines: readonly Line[]): Line[] {
  if (lines.length <= rows) return [...lines];
  const count = Math.max(0, rows - 1);
  const more = { text: `… ${lines.length - count} more lines`, tone: "dim" } as const;
  return [...lines.slice(0, count), more].slice(0, rows);
}

function sectionsOf({ verdict, now }: TopView, snapshot: Snapshot, width: number): Section[] {
  const ago = (at: Date | null | undefined): string => (at === null || at === undefined ? "" : age(now - at.getTime()));
  const text = (value: Cell) => (value instanceof Date ? ago(value) : (value ?? ""));
  const overview = <Row>(title: string, read: Read<readonly Row[]>, table: OverviewTable<Row>) => {
    const columns = columnsIn(table, "top");
    return tableSection({
      title,
      read,
      columns: columns.map(({ head, cell }) => ({
        head: head.toUpperCase(),
        cell: (row: Row) => text(cell(row, now)),
      })),
      tone: (row) => worst(columns.map(({ tone }) => tone?.(row, now))),
      width,
    });
  };
  return [
    verdictSection(verdict),
    leaderSection(snapshot.leader, ago),
    overview("TOPICS", snapshot.topics, topicRatesTable),
    overview("PEERS", snapshot.peers, peersTable),
    overview("OUTBOX", snapshot.outbox, outboxTable),
    overview("BACKLOG", snapshot.pending, pendingTable),
    overview("STREAMS", snapshot.streams, streamsTable),
    overview("SCHEDULES", snapshot.schedules, schedulesTable),
    deadSection(snapshot.causes, ago, width),
  ];
}

function worst(tones: readonly Toned[]): Toned {
  return tones.includes("error") ? "error" : tones.find((tone) => tone !== undefined);
}

type Read<T> = Extract<Snapshot["peers"], { readonly why: string }> | { readonly state: "read"; readonly value: T };
type Toned = Tone | undefined;

/** Section with a table, whose first column has the title and the number of rows as its head. */
function tableSection<Row>(options: {
  readonly title: string;
  readonly read: Read<readonly Row[]>;
  readonly columns: readonly Column<Row>[];
  readonly tone?: ((row: Row) => Toned) | undefined;
  readonly width: number;
  /** Number behind the title. Default: that of the rows. */
  readonly count?: string | undefined;
}): Section {
  const { title, read, columns, tone, width } = options;
  if (read.state !== "read") return unread(title, read);
  const { length: total } = read.value;
  if (total === 0) return single(`${title}  none`);
  const [first, ...others] = columns;
  const rows = read.value;
  // An empty column takes room from the others.
  const filled = others.filter(({ cell }) => rows.some((row) => cell(row) !== ""));
  const count = options.count ?? (total < snapshotRows ? total : `${total}+`);
  const cells = [{ head: `${title} (${count})`, cell: first!.cell }, ...filled];
  const { head, lines } = tableLines(rows, cells.map(withShortCells), width);
  return {
    head: { text: head, tone: "title" },
    rows: lines.map((text, at) => ({ text, tone: tone?.(rows[at]!) })),
    total,
  };
}

/** Column whose texts are cut to `shownCharacters`: an error message may be long. */
function withShortCells<Row>({ head, cell }: Column<Row>): Column<Row> {
  return {
    head,
    cell: (row) => {
      const value = cell(row);
      return typeof value === "string" ? cut(value, shownCharacters) : value;
    },
  };
}

function verdictSection({ report, ageMs, isOld, problem }: ShownVerdict): Section {
  if (problem !== undefined) return single(`VERDICT  The examination failed: ${shown(problem)}`, "error");
  if (report === undefined) return single("VERDICT  The installation is being examined.");
  const { findings } = report;
  const rows = findings.map(({ severity, check, what }) => ({
    text: `${severity.padEnd("warning".length)}  ${check}: ${shown(what)}`,
    tone: severity === "note" ? undefined : severity,
  }));
  const summary = `${doctorSummary(report).replace(/\.$/, "")}, ${age(ageMs)}`;
  if (isOld) {
    const text = `VERDICT  The present state is not known. The last examination: ${summary}`;
    return {
      head: { text, tone: "warning" },
      rows: rows.map(({ text }) => ({ text, tone: "dim" })),
      total: rows.length,
    };
  }
  return { head: { text: `VERDICT  ${summary}`, tone: "title" }, rows, total: rows.length };
}

function leaderSection(read: Snapshot["leader"], ago: (at: Date | null) => string): Section {
  if (read.state !== "read") return unread("LEADER", read);
  const leader = read.value;
  if (leader === undefined || leader.owner === null) return single("LEADER  No process leads.");
  const { owner, epoch, completeSince, progressAt } = leader;
  const since = completeSince === null ? "not all subscriptions yet" : `all subscriptions since ${ago(completeSince)}`;
  const progress = progressAt === null ? "no progress yet" : `progress ${ago(progressAt)}`;
  return single(`LEADER  ${shown(owner)}, epoch ${epoch}: ${since}, ${progress}`);
}

function deadSection(read: Snapshot["causes"], ago: (at: Date) => string, width: number): Section {
  const causes = read.state === "read" ? { state: read.state, value: read.value.causes } : read;
  const isCut = read.state === "read" && read.value.olderThanId !== undefined;
  return tableSection({
    title: "DEAD LETTERS",
    read: causes,
    width,
    count: read.state === "read" ? `${isCut ? `newest ${examinedDeadLetters}` : read.value.examined}` : undefined,
    columns: [
      { head: "TOPIC", cell: ({ topic }) => topic },
      { head: "COUNT", cell: ({ count }) => count },
      { head: "NEWEST", cell: ({ newestAt }) => ago(newestAt) },
      { head: "CODE", cell: ({ errorCode }) => errorCode },
      { head: "FUNCTION", cell: (row) => row.function ?? "" },
      { head: "CAUSE", cell: ({ cause }) => cause },
    ],
  });
}

function unread(title: string, { state, why }: { readonly state: string; readonly why: string }): Section {
  const words = state === "denied" ? "This login may not read it" : "It could not be read";
  return single(`${title}  ${words}: ${shown(why)}`, "warning");
}

function single(text: string, tone?: Tone): Section {
  return { head: { text, tone }, rows: [], total: 0 };
}

/** Foreign text on one line. */
function shown(text: string): string {
  return printable(cut(withoutPasswords(text), shownCharacters));
}
