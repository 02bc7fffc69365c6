/** Frame of every page: title, navigation, and the links that pause the reloading. */

import { html } from "hono/html";
import { plural } from "../../../foundation/errors/index.js";
import { version } from "../../../foundation/runtime/index.js";
import { type Html, short } from "./text.js";

/** Location, login and reload interval of a page. */
export interface Frame {
  /** Path before every link; empty at the root. */
  readonly prefix: string;
  /** Path of this page below the prefix, with its query. */
  readonly path: string;
  readonly login: string | undefined;
  readonly database: string | undefined;
  /** Interval of reloading; undefined if this page does not reload itself. */
  readonly refreshMs: number | undefined;
  readonly isPaused: boolean;
}

const places = [
  ["/", "Overview"],
  ["/dead", "Dead letters"],
  ["/backlog", "Backlog"],
  ["/topics", "Topics"],
  ["/peers", "Peers"],
  ["/outbox", "Outbox"],
  ["/streams", "Streams"],
  ["/schedules", "Schedules"],
  ["/message", "Find a message"],
  ["/actions", "Retries and discards"],
] as const;

/** Renders a page. */
export function layout(frame: Frame, title: string, body: Html): Html {
  const { prefix, path, login, database } = frame;
  const here = path.split("?", 1)[0]!;
  return html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>${title} - Hawser</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<link rel="stylesheet" href="${prefix}/style.css">
<link rel="icon" href="${prefix}/icon.svg">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<p class="product">Hawser ${version}</p>
<p>${login === undefined ? "" : html`Login ${short(login)}, database ${short(database)}`}</p>
<nav aria-label="Pages"><ul>
${places.map(([to, name]) => html`<li><a href="${prefix}${to}"${to === here ? html` aria-current="page"` : ""}>${name}</a></li>\n`)}
</ul></nav>
</header>
<main id="main" tabindex="-1">
<h1>${title}</h1>
${reloading(frame)}
${body}
</main>
</body>
</html>
`;
}

function reloading({ prefix, path, refreshMs, isPaused }: Frame): Html | string {
  if (refreshMs === undefined) return "";
  const url = new URL(path, "http://page");
  url.searchParams.delete("paused");
  if (!isPaused) url.searchParams.set("paused", "1");
  const to = `${prefix}${url.pathname}${url.search}`;
  const interval = plural(refreshMs / 1_000, "second");
  return isPaused
    ? html`<p>This page does not reload itself. <a href="${to}">Reload every ${interval}</a></p>`
    : html`<p>This page reloads every ${interval}. <a href="${to}">Stop reloading</a></p>`;
}

/** Picture of the page in the browser's tabs. */
export const icon =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#175a8c"/><path d="M4 3v10M12 3v10M4 8h8" stroke="#fff" stroke-width="2"/></svg>';

/** Style sheet of all pages. */
export const style = `:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #f1f4f7; --line: #8a949e; --link: #0b4f86;
  --error: #a3121f; --warning: #7a4b00; --ok: #0b5c2b; --mark: #6b2e00; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --back: #14181c; --soft: #1f262d; --line: #7d8894; --link: #8cc4f5;
  --error: #ff9aa2; --warning: #f3c272; --ok: #86dfa5; --mark: #ffc08a; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); background: var(--back); font: 1rem/1.5 system-ui, sans-serif; }
header { padding: .5rem 1rem; background: var(--soft); border-bottom: 1px solid var(--line); }
header p { display: inline-block; margin: 0 1rem 0 0; }
.product { font-weight: 700; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .25rem 0 0; padding: 0; list-style: none; }
nav a[aria-current] { font-weight: 700; color: var(--text); }
main { padding: 0 1rem 3rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem; background: var(--back); }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; min-width: 6.5rem; }
th, .whole { overflow-wrap: normal; white-space: nowrap; }
.number { min-width: 0; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .6rem; overflow: auto; max-height: 32rem; white-space: pre-wrap; overflow-wrap: anywhere; }
form { margin: .5rem 0; }
form.inline { display: inline-block; margin-right: .5rem; }
.field { display: inline-block; max-width: 100%; margin: .25rem 1rem .25rem 0; }
label { margin-right: .25rem; }
input, select, button { max-width: 100%; font: inherit; color: var(--text); background: var(--back); border: 1px solid var(--line); border-radius: .25rem; padding: .3rem .6rem; }
button { background: var(--soft); cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
dd, main li { overflow-wrap: anywhere; }
.error, .failed { color: var(--error); }
.warning, .denied { color: var(--warning); }
.ok { color: var(--ok); }
.mark { color: var(--mark); font-family: ui-monospace, monospace; font-size: .875em; border: 1px solid currentColor; border-radius: .2rem; padding: 0 .15rem; }
.none { font-style: italic; }
progress { width: min(30rem, 100%); }
@media (max-width: 32rem) { main { padding: 0 .5rem 3rem; } th, td { min-width: 4.5rem; padding: .3rem .4rem .3rem 0; } .number { min-width: 0; } }
`;
