/** Frame of every page: title, navigation, and the links that pause the reloading. */

import { html } from "hono/html";
import { plural } from "../../../foundation/errors/index.js";
import { version } from "../../../foundation/runtime/index.js";
import type { Badge, Badges, Place } from "../../console/index.js";
import { countText } from "./quantities.js";
import { type Html, short } from "./text.js";

/** Location, login and reload interval of a page. */
export interface Frame {
  /** Path before every link; empty at the root. */
  readonly prefix: string;
  /** Path of this page below the prefix, with its query. */
  readonly path: string;
  /** Path of the entry of the navigation to which this page belongs. */
  readonly place: string;
  readonly login: string | undefined;
  readonly database: string | undefined;
  /** Counts and alarms of the navigation; undefined until they are known. */
  readonly badges: Badges | undefined;
  /** Interval of reloading; undefined if this page does not reload itself. */
  readonly refreshMs: number | undefined;
  readonly isPaused: boolean;
}

/** Entry of the navigation. */
interface Entry {
  readonly to: string;
  readonly name: string;
  /** Its badge. */
  readonly of?: Place;
  /** True for the first one of a group. */
  readonly isApart?: boolean;
  /** True for what there is only with NATS. */
  readonly isNats?: boolean;
}

const entries: readonly Entry[] = [
  { to: "/", name: "Overview", of: "overview" },
  { to: "/topics", name: "Topics", of: "topics", isApart: true },
  { to: "/backlog", name: "Backlog", of: "backlog" },
  { to: "/jobs", name: "Jobs" },
  { to: "/later", name: "Due later", of: "later" },
  { to: "/dead", name: "Dead letters", of: "dead" },
  { to: "/message", name: "Find a message" },
  { to: "/peers", name: "Peers and workers", of: "peers", isApart: true },
  { to: "/schedules", name: "Schedules", of: "schedules" },
  { to: "/outbox", name: "Outbox for NATS", of: "outbox", isApart: true, isNats: true },
  { to: "/streams", name: "Streams", of: "streams", isNats: true },
  { to: "/actions", name: "Retries and discards", isApart: true },
  { to: "/audit", name: "Audit" },
];

/** Renders a page. */
export function layout(frame: Frame, title: string, body: Html): Html {
  const { prefix, place, login, database, badges } = frame;
  const shown = entries.filter(({ isNats }) => isNats !== true || badges?.hasNats !== false);
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
${reloads(frame)}</head>
<body${frame.refreshMs === undefined ? "" : html` data-refresh-ms="${frame.refreshMs}"`}>
<a class="skip" href="#main">Skip to the content</a>
<header>
<p class="product">Hawser <span>${version}</span></p>
${login === undefined ? "" : html`<p class="who">${short(login)} in ${short(database)}</p>`}
<nav aria-label="Pages"><ul>
${shown.map((entry) => html`<li${entry.isApart ? html` class="apart"` : ""}><a href="${prefix}${entry.to}"${entry.to === place ? html` aria-current="page"` : ""}>${entry.name}${badge(entry.of && badges?.of[entry.of])}</a></li>\n`)}
</ul></nav>
</header>
<main id="main" tabindex="-1">
<div class="title"><h1>${title}</h1>${reloading(frame)}</div>
${body}
</main>
</body>
</html>
`;
}

/** What makes the page reload: the script, or the browser by itself if it runs no scripts. */
function reloads({ prefix, refreshMs, isPaused }: Frame): Html | string {
  if (refreshMs === undefined || isPaused) return "";
  return html`<script src="${prefix}/refresh.js" defer></script>
<noscript><meta http-equiv="refresh" content="${Math.ceil(refreshMs / 1_000)}"></noscript>
`;
}

function badge(shown: Badge | undefined): Html | string {
  if (shown === undefined || (shown.count === 0 && shown.alarm === undefined)) return "";
  const { count, hasMore = false, alarm, what } = shown;
  return html` <span class="count${alarm === undefined ? "" : ` ${alarm}`}" title="${what}"><span class="hidden">(</span>${countText(count, hasMore)}<span class="hidden">: ${what})</span></span>`;
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
