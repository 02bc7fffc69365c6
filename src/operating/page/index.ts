/**
 * The operator's page, rendered on the server: `page` returns a handler of requests, which `hawser page` serves, too.
 *
 * `src/operating/console` reads what the page and `hawser top` show, and runs retries and discards. `html/` renders. `page.ts` has the
 * routes. No reading fails the page: a section whose data the login may not read says so.
 */

export { shownCharacters } from "./html/text.js";
export { type Page, page, statementMs } from "./page.js";
export type { PageOptions } from "./page-options.js";
export { type PageServer, type PageServerOptions, servePage } from "./page-server.js";
