/** Tables, lists and sections of the page. */

import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import { type Cell, columnsIn, type OverviewTable, type Reading, shownRows } from "../../console/index.js";
import type { Listing } from "../../operate/index.js";
import { queryOf } from "./filter.js";
import { type Html, short, time } from "./text.js";

/** Column of a table. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => Html | string;
  /** True for numbers, which are aligned at their last digit. */
  readonly isNumber?: boolean;
}

/** Place in a list: the path of its page, a filter, and the number of rows before the first one. */
export interface ListPlace {
  readonly path: string;
  /** Text in the names of all rows; empty: any. */
  readonly filter: string;
  readonly from: number;
}

/** Greatest number of rows before those of a page. */
const greatestFrom = 1_000_000;

/** Place that a query string gives. @throws HawserError `invalid_argument` */
export function listPlace(path: string, { filter = "", from = "0" }: Readonly<Record<string, string>>): ListPlace {
  const rows = Number(from);
  if (/^\d+$/.test(from) && rows <= greatestFrom) return { path, filter: filter.slice(0, 255), from: rows };
  throw new HawserError(
    "invalid_argument",
    `from "${from.slice(0, 60)}": it is a number of rows from 0 to ${greatestFrom}; filter the list to see others`,
  );
}

/** Rows that the page of a place needs: one more than it shows, which says that there are more. */
export function listingOf({ filter, from }: ListPlace): Listing {
  return { filter, offset: from, limit: shownRows + 1 };
}

/** Form that filters the lists of a page. */
export function listFilter({ path, filter }: ListPlace): Html {
  return html`<form method="get" action="${path}" aria-label="Filter"><p><span class="field"><label for="f-filter">Name contains</label> <input id="f-filter" name="filter" value="${filter}" autocomplete="off"></span>
<button type="submit">Filter</button></p></form>`;
}

/**
 * Section with an overview, or with the reason why it cannot be read.
 *
 * @param place place of the rows in their list. Default: the rows are the whole list
 * @param actions what an operator can do with a row, in the last column. Default: nothing
 */
export function overviewSection<Row>(
  id: string,
  overview: OverviewTable<Row>,
  rows: Reading<readonly Row[]>,
  now: number,
  place?: ListPlace,
  actions?: (row: Row) => Html,
): Html {
  const { title, none } = overview;
  const isPart = place !== undefined && (place.filter !== "" || place.from > 0);
  return section(id, title, rows, (value) => {
    if (value.length === 0) return html`<p>${isPart ? "There are no more, or none that match." : none}</p>`;
    const shown = value.slice(0, shownRows);
    const columns = columnsIn(overview, "page").map(({ head, cell, tone }): Column<Row> => {
      const isNumber = shown.some((row) => ["number", "bigint"].includes(typeof cell(row, now)));
      const htmlOf = (row: Row): Html | string => {
        const severity = tone?.(row, now);
        const content = cellHtml(cell(row, now), now);
        return severity === undefined ? content : html`<strong class="${severity}">${content}</strong>`;
      };
      return { head, cell: htmlOf, isNumber };
    });
    if (actions !== undefined) columns.push({ head: "Actions", cell: actions });
    return html`${table(title, shown, columns)}${place && pages(place, value.length)}`;
  });
}

function cellHtml(value: Cell, now: number): Html | string {
  if (typeof value === "string") return value === "" ? "" : short(value);
  if (typeof value === "bigint" || Number.isInteger(value)) return String(value);
  // Infinity is a time, too: the driver gives it as a number.
  return time(value as Date | null, now);
}

/** Range of the shown rows, and links to those before and behind them. */
function pages(place: ListPlace, read: number): Html | string {
  const { path, filter, from } = place;
  const hasMore = read > shownRows;
  if (from === 0 && !hasMore) return "";
  const linkTo = (at: number, text: string): Html =>
    html` <a href="${path}${queryOf({ filter: filter === "" ? undefined : filter, from: at === 0 ? undefined : String(at) })}">${text}</a>`;
  return html`<p>Rows ${from + 1} to ${from + Math.min(read, shownRows)}.${from > 0 ? linkTo(Math.max(0, from - shownRows), `Previous ${shownRows}`) : ""}${hasMore ? linkTo(from + shownRows, `Next ${shownRows}`) : ""}</p>`;
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

/** Table of at most `shownRows` rows. */
export function table<Row>(caption: string, rows: readonly Row[], columns: readonly Column<Row>[]): Html {
  const more = rows.length > shownRows ? html`<p>Only the first ${shownRows} of ${rows.length} are shown.</p>` : "";
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}, table"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map(({ head, isNumber }) => html`<th scope="col"${isNumber ? html` class="number"` : ""}>${head}</th>`)}</tr></thead>
<tbody>
${rows.slice(0, shownRows).map((row) => html`<tr>${columns.map(({ cell, isNumber }) => html`<td${isNumber ? html` class="number"` : ""}>${cell(row)}</td>`)}</tr>\n`)}
</tbody>
</table></div>${more}`;
}
