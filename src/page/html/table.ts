/** Tables and sections of the page. */

import { html } from "hono/html";
import type { Reading } from "../data/index.js";
import { shownRows } from "../data/index.js";
import { type Html, short } from "./text.js";

/** Column of a table. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => Html | string;
  /** True for numbers, which are aligned at their last digit. */
  readonly isNumber?: boolean;
}

/** Section with the rows of a reading, or with the reason why they cannot be shown. */
export function tableSection<Row>(options: {
  readonly id: string;
  readonly title: string;
  readonly rows: Reading<readonly Row[]>;
  readonly columns: readonly Column<Row>[];
  /** Text for no rows. */
  readonly none: string;
}): Html {
  const { id, title, rows, columns, none } = options;
  return section(id, title, rows, (value) =>
    value.length === 0 ? html`<p>${none}</p>` : table(title, value, columns),
  );
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
