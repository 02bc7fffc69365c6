/** Foreign text in HTML: isolated, cut, and with visible marks for characters that hide or reorder others. */
import { html } from "hono/html";
import { age, duration } from "../../console/index.js";

/** Number of characters of a text that are shown in a cell of a table. */
export const shownCharacters = 300;

/** Escaped HTML. */
export type Html = ReturnType<typeof html>;

/** Characters that are not shown, or change how others are: controls, formats, surrogates, separators of lines. */
const hidden = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;
const hiddenParts = /([\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}])/u;

/** Shows foreign text on one line, cut to `shownCharacters`. */
export function short(text: string | null | undefined): Html {
  if (text === null || text === undefined || text === "") return html`<span class="none">none</span>`;
  const isCut = text.length > shownCharacters;
  return html`<bdi>${marked(isCut ? text.slice(0, shownCharacters) : text).flatMap(breakable)}</bdi>${isCut ? html`<span class="mark"> (cut: ${text.length} characters)</span>` : ""}`;
}

/** Shows foreign text with its lines and tabs. The caller cuts it. */
export function block(text: string, label: string): Html {
  // Focusable, because a keyboard scrolls only what has the focus.
  return html`<pre tabindex="0" role="region" aria-label="${label}" dir="ltr">${marked(text, "\n\t")}</pre>`;
}

function marked(text: string, kept = ""): (string | Html)[] {
  return text
    .split(hiddenParts)
    .map((part) => (hidden.test(part) && !kept.includes(part) && part !== "" ? mark(part) : part));
}

/** Length of a name from which it may be broken behind a sign, so that it is not broken elsewhere. */
const longWord = 12;

/** Long names with places where a line may end: behind `.`, `-`, `_`, `(`, `/` and `:`. */
function breakable(part: string | Html): (string | Html)[] {
  if (typeof part !== "string" || part.length < longWord || /\s/.test(part)) return [part];
  return part.split(/(?<=[._(/:-])(?=.)/).flatMap((piece, nth) => (nth === 0 ? [piece] : [html`<wbr>`, piece]));
}

function mark(character: string): Html {
  const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
  return html`<span class="mark">U+${code}</span>`;
}

/** Shows the age of a time, with the time as a tooltip. */
export function time(at: Date | null | undefined, now: number): Html {
  return timeHtml(at, (iso, of) => html`<time datetime="${iso}" title="${iso}">${age(now - of.getTime())}</time>`);
}

/** Shows how long something has lasted since a time, or lasts until then; the time is its tooltip. */
export function span(at: Date, now: number): Html {
  return timeHtml(
    at,
    (iso, of) => html`<time datetime="${iso}" title="${iso}">${duration(Math.abs(now - of.getTime()))}</time>`,
  );
}

/** Shows the age of a time, and the time. */
export function fullTime(at: Date | null | undefined, now: number): Html {
  return timeHtml(at, (iso, of) => {
    const [date, clock] = iso.split("T");
    // Each is kept whole on narrow columns.
    const [day, hour] = [html`<span class="whole">${date}</span>`, html`<span class="whole">${clock}</span>`];
    return html`<span class="whole">${age(now - of.getTime())}</span>, <time datetime="${iso}">${day} ${hour}</time>`;
  });
}

function timeHtml(at: Date | null | undefined, shown: (iso: string, at: Date) => Html): Html {
  if (at === null || at === undefined) return html`<span class="none">none</span>`;
  // The driver gives infinity as a number, and a time beyond the range of Date as an invalid one.
  const ms = Number(at);
  if (!Number.isFinite(ms)) return html`${Number.isNaN(ms) ? "a time out of range" : ms < 0 ? "always" : "never"}`;
  return shown(at.toISOString(), at);
}
