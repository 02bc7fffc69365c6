/** Style sheet of all pages, and their icon. */

/** Picture of the page in the browser's tabs. */
export const icon =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#175a8c"/><path d="M4 3v10M12 3v10M4 8h8" stroke="#fff" stroke-width="2"/></svg>';

/** Width below which the rows of a table are cards, and from which the navigation is a column: 600 px and 1,024 px. */
const [cards, column] = ["37.5rem", "64rem"];

const colours = `
:root { color-scheme: light dark;
  --text: #17212b; --muted: #55616d; --page: #f5f7f9; --back: #ffffff; --soft: #edf1f4; --line: #dfe5ea; --edge: #848f9a;
  --accent: #0b5cad; --accent-soft: #e5effa; --error: #b1121f; --error-soft: #fdeeee; --warning: #845000; --warning-soft: #fdf4e1;
  --ok: #0a6633; --ok-soft: #e6f5eb; --second: #a04a00; }
@media (prefers-color-scheme: dark) { :root {
  --text: #e4e9ee; --muted: #a2aeb9; --page: #0f1419; --back: #171d23; --soft: #212931; --line: #2c363f; --edge: #7d8995;
  --accent: #82c0f7; --accent-soft: #17324a; --error: #ff9ba3; --error-soft: #3a1c20; --warning: #f2c471; --warning-soft: #37290f;
  --ok: #86dfa5; --ok-soft: #13301f; --second: #f5a86b; } }`;

const frame = `
* { box-sizing: border-box; }
html { font-size: 100%; }
body { margin: 0; color: var(--text); background: var(--page); font: .9375rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .25rem; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem; background: var(--back); z-index: 2; }
header { background: var(--back); border-bottom: 1px solid var(--line); padding: .75rem 1rem; }
.product { margin: 0; font-weight: 700; font-size: 1.0625rem; }
.product span, .who { color: var(--muted); font-size: .8125rem; font-weight: 400; }
.who { margin: .125rem 0 0; overflow-wrap: anywhere; }
nav ul { position: relative; display: flex; flex-wrap: wrap; gap: .125rem .25rem; margin: .5rem -.5rem 0; padding: 0; list-style: none; }
nav a { display: flex; gap: .5rem; align-items: center; justify-content: space-between; padding: .25rem .5rem; border-radius: .375rem; color: var(--text); text-decoration: none; }
nav a:hover { background: var(--soft); }
nav a[aria-current] { background: var(--accent-soft); color: var(--accent); font-weight: 600; }
.count { min-width: 1.5rem; padding: 0 .4rem; border-radius: 1rem; background: var(--soft); color: var(--muted); font-size: .75rem; font-weight: 600; line-height: 1.25rem; text-align: center; font-variant-numeric: tabular-nums; }
.count.error { background: var(--error); color: var(--back); }
.count.warning { background: var(--warning); color: var(--back); }
main { padding: 1rem 1rem 3rem; min-width: 0; max-width: 96rem; }
main:focus { outline: none; }
@media (min-width: ${column}) {
  body { display: grid; grid-template-columns: 14.5rem minmax(0, 1fr); }
  header { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.25rem 1rem; border-bottom: none; border-right: 1px solid var(--line); }
  nav ul { flex-direction: column; margin-top: 1rem; }
  nav .apart { margin-top: .75rem; }
  main { padding: 1.25rem 2rem 3rem; }
}
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.title { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; justify-content: space-between; margin: 0 0 .75rem; }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1.0625rem; line-height: 1.3; font-weight: 650; }
.title p, .quiet { margin: 0; color: var(--muted); font-size: .8125rem; }
p { margin: .5rem 0; }`;

const parts = `
section { margin: 0 0 1rem; padding: 1rem 1.25rem; background: var(--back); border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
section section { padding: 0; border: none; }
section > :first-child { margin-top: 0; }
section > :last-child { margin-bottom: 0; }
#processes p { display: inline; }
.columns { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); align-items: start; }
.banner { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; padding: .625rem 1.25rem; border-left: .375rem solid var(--edge); }
.banner p { margin: 0; }
.banner strong { font-size: 1.0625rem; }
.banner.error { border-left-color: var(--error); background: var(--error-soft); }
.banner.warning { border-left-color: var(--warning); background: var(--warning-soft); }
.banner.ok { border-left-color: var(--ok); background: var(--ok-soft); }
.banner.error, .banner.warning, .banner.ok { color: var(--text); }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); margin: 0 0 1rem; padding: 0; list-style: none; }
.tile { display: flex; flex-direction: column; margin: 0; padding: .75rem 1rem .5rem; background: var(--back); border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
.tile > * { margin: 0; }
.tile .name { color: var(--muted); font-size: .8125rem; }
.tile .value { font-size: 1.625rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile .value small { font-size: .875rem; font-weight: 400; color: var(--muted); }
.tile .more { color: var(--muted); font-size: .8125rem; min-height: 1.25rem; }
.tile .sparkline { display: block; width: 100%; height: 2rem; margin-top: auto; }
.tile.error .value { color: var(--error); }
.tile.warning .value { color: var(--warning); }
.badge { display: inline-block; padding: 0 .45rem; border-radius: 1rem; background: var(--soft); color: var(--text); font-size: .8125rem; line-height: 1.35rem; white-space: nowrap; }
.badge.error { background: var(--error-soft); color: var(--error); font-weight: 600; }
.badge.warning { background: var(--warning-soft); color: var(--warning); font-weight: 600; }
.badge.ok { background: var(--ok-soft); color: var(--ok); }
.error, .failed { color: var(--error); }
.warning, .denied { color: var(--warning); }
.ok { color: var(--ok); }
.mark { color: var(--second); font-family: ui-monospace, monospace; font-size: .875em; border: 1px solid currentColor; border-radius: .2rem; padding: 0 .15rem; }
.none { color: var(--muted); font-style: italic; }
progress { width: min(30rem, 100%); accent-color: var(--accent); }
meter { width: 3rem; height: .75rem; vertical-align: middle; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .25rem 1.25rem; margin: .5rem 0; }
dt { color: var(--muted); }
dd { margin: 0; }
dd, main li { overflow-wrap: anywhere; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .375rem; padding: .6rem; overflow: auto; max-height: 32rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem; }
summary { cursor: pointer; color: var(--muted); font-size: .8125rem; }
.area { fill: var(--accent); opacity: .12; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.5; }
.line.second { stroke: var(--second); }
.grid { fill: none; stroke: var(--line); stroke-width: 1; }
.sparkline { display: inline-block; width: 7.5rem; height: 1.75rem; vertical-align: middle; }
.chart { margin: 0 0 1rem; min-width: 0; }
.chart figcaption { margin: 0 0 .5rem; font-size: .875rem; font-weight: 600; }
.chart .first, .chart .second { margin-left: .75rem; font-weight: 400; }
.chart .first::before, .chart .second::before { content: ""; display: inline-block; width: .75rem; margin-right: .35rem; border-top: 3px solid var(--accent); vertical-align: middle; }
.chart .second::before { border-top-style: dashed; border-top-color: var(--second); }
.chart .line.second { stroke-dasharray: 4 3; }
.plot { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .25rem .5rem; }
.plot svg { display: block; width: 100%; height: 10rem; }
.plot ul { display: flex; justify-content: space-between; margin: 0; padding: 0; list-style: none; color: var(--muted); font-size: .75rem; font-variant-numeric: tabular-nums; }
.plot .ys { flex-direction: column; text-align: right; margin: -.5625rem 0; }
.plot .xs { grid-column: 2; }`;

const forms = `
form { margin: .5rem 0; }
form.inline { display: inline-block; margin: 0 .5rem .25rem 0; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: 0 0 .75rem; }
.bar form, .bar p { margin: 0; }
.field { display: inline-block; max-width: 100%; margin: .25rem 1rem .25rem 0; }
label { margin-right: .25rem; color: var(--muted); font-size: .875rem; }
input, select, textarea, button, .button { max-width: 100%; font: inherit; font-size: .875rem; color: var(--text); background: var(--back); border: 1px solid var(--edge); border-radius: .375rem; padding: .3rem .7rem; }
textarea { width: 100%; min-height: 12rem; font-family: ui-monospace, monospace; }
button, .button { display: inline-block; cursor: pointer; font-weight: 600; text-decoration: none; background: var(--soft); }
button:hover, .button:hover { background: var(--accent-soft); }
td button { padding: .125rem .5rem; font-weight: 500; }`;

const tables = `
.scroll { overflow-x: auto; max-width: 100%; margin: 0 -.5rem; padding: 0 .5rem; }
table { border-collapse: collapse; width: 100%; margin: .25rem 0; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child td { border-bottom: none; }
tbody tr:hover { background: var(--page); }
thead th { color: var(--muted); font-size: .8125rem; font-weight: 600; white-space: nowrap; border-bottom-color: var(--edge); }
thead th a { color: inherit; text-decoration: none; }
thead th a:hover { text-decoration: underline; }
tfoot td { font-weight: 600; border-top: 1px solid var(--edge); border-bottom: none; }
td { min-width: 4rem; overflow-wrap: break-word; }
td bdi { overflow-wrap: anywhere; }
td:first-child { min-width: 8rem; }
.whole { white-space: nowrap; overflow-wrap: normal; }
.number { min-width: 0; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
td time { white-space: nowrap; }
@media (max-width: ${cards}) {
  main { padding: .75rem .75rem 3rem; }
  header { padding-bottom: .25rem; }
  nav ul { flex-wrap: nowrap; overflow-x: auto; padding: .25rem 0; }
  nav a { white-space: nowrap; }
  section { padding: .75rem .875rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem; }
  .tile { padding: .5rem .75rem; }
  .tile .value { font-size: 1.375rem; }
  .scroll { margin: 0; padding: 0; overflow-x: visible; }
  table, tbody, tfoot, tr, td { display: block; width: 100%; min-width: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  tr:last-child { border-bottom: none; }
  td, td.number, td:first-child { position: relative; min-width: 0; min-height: 1.5rem; padding: .1rem 0 .1rem 8rem; border: none; text-align: left; white-space: normal; }
  td::before { content: attr(data-head); position: absolute; left: 0; width: 7.5rem; color: var(--muted); font-size: .8125rem; line-height: 1.5rem; }
  td.void { display: none; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; scroll-behavior: auto !important; } }
@media print { header, form, .skip { display: none; } body { display: block; } }`;

/** Style sheet of all pages. */
export const style = [colours, frame, parts, forms, tables].join("").trimStart();
