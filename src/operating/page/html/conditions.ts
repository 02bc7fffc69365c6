/** Conditions under which a worker takes a message. */
import { html } from "hono/html";
import type { Reading } from "../../console/index.js";
import type { Condition } from "../../operate/index.js";
import { queryOf } from "./filter.js";
import { unread } from "./table.js";
import { type Html, short, span } from "./text.js";

/** Conditions that are not met, with what to do. */
export function conditionsText(read: Reading<readonly Condition[]>, prefix: string, now: number): Html {
  if (read.state !== "read") return unread(read);
  const held = read.value.filter(({ isMet }) => !isMet);
  if (held.length === 0) return html` Nothing holds it: a worker that serves its topic takes it with its next look.`;
  return html`
<ul>${held.map(({ explanation, since, remedy, holder, condition }) => {
    const of = condition === "not_held" || condition === "first_of_key" ? holder : null;
    const link = of === null ? "" : html` <a href="${prefix}/message${queryOf({ id: of })}">Message ${of}</a>.`;
    const begin = explanation ?? "";
    return html`<li>${short(begin.slice(0, 1).toUpperCase() + begin.slice(1))}${since === null ? "" : html`, for ${span(since, now)}`}.${remedy === null ? "" : html` ${short(remedy)}.`}${link}</li>\n`;
  })}</ul>`;
}
