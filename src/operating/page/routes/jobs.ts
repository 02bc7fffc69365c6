/** List of jobs, by topic, state, key and header. */
import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import { type JobsPage, jobs, type ListedJob } from "../../../jobs-and-peers/queue/enqueue/index.js";
import { listedJobsTable, reading, shownRows } from "../../console/index.js";
import { queryOf } from "../html/filter.js";
import { overviewSection } from "../html/table.js";
import type { Html } from "../html/text.js";
import type { Site } from "./site.js";

const states = ["waiting", "running", "later", "held", "dead", "done", "cancelled"] as const;

export function jobRoutes(site: Site): void {
  const { prefix, database } = site.options;
  site.app.get("/jobs", async (c) => {
    const { after, ...fields } = jobFields(c.req.query());
    const caller = database.caller("list the jobs");
    const client = { query: (text: string, values: unknown[]) => caller.query({ text, values, results: {} }) };
    const page = { ...pageOf(fields), after, limit: shownRows + 1 };
    const rows = await reading(async () => {
      const listed = await jobs(client, page);
      return listed.map((job) => ({
        ...job,
        id: String(job.id),
        waitsFor: job.waitsFor?.map((each) => ({ ...each, id: String(each.id) })),
      }));
    });
    const link = ({ id }: { readonly id: string }): string => `${prefix}/message${queryOf({ id })}`;
    const next = rows.state === "read" && rows.value.length > shownRows ? rows.value[shownRows - 1]!.place : undefined;
    const more =
      next === undefined
        ? ""
        : html`<p><a href="${prefix}/jobs${queryOf({ ...fields, after: String(next) })}">Next ${shownRows}</a></p>`;
    const body = html`${jobsForm(fields, prefix)}
${overviewSection("jobs", listedJobsTable, rows, Date.now(), { link })}${more}`;
    return site.answer(c, "Jobs", body, { refreshes: after === undefined });
  });
}

/** Selection of the fields of the form. @throws HawserError `invalid_argument` */
function pageOf({ topic, state, key, header }: JobFields): JobsPage {
  if (header === undefined) return { topic, state, key };
  const at = header.indexOf("=");
  if (at < 1)
    throw new HawserError("invalid_argument", `the header "${header.slice(0, 60)}" is not of the form NAME=VALUE`);
  return { topic, state, key, header: [header.slice(0, at), header.slice(at + 1)] };
}

/** Fields of the form; undefined for those that are empty. */
interface JobFields {
  readonly topic: string | undefined;
  readonly state: ListedJob["state"] | undefined;
  readonly key: string | undefined;
  /** `NAME=VALUE`. */
  readonly header: string | undefined;
}

/** Fields of a query string, with the place behind which the page begins. @throws HawserError `invalid_argument` */
function jobFields(query: Readonly<Record<string, string>>): JobFields & { readonly after: string | undefined } {
  const given = (name: string): string | undefined => query[name] || undefined;
  const state = states.find((each) => each === given("state"));
  if (given("state") !== undefined && state === undefined)
    throw new HawserError("invalid_argument", `a job has one of the states ${states.join(", ")}`);
  return { topic: given("topic"), state, key: given("key"), header: given("header"), after: given("after") };
}

function jobsForm({ topic, state, key, header }: JobFields, prefix: string): Html {
  const text = (name: string, label: string, value = ""): Html =>
    html`<span class="field"><label for="j-${name}">${label}</label> <input id="j-${name}" name="${name}" value="${value}" autocomplete="off"></span> `;
  const choices = states.map((each) => html`<option${each === state ? html` selected` : ""}>${each}</option>`);
  return html`<form method="get" action="${prefix}/jobs" aria-label="Find jobs"><p>${text("topic", "Topic", topic)}<span class="field"><label for="j-state">State</label> <select id="j-state" name="state"><option value="">any</option>${choices}</select></span>
${text("key", "Key", key)}${text("header", "Header, NAME=VALUE", header)}<button type="submit">Find</button></p></form>
<p class="quiet">Handled and cancelled jobs are listed as long as they are kept: <code>hawser topics keep TOPIC 1d</code>.</p>`;
}
