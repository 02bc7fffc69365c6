/** List of what operators have done. */
import { html } from "hono/html";
import { type Reading, shownRows } from "../../console/index.js";
import type { Act } from "../../operate/index.js";
import { queryOf } from "./filter.js";
import { section, table } from "./table.js";
import { type Html, short, time } from "./text.js";

/** Filter of acts, with the label of each field. */
const fields = { topic: "Topic, schedule or peer", action: "Action", login: "Login" } as const;
export type AuditFields = Partial<Readonly<Record<keyof typeof fields, string>>>;

/** Fields with a value, out of a query string. */
export function auditFields(query: Readonly<Record<string, string>>): AuditFields {
  const names = Object.keys(fields) as (keyof typeof fields)[];
  return Object.fromEntries(names.flatMap((name) => (query[name] ? [[name, query[name]]] : [])));
}

/** @param read at most `shownRows` + 1, of which the last shows that there are more */
export function auditList(
  read: Reading<readonly Act[]>,
  given: AuditFields,
  { path, now }: { readonly path: string; readonly now: number },
): Html {
  const inputs = (Object.keys(fields) as (keyof typeof fields)[]).map(
    (name) =>
      html`<span class="field"><label for="f-${name}">${fields[name]}</label> <input id="f-${name}" name="${name}" value="${given[name] ?? ""}" autocomplete="off"></span>\n`,
  );
  const filter = html`<form method="get" action="${path}" aria-label="Filter"><p>${inputs}<button type="submit">Filter</button></p></form>`;
  return html`${filter}\n${section("audit", "Acts", read, (acts) => {
    if (acts.length === 0) return html`<p>Nobody has done anything that is recorded, or nothing that matches.</p>`;
    const shown = acts.slice(0, shownRows);
    const last = acts.length > shownRows ? shown.at(-1)?.id : undefined;
    const next =
      last !== undefined &&
      html`\n<p><a href="${path}${queryOf({ ...given, before: String(last) })}">Next ${shownRows}</a></p>`;
    return html`${table("What operators have done, the newest first", shown, [
      { head: "When", cell: ({ at }) => time(at, now) },
      {
        head: "Login",
        cell: ({ login, role }) => (role === login ? short(login) : html`${short(login)} as ${short(role)}`),
      },
      { head: "Action", cell: ({ action }) => action },
      { head: "Object", cell: ({ object }) => (object === null ? "" : short(object)) },
      { head: "Count", cell: ({ count }) => (count === null ? "" : String(count)), isNumber: true },
      { head: "Details", cell: ({ details }) => (details === null ? "" : short(JSON.stringify(details))) },
      { head: "Application", cell: ({ application }) => (application === null ? "" : short(application)) },
    ])}${next || ""}`;
  })}`;
}
