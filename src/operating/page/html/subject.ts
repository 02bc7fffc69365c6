/** Pages of one topic, and of one peer or worker. */
import { html } from "hono/html";
import {
  type Abilities,
  type Cell,
  columnsIn,
  duration,
  firstJobsTable,
  type OverviewTable,
  pendingTable,
  type Reading,
} from "../../console/index.js";
import type {
  Condition,
  DeadLetterCause,
  FirstJobs,
  HandlerDurations,
  PendingOverview,
  WorkerStatus,
} from "../../operate/index.js";
import { conditionsText } from "./conditions.js";
import { type FormContext, hiddenFields, queryOf } from "./filter.js";
import { filled } from "./links.js";
import { payloadLink } from "./message.js";
import { limitText } from "./overview.js";
import { countText } from "./quantities.js";
import { cellHtml, overviewSection, section, table } from "./table.js";
import { fullTime, type Html, short, time } from "./text.js";

/** Columns of an overview as a list of terms, for the page of one row. Cells without a value are left out. */
export function details<Row>(overview: OverviewTable<Row>, row: Row, now: number): Html {
  // The first column is the title of the page.
  const terms = columnsIn(overview, "page")
    .slice(1)
    .flatMap(({ head, cell, tone, unit }) => {
      const value: Cell = cell(row, now);
      if (value === null || value === "") return [];
      const severity = tone?.(row, now);
      const content = value instanceof Date ? fullTime(value, now) : cellHtml(value, now, unit);
      return [
        html`<dt>${head}</dt><dd>${severity === undefined ? content : html`<span class="badge ${severity}">${content}</span>`}</dd>\n`,
      ];
    });
  return html`<dl>${terms}</dl>`;
}

/** Buttons of a topic. */
export function topicBar(
  topic: { readonly topic: string; readonly pausedAt: Date | null },
  abilities: Pick<Abilities, "canPause" | "canCancel"> | undefined,
  metricsUrl: string | undefined,
  { prefix, token }: FormContext,
): Html {
  const form = (action: string, text: string): Html =>
    html`<form method="post" action="${prefix}/topics/${action}">${hiddenFields({ topic: topic.topic, token })}<button type="submit">${text}</button></form>`;
  const isPaused = topic.pausedAt !== null;
  const pause = abilities?.canPause ? form(isPaused ? "resume" : "pause", isPaused ? "Resume" : "Pause") : "";
  const limit = abilities?.canPause
    ? html`<a class="button" href="${prefix}/topic/limit${queryOf({ name: topic.topic })}">Limit…</a>`
    : "";
  const metrics =
    metricsUrl === undefined
      ? ""
      : html`<a rel="noreferrer" href="${filled("metricsUrl", metricsUrl, topic.topic)}">Metrics</a>`;
  return html`<div class="bar">${pause}${limit}${abilities?.canCancel ? form("cancel", "Cancel messages…") : ""}${metrics}</div>`;
}

/** Schedule, by its name and role. */
interface NamedSchedule {
  readonly name: string;
  readonly role: string;
}

/** Button of a schedule. */
export function scheduleBar({ name, role }: NamedSchedule, { prefix, token }: FormContext): Html {
  return html`<div class="bar"><form method="post" action="${prefix}/schedule/run">${hiddenFields({ name, role, token })}<button type="submit">Run now…</button></form></div>`;
}

/** Asks whether a schedule is to be run now. */
export function confirmRun({ name, role }: NamedSchedule, { prefix, token }: FormContext): Html {
  return html`<p>A message of the schedule ${short(name)} of the role ${short(role)} will be enqueued now, as if it were due. Its next occurrence stays.</p>
<form method="post" action="${prefix}/schedule/run">${hiddenFields({ name, role, confirm: "yes", token })}<button type="submit">Run it now</button></form>
<p><a href="${prefix}/schedule${queryOf({ name, role })}">Leave it</a></p>`;
}

/** Section with the workers of a topic, and what each does for it. */
export function workersSection(
  read: Reading<readonly WorkerStatus[]>,
  durations: HandlerDurations | undefined,
  prefix: string,
  now: number,
): Html {
  return section("workers", "Who handles it", read, (workers) => {
    if (workers.length === 0) return html`<p class="warning">No worker takes its messages.</p>`;
    const all = workers.reduce((sum, { handled }) => sum + Number(handled ?? 0n), 0);
    const times = durations === undefined ? "" : html`<p class="quiet">${durationsText(durations)}</p>`;
    return html`${table("Workers of the topic", workers, [
      { head: "Worker", cell: ({ name }) => html`<a href="${prefix}/peer${queryOf({ name })}">${short(name)}</a>` },
      { head: "Group", cell: ({ groupName }) => (groupName === null ? "" : short(groupName)) },
      ...handlerColumns(now, (handled) => (all === 0 ? "" : html` (${Math.round((100 * handled) / all)} %)`)),
    ])}${times}`;
  });
}

/** Text about the durations of handlers' calls. */
function durationsText({ handlers, medianMs, p95Ms, p99Ms }: HandlerDurations): string {
  if (handlers === 1) return `One call of a handler took at most ${limitText(medianMs)}.`;
  return `Of ${countText(handlers)} calls of handlers, half took at most ${limitText(medianMs)}, 95 % at most ${limitText(p95Ms)}, 99 % at most ${limitText(p99Ms)}.`;
}

/** Section with the topics of a worker, and what it does for each. */
export function workersTopics(read: Reading<readonly WorkerStatus[]>, prefix: string, now: number): Html {
  return section("handlers", "Topics that it takes jobs of", read, (workers) =>
    workers.length === 0
      ? html`<p>It takes none.</p>`
      : table("Topics", workers, [
          {
            head: "Topic",
            cell: ({ topic }) => html`<a href="${prefix}/topic${queryOf({ name: topic })}">${short(topic)}</a>`,
          },
          ...handlerColumns(now, () => ""),
        ]),
  );
}

/** Time for which the oldest handler of a topic may run before it is marked: 60 s, from which `why` says that it may hang. */
const longMs = 60_000;

function handlerColumns(now: number, shareOf: (handled: number) => Html | string) {
  return [
    { head: "Health", cell: (row: WorkerStatus) => health(row, now) },
    {
      head: "Run now",
      cell: ({ handlers }: WorkerStatus) => (handlers === null ? "" : countText(handlers)),
      isNumber: true,
    },
    {
      head: "Oldest runs for",
      cell: ({ oldestMs }: WorkerStatus) => {
        const ms = Number(oldestMs ?? 0n);
        if (oldestMs === null) return "";
        return ms < longMs ? duration(ms) : html`<span class="badge warning">${duration(ms)}</span>`;
      },
      isNumber: true,
    },
    {
      head: "Handled",
      cell: ({ handled }: WorkerStatus) =>
        handled === null ? "" : html`${countText(handled)}${shareOf(Number(handled))}`,
      isNumber: true,
    },
    {
      head: "Failed attempts",
      cell: ({ failed }: WorkerStatus) => (failed === null ? "" : countText(failed)),
      isNumber: true,
    },
  ];
}

function health({ isRunning, isFull, beatAt }: WorkerStatus, now: number): Html {
  if (!isRunning) return html`<span class="badge error">silent</span> ${time(beatAt, now)}`;
  return isFull ? html`<span class="badge warning">all places taken</span>` : html`<span class="badge ok">runs</span>`;
}

/** Section with what holds the first message in line; empty if none waits. */
export function firstSection(read: Reading<readonly Condition[]>, prefix: string, now: number): Html {
  return section("first", "The first message in line", read, (conditions) => {
    const id = conditions[0]?.jobId ?? null;
    if (id === null) return html`<p class="ok">No enqueued message waits.</p>`;
    const link = html`<a href="${prefix}/message${queryOf({ id: String(id) })}">Message ${String(id)}</a>`;
    return html`<p>${link}.${conditionsText({ state: "read", value: conditions }, prefix, now)}</p>`;
  });
}

/** Sections with the oldest and the next messages. @param canCopy true if the login may read payloads */
export function firstJobsSections(read: Reading<FirstJobs>, canCopy: boolean, prefix: string, now: number): Html {
  const part = (id: keyof FirstJobs, title: string): Html => {
    const rows = read.state === "read" ? { state: read.state, value: read.value[id] } : read;
    return overviewSection(id, { ...firstJobsTable, title }, rows, now, {
      link: (row) => `${prefix}/message${queryOf({ id: String(row.id) })}`,
      actions: canCopy ? (row) => html`<a href="${payloadLink(prefix, String(row.id))}">Payload</a>` : undefined,
    });
  };
  const oldest = part("oldest", "Oldest messages");
  return read.state === "read" ? html`${oldest}${part("next", "Messages that are taken next")}` : oldest;
}

/** Section with what waits, by sender and listener. @param isOfTopic true if all rows are of one topic */
export function pendingSection(read: Reading<readonly PendingOverview[]>, isOfTopic: boolean, now: number): Html {
  // The topic is the title of the page, or the rows are of a listener's topics.
  const columns = isOfTopic ? pendingTable.columns.slice(1) : pendingTable.columns;
  return overviewSection("pending", { ...pendingTable, title: "What waits", columns }, read, now);
}

/** Section with the causes of dead letters. */
export function topicCauses(
  read: Reading<readonly DeadLetterCause[]>,
  linkOf: (cause: DeadLetterCause) => string | undefined,
  now: number,
): Html {
  return section("causes", "Dead letters", read, (causes) => {
    if (causes.length === 0) return html`<p class="ok">There are none among the newest.</p>`;
    return table("Causes of dead letters", causes, [
      {
        head: "Cause",
        cell: (cause) => {
          const to = linkOf(cause);
          const text = short(cause.cause === "" ? cause.errorCode : cause.cause);
          return to === undefined ? text : html`<a href="${to}">${text}</a>`;
        },
      },
      { head: "Count", cell: ({ count }) => countText(count), isNumber: true },
      { head: "First", cell: ({ oldestAt }) => time(oldestAt, now), isNumber: true },
      { head: "Last", cell: ({ newestAt }) => time(newestAt, now), isNumber: true },
    ]);
  });
}
