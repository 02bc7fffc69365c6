/** Tables, lists and sections of the page. */

import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import {
  type Cell,
  columnsIn,
  countedForm,
  type OverviewColumn,
  type OverviewTable,
  type Reading,
  shownRows,
} from "../../console/index.js";
import type { Listing } from "../../operate/index.js";
import { queryOf } from "./filter.js";
import { bytesText, countText } from "./quantities.js";
import { type Html, short, time } from "./text.js";

/** Column of a table. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => Html | string;
  /** True for numbers, which are aligned at their last digit. */
  readonly isNumber?: boolean;
  /** Link that sorts the rows by the column, and how they are sorted now. */
  readonly sort?: { readonly link: string; readonly is: "ascending" | "descending" | undefined } | undefined;
  /** Cell of the last row, which sums the others up. */
  readonly sum?: Html | string | undefined;
}

/** Place in a list: the path of its page, a filter, the number of rows before the first one, and the order. */
export interface ListPlace {
  readonly path: string;
  /** Text in the names of all rows; empty: any. */
  readonly filter: string;
  readonly from: number;
  /** Column by which the rows are sorted; undefined: the order of the list. */
  readonly sort: string | undefined;
  readonly isDescending: boolean;
}

/** Greatest number of rows before those of a page. */
const greatestFrom = 1_000_000;

/** Place that a query string gives. @throws HawserError `invalid_argument` */
export function listPlace(path: string, query: Readonly<Record<string, string>>): ListPlace {
  const { filter = "", from = "0", sort, order } = query;
  const rows = Number(from);
  if (/^\d+$/.test(from) && rows <= greatestFrom)
    return { path, filter: filter.slice(0, 255), from: rows, sort, isDescending: order === "descending" };
  throw new HawserError(
    "invalid_argument",
    `from "${from.slice(0, 60)}": it is a number of rows from 0 to ${greatestFrom}; filter the list to see others`,
  );
}

/** Rows that the page of a place needs: one more than it shows, which says that there are more. */
export function listingOf({ filter, from, sort, isDescending }: ListPlace): Listing {
  return { filter, offset: from, limit: shownRows + 1, sort, isDescending };
}

/** Link to another place of the list. */
function linkTo({ path, filter, from, sort, isDescending }: ListPlace): string {
  return `${path}${queryOf({
    filter: filter === "" ? undefined : filter,
    sort,
    order: sort !== undefined && isDescending ? "descending" : undefined,
    from: from === 0 ? undefined : String(from),
  })}`;
}

/** Form that filters the lists of a page. */
export function listFilter({ path, filter, sort, isDescending }: ListPlace): Html {
  const order = sort === undefined ? "" : html`<input type="hidden" name="sort" value="${sort}">`;
  const descending =
    sort === undefined || !isDescending ? "" : html`<input type="hidden" name="order" value="descending">`;
  return html`<form method="get" action="${path}" aria-label="Filter"><p><span class="field"><label for="f-filter">Name contains</label> <input id="f-filter" name="filter" value="${filter}" autocomplete="off"></span>${order}${descending}
<button type="submit">Filter</button></p></form>`;
}

/** Parts of a list that only the page has. */
export interface ListOptions<Row> {
  /** Place of the rows in their list. Default: the rows are the whole list. */
  readonly place?: ListPlace | undefined;
  /** What an operator can do with a row, in the last column. Default: nothing. */
  readonly actions?: ((row: Row) => Html) | undefined;
  /** Path of a row's own page. Default: it has none. */
  readonly link?: ((row: Row) => string) | undefined;
}

/** Section with an overview, or with the reason why it cannot be read. */
export function overviewSection<Row>(
  id: string,
  overview: OverviewTable<Row>,
  rows: Reading<readonly Row[]>,
  now: number,
  options: ListOptions<Row> = {},
): Html {
  const { title, none } = overview;
  const { place, actions } = options;
  const isPart = place !== undefined && (place.filter !== "" || place.from > 0);
  return section(id, title, rows, (value) => {
    if (value.length === 0) return html`<p>${isPart ? "There are no more, or none that match." : none}</p>`;
    const shown = value.slice(0, shownRows);
    const { columns, constants } = shownColumns(columnsIn(overview, "page"), shown, now, options);
    if (actions !== undefined) columns.push({ head: "Actions", cell: actions });
    return html`${table(title, shown, columns)}${constants}${place && pages(place, value.length)}`;
  });
}

/** Number of rows from which a column that says the same in all of them is said once. */
const manyRows = 3;

/** Columns that say something: not those that are empty in all rows, nor those that say the same in all of many. */
function shownColumns<Row>(
  all: readonly OverviewColumn<Row>[],
  rows: readonly Row[],
  now: number,
  { place, link }: ListOptions<Row>,
): { readonly columns: Column<Row>[]; readonly constants: Html | string } {
  const constants: Html[] = [];
  const columns = all.flatMap((column, nth): Column<Row>[] => {
    const { head, cell, tone, unit, sort } = column;
    const values = rows.map((row) => cell(row, now));
    const isSorted = place?.sort !== undefined && place.sort === sort;
    if (nth > 0 && !isSorted) {
      if (values.every((value) => value === null || value === "")) return [];
      const [first] = values;
      const isConstant = rows.length >= manyRows && values.every((value) => String(value) === String(first));
      if (isConstant && rows.every((row) => tone?.(row, now) === undefined)) {
        if (first !== 0 && first !== 0n) constants.push(html`${head}: ${cellHtml(first!, now, unit)}`);
        return [];
      }
    }
    const htmlOf = (row: Row): Html | string => {
      const severity = tone?.(row, now);
      const content = cellHtml(cell(row, now), now, unit);
      const toned = severity === undefined ? content : html`<span class="badge ${severity}">${content}</span>`;
      return nth === 0 && link !== undefined ? html`<a href="${link(row)}">${toned}</a>` : toned;
    };
    const isNumber = values.some(
      (value) => ["number", "bigint"].includes(typeof value) || countedForm.test(String(value)),
    );
    return [{ head, cell: htmlOf, isNumber, sort: sortOf(place, sort), sum: sumOf(column, rows, now) }];
  });
  const said = constants.map((text, nth) => html`${nth === 0 ? "" : " · "}${text}`);
  return { columns, constants: said.length === 0 ? "" : html`<p class="quiet">In all rows: ${said}</p>` };
}

/** Link that sorts by a column: the greatest first, and the other way round if they are so already. */
function sortOf(place: ListPlace | undefined, sort: string | undefined): Column<never>["sort"] {
  if (place === undefined || sort === undefined) return undefined;
  const is = place.sort !== sort ? undefined : place.isDescending ? "descending" : "ascending";
  return { is, link: linkTo({ ...place, from: 0, sort, isDescending: is !== "descending" }) };
}

function sumOf<Row>({ sum, unit }: OverviewColumn<Row>, rows: readonly Row[], now: number): Html | string | undefined {
  if (sum === undefined || rows.length < 2) return undefined;
  const parts = rows.map(sum);
  const total = parts.reduce((all, { count }) => all + count, 0);
  return parts.some(({ hasMore }) => hasMore) ? countText(total, true) : cellHtml(total, now, unit);
}

/** Cell of an overview. */
export function cellHtml(value: Cell, now: number, unit: OverviewColumn<never>["unit"]): Html | string {
  if (typeof value === "string") {
    const counted = countedForm.exec(value)?.[1];
    return value === "" ? "" : counted === undefined ? short(value) : countText(BigInt(counted), true);
  }
  if (unit === "bytes" && typeof value === "number")
    return html`<span title="${countText(value)} bytes">${bytesText(value)}</span>`;
  if (unit === "id") return String(value);
  if (typeof value === "bigint" || Number.isInteger(value)) return countText(value as number);
  if (value === null) return "";
  // Infinity is a time, too: the driver gives it as a number.
  return time(value as Date, now);
}

/** Range of the shown rows, and links to those before and behind them. */
function pages(place: ListPlace, read: number): Html | string {
  const { from } = place;
  const hasMore = read > shownRows;
  if (from === 0 && !hasMore) return "";
  const link = (at: number, text: string): Html => html` <a href="${linkTo({ ...place, from: at })}">${text}</a>`;
  return html`<p>Rows ${countText(from + 1)} to ${countText(from + Math.min(read, shownRows))}.${from > 0 ? link(Math.max(0, from - shownRows), `Previous ${shownRows}`) : ""}${hasMore ? link(from + shownRows, `Next ${shownRows}`) : ""}</p>`;
}

/** Section with what a reading gives, or with the reason why it cannot be shown. */
export function section<T>(id: string, title: string, read: Reading<T>, shown: (value: T) => Html): Html {
  const body = read.state === "read" ? shown(read.value) : unread(read);
  return html`<section id="${id}" aria-labelledby="${id}-title">
<h2 id="${id}-title">${title}</h2>
${body}
</section>`;
}

/** Reason why a reading gives nothing. */
export function unread({ state, why }: Exclude<Reading<unknown>, { readonly state: "read" }>): Html {
  return html`<p class="${state}">${state === "denied" ? "This login may not read it: " : "It could not be read: "}${short(why)}</p>`;
}

/** Table of at most `shownRows` rows. On narrow screens each row is a card. */
export function table<Row>(caption: string, rows: readonly Row[], columns: readonly Column<Row>[]): Html {
  const more =
    rows.length > shownRows ? html`<p>Only the first ${shownRows} of ${countText(rows.length)} are shown.</p>` : "";
  const shown = rows.slice(0, shownRows);
  // The first column says what a row is about: it is there, and at the left, whatever it says.
  const filled = columns
    .map((column, nth) => ({
      ...column,
      isNumber: nth > 0 && column.isNumber === true,
      cells: shown.map((row) => column.cell(row)),
    }))
    .filter(({ cells }, nth) => nth === 0 || cells.some((cell) => cell !== ""));
  // A table whose parts are no boxes of a table any more is one for screen readers only if it says so.
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}, table"><table role="table">
<caption>${caption}</caption>
<thead role="rowgroup"><tr role="row">${filled.map(({ head, isNumber, sort }) => html`<th role="columnheader" scope="col"${isNumber ? html` class="number"` : ""}${sort?.is === undefined ? "" : html` aria-sort="${sort.is}"`}>${sort === undefined ? head : html`<a href="${sort.link}">${head}${arrowOf(sort.is)}</a>`}</th>`)}</tr></thead>
<tbody role="rowgroup">
${shown.map((_, nth) => html`<tr role="row">${filled.map(({ head, cells, isNumber }) => cellOf(head, cells[nth]!, isNumber))}</tr>\n`)}
</tbody>${sums(filled)}
</table></div>${more}`;
}

function arrowOf(is: "ascending" | "descending" | undefined): string {
  return is === undefined ? "" : is === "ascending" ? " ▲" : " ▼";
}

function cellOf(head: string, content: Html | string, isNumber: boolean): Html {
  const classes = [...(isNumber ? ["number"] : []), ...(content === "" ? ["void"] : [])].join(" ");
  return html`<td role="cell" data-head="${head}"${classes === "" ? "" : html` class="${classes}"`}>${content}</td>`;
}

/** Last row, which sums the others up; none if no column can be summed up. */
function sums<Row>(columns: readonly Column<Row>[]): Html | string {
  if (columns.every(({ sum }) => sum === undefined)) return "";
  const cells = columns.map(({ head, sum, isNumber }, nth) =>
    cellOf(nth === 0 ? "" : head, sum ?? (nth === 0 ? "Sum of these rows" : ""), isNumber === true),
  );
  return html`
<tfoot role="rowgroup"><tr role="row">${cells}</tr></tfoot>`;
}
