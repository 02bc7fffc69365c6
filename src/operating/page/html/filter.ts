/** Filter of dead letters in a query string or a form, and as hidden fields. */
import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import type { DeadLetterFilter } from "../../operate/index.js";
import type { Html } from "./text.js";

/** Fields of the filter, with the label of each that an operator can edit. */
const fields = {
  origin: "Origin",
  topic: "Topic or subject",
  source: "Channel or function",
  code: "Error code",
  cause: "Cause",
} as const;

type Field = keyof typeof fields;

/** Parts of a page that its forms and links need. */
export interface FormContext {
  readonly prefix: string;
  readonly token: string;
  readonly now: number;
}

/** Filter as it was given. */
export type FilterFields = Partial<Readonly<Record<Field, string>>>;

/** Fields with a value, out of a query string or a form. */
export function filterFields(values: Readonly<Record<string, unknown>>): FilterFields {
  const given = (Object.keys(fields) as Field[]).flatMap((name) => {
    const value = values[name];
    return typeof value === "string" && value !== "" ? [[name, value] as const] : [];
  });
  return Object.fromEntries(given);
}

/** Converts fields to a filter. */
export function filterOf({ origin, topic, source, code, cause }: FilterFields): DeadLetterFilter {
  return { origin, topic, source, errorCode: code, cause };
}

/** Query string of the fields, with the leading question mark unless it is empty. */
export function queryOf(values: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]));
  return given.length === 0 ? "" : `?${new URLSearchParams(given as [string, string][])}`;
}

/** Form that filters the list of dead letters. */
export function filterForm(action: string, given: FilterFields): Html {
  const inputs = (Object.entries(fields) as [Field, string][]).map(([name, label]) =>
    name === "origin"
      ? html`<span class="field"><label for="f-origin">${label}</label> <select id="f-origin" name="origin">
${["", "subscription", "outbox", "queue"].map((origin) => html`<option value="${origin}"${origin === (given.origin ?? "") ? html` selected` : ""}>${origin === "" ? "any" : origin}</option>`)}
</select></span>\n`
      : html`<span class="field"><label for="f-${name}">${label}</label> <input id="f-${name}" name="${name}" value="${given[name] ?? ""}" autocomplete="off"></span>\n`,
  );
  return html`<form method="get" action="${action}" aria-label="Filter"><p>${inputs}<button type="submit">Filter</button></p></form>`;
}

/**
 * Hidden fields of a form. Their values are encoded, because HTML changes ends of lines, which can be part of a function's
 * name: the form would then act on other dead letters than the page shows. See {@link hiddenValues}.
 */
export function hiddenFields(values: Readonly<Record<string, string | undefined>>): Html[] {
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [html`<input type="hidden" name="${name}" value="${encodeURIComponent(value)}">`],
  );
}

/** Start of the names of fields whose values are typed, and so not encoded. */
const typed = "typed-";

/** Values of a form: those of {@link hiddenFields} decoded. @throws HawserError `invalid_argument` */
export function hiddenValues(form: Readonly<Record<string, unknown>>): Record<string, string> {
  const values: Record<string, string> = {};
  for (const [name, value] of Object.entries(form)) {
    try {
      if (typeof value === "string") values[name] = name.startsWith(typed) ? value : decodeURIComponent(value);
    } catch {
      throw new HawserError("invalid_argument", `the field ${name} of the form is not encoded as this page does it`);
    }
  }
  return values;
}
