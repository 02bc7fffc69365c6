/** Pages about dead letters: causes, list, one letter, confirmation of a retry or discard, and mass actions. */

import { html } from "hono/html";
import { plural } from "../../../foundation/errors/index.js";
import { traceContextOf } from "../../../foundation/runtime/index.js";
import type { Descriptors } from "../../../protobuf/typed/index.js";
import type { Abilities, MassAction, MassActionKind, Reading } from "../../console/index.js";
import { examinedDeadLetters, shownRows, undoMs } from "../../console/index.js";
import type { DeadLetterCause, DeadLetterCauses, DeadLetterEntry, WholeDeadLetter } from "../../operate/index.js";
import { editNote } from "./edit.js";
import { type FilterFields, type FormContext, filterForm, hiddenFields, queryOf } from "./filter.js";
import { filled } from "./links.js";
import { payloadBlock } from "./payload.js";
import { section, table } from "./table.js";
import { block, fullTime, type Html, short, time } from "./text.js";

/** Section with the dead letters grouped by cause. */
export function causesSection(read: Reading<DeadLetterCauses>, { prefix, now }: FormContext): Html {
  return section("dead-letters", "Dead letters by cause", read, ({ causes, examined, olderThanId }) => {
    if (examined === 0) return html`<p class="ok">There are no dead letters.</p>`;
    const older =
      olderThanId !== undefined && html`\n<a href="${prefix}/causes?before=${olderThanId}">Examine older ones</a>`;
    const scope =
      examined < examinedDeadLetters
        ? html`<p>${plural(examined, "dead letter")}.</p>`
        : html`<p>The newest ${examined} dead letters are examined, and there may be more.${older}</p>`;
    const more = causes.length > shownRows ? html`<p>Only the ${shownRows} newest causes are shown.</p>` : "";
    return html`${scope}${table("Causes, those that are new first", causes.slice(0, shownRows), [
      {
        head: "Cause",
        cell: (cause) => {
          const to = causeLink(cause, prefix);
          return to === undefined ? short(cause.cause) : html`<a href="${to}">${short(cause.cause)}</a>`;
        },
      },
      { head: "Dead letters", cell: ({ count }) => String(count), isNumber: true },
      { head: "Newest", cell: ({ newestAt }) => time(newestAt, now) },
      { head: "Code", cell: ({ errorCode }) => short(errorCode) },
      { head: "Topic or subject", cell: ({ topic }) => short(topic) },
      { head: "Function", cell: (cause) => (cause.function === null ? "" : short(cause.function)) },
      { head: "Origin", cell: ({ origin }) => origin },
      { head: "Oldest", cell: ({ oldestAt }) => time(oldestAt, now) },
    ])}${more}`;
  });
}

/** Link to the dead letters of a cause; undefined if no filter selects them alone. */
export function causeLink(cause: DeadLetterCause, prefix: string): string | undefined {
  const fields = fieldsOf(cause);
  // An empty criterion would select other causes, too.
  return Object.values(fields).includes("") ? undefined : `${prefix}/dead${queryOf({ ...fields })}`;
}

function fieldsOf(cause: DeadLetterCause): FilterFields {
  const { origin, topic, errorCode } = cause;
  return {
    origin,
    topic,
    code: errorCode,
    cause: cause.cause,
    ...(cause.function !== null && { source: cause.function }),
  };
}

/** Dead letters of one page of the list. */
export interface ListedDeadLetters {
  /** At most `shownRows` + 1, of which the last shows that there are more. */
  readonly letters: readonly DeadLetterEntry[];
  /** Number that matches the filter, counted up to `examinedDeadLetters` + 1; undefined if counting took too long. */
  readonly count: number | undefined;
  /** Greatest id at the time; actions leave later dead letters out. */
  readonly throughId: number | undefined;
}

/** List of dead letters that a filter selects, with the actions on all of them. */
export function deadList(
  read: Reading<ListedDeadLetters>,
  given: FilterFields,
  abilities: Abilities | undefined,
  context: FormContext,
): Html {
  const { prefix, now } = context;
  return html`${filterForm(`${prefix}/dead`, given)}
${section("list", "List", read, ({ letters, count, throughId }) => {
  if (letters.length === 0) return html`<p>There are no dead letters, or none that match.</p>`;
  const next = letters[shownRows]?.id;
  return html`<p>${countText(count)} ${count === 1 ? "matches" : "match"}, the newest first.</p>
${allActions(given, throughId, count, abilities, context)}
${table("Dead letters", letters.slice(0, shownRows), [
  { head: "Id", cell: ({ id }) => html`<a href="${prefix}/dead/${id}">${id}</a>`, isNumber: true },
  { head: "Error", cell: ({ errorCode, errorMessage }) => html`${short(errorCode)}: ${short(errorMessage)}` },
  { head: "Given up", cell: ({ createdAt }) => time(createdAt, now) },
  { head: "Topic or subject", cell: ({ topic }) => short(topic) },
  { head: "Source", cell: ({ source }) => (source === "" ? "" : short(source)) },
  { head: "Attempts", cell: attemptsOf, isNumber: true },
  { head: "Bytes", cell: ({ payloadBytes }) => String(payloadBytes), isNumber: true },
])}
${next === undefined ? "" : html`<p><a href="${prefix}/dead${queryOf({ ...given, through: String(next) })}">Next ${shownRows}</a></p>`}`;
})}`;
}

function countText(count: number | undefined): string {
  if (count === undefined) return "An unknown number of dead letters";
  return count > examinedDeadLetters
    ? `More than ${plural(examinedDeadLetters, "dead letter")}`
    : plural(count, "dead letter");
}

/** Attempts, and how often a stop cut the handler off, which is no attempt. */
function attemptsOf({ attempts, givenBack }: DeadLetterEntry): string {
  return givenBack === 0 ? String(attempts) : `${attempts}, and cut off ${plural(givenBack, "time")} by a stop`;
}

function allActions(
  given: FilterFields,
  throughId: number | undefined,
  count: number | undefined,
  abilities: Abilities | undefined,
  { prefix, token }: FormContext,
): Html {
  const what = allOf(count);
  const fields = hiddenFields({ ...given, through: throughId?.toString(), token });
  return actions(abilities, {
    retry: html`<form class="inline" method="post" action="${prefix}/dead/retry">${fields}<button type="submit">Retry ${what}, in order…</button></form>`,
    discard: html`<form class="inline" method="post" action="${prefix}/dead/discard">${fields}<button type="submit">Discard ${what}…</button></form>`,
  });
}

/** Object of "Retry …" for the dead letters that match. */
function allOf(count: number | undefined): string {
  if (count === undefined || count > examinedDeadLetters) return "all that match";
  return count === 1 ? "it" : `all ${count}`;
}

function actions(
  abilities: Abilities | undefined,
  { retry, discard }: { readonly retry: Html; readonly discard: Html },
): Html {
  const { canRetry = false, canDiscard = false } = abilities ?? {};
  if (!canRetry && !canDiscard) return html`<p>This login may not retry or discard dead letters.</p>`;
  return html`<div>${canRetry ? retry : ""}${canDiscard ? discard : ""}</div>`;
}

/** Renders a dead letter. @param options.showsPayload false renders a link to the payload instead */
export function oneLetter(
  letter: WholeDeadLetter,
  options: {
    readonly showsPayload: boolean;
    readonly descriptors: Descriptors | undefined;
    readonly traceUrl: string | undefined;
    readonly logUrl: string | undefined;
    readonly abilities: Abilities | undefined;
  },
  { prefix, token, now }: FormContext,
): Html {
  const { id, headers, failures } = letter;
  const canEdit = options.abilities?.canRetry === true;
  const fields = hiddenFields({ id: String(id), token });
  const log = logLink(letter.jobId, options.logUrl);
  const facts: readonly (readonly [string, Html | string])[] = [
    ["Topic or subject", short(letter.topic)],
    ["Origin", letter.origin],
    ["Source", short(letter.source)],
    [
      "Message",
      letter.jobId === null
        ? short(null)
        : html`<a href="${prefix}/message${queryOf({ id: letter.jobId })}">${letter.jobId}</a>`,
    ],
    letter.sentAs === null ? ["Enqueued by", short(letter.enqueuedBy)] : ["Sent as", short(letter.sentAs)],
    ["Listener", short(letter.listener)],
    ["Had by", short(letter.worker)],
    ["Role", short(letter.role)],
    ["Given up", fullTime(letter.createdAt, now)],
    ["Attempts", attemptsOf(letter)],
    ["Error code", short(letter.errorCode)],
    ["Trace", traceLink(headers, options.traceUrl)],
    ...(log === "" ? [] : [["Log", log] as const]),
  ];
  return html`<dl>${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>\n`)}</dl>
${actions(options.abilities, {
  retry: html`<form class="inline" method="post" action="${prefix}/dead/retry">${fields}<button type="submit">Retry</button></form>`,
  discard: html`<form class="inline" method="post" action="${prefix}/dead/discard">${fields}<button type="submit">Discard…</button></form>`,
})}
<h2>Error</h2>
${block(letter.errorMessage, "Error message")}
${letter.stack === null ? "" : html`<h2>Stack</h2>${block(letter.stack, "Stack")}`}
${
  failures.length === 0
    ? ""
    : html`<h2>Failed attempts</h2>${table("Failed attempts", failures, [
        { head: "Attempt", cell: ({ attempt }) => String(attempt), isNumber: true },
        { head: "Time", cell: ({ at }) => short(at) },
        { head: "Code", cell: ({ code }) => short(code) },
        { head: "Message", cell: ({ message }) => short(message) },
      ])}`
}
<h2>Headers</h2>
${
  headers.length === 0
    ? html`<p>There are none.</p>`
    : table("Headers", headers, [
        { head: "Name", cell: ([name]) => short(name) },
        { head: "Value", cell: ([, value]) => short(value) },
      ])
}
<h2 id="payload">Payload</h2>
${options.showsPayload ? payloadBlock(letter, options.descriptors) : html`<p><a href="${prefix}/dead/${id}?payload=1#payload">Show the payload</a>, ${letter.payloadBytes} bytes</p>`}
<p><a href="${prefix}/dead/${id}/payload">Download the payload</a>${canEdit ? html` <a href="${prefix}/dead/${id}/edit">Edit the payload, or enqueue another one like it</a>` : ""}</p>
${options.showsPayload ? editNote(letter, options.descriptors, now) : editedHint(letter)}`;
}

/** Says that the payload was edited, without the payloads. */
function editedHint({ edit }: WholeDeadLetter): Html | string {
  return edit === null ? "" : html`<p>It was edited by ${short(edit.by)}; the original is below the payload.</p>`;
}

/** Link to the log of a message; nothing if there is no address for that. */
export function logLink(id: string | null, logUrl: string | undefined): Html | string {
  if (id === null || logUrl === undefined) return "";
  return html`<a rel="noreferrer" href="${filled("logUrl", logUrl, id)}">Log lines of ${short(id)}</a>`;
}

/** Trace of a message, with a link to it if there is an address for that. */
export function traceLink(headers: WholeDeadLetter["headers"], traceUrl: string | undefined): Html | string {
  const trace = traceContextOf(headers)?.parent.split("-")[1];
  if (trace === undefined) return short(null);
  return traceUrl === undefined
    ? trace
    : html`<a rel="noreferrer" href="${filled("traceUrl", traceUrl, trace)}">${trace}</a>`;
}

/** Confirmation of a retry or discard. @param fields hidden fields that repeat the selection */
export function confirmChange(
  action: MassActionKind,
  count: number | undefined,
  fields: Readonly<Record<string, string | undefined>>,
  { prefix, token }: FormContext,
): Html {
  const what = {
    retry: html`${countText(count)} will be handled again, in the order of their ids. A retry cannot be undone; it can be stopped between batches.`,
    discard: html`${countText(count)} will be deleted, with payload. A discard cannot be undone once it has begun: it begins after
${undoMs / 1_000} seconds, and can be stopped until then, and between batches.`,
  };
  return html`<p>${what[action]}</p>
<form method="post" action="${prefix}/dead/${action}">${hiddenFields({ ...fields, confirm: "yes", token })}
<button type="submit">${action === "retry" ? "Retry" : "Discard"} ${allOf(count)}</button></form>
<p><a href="${prefix}/dead">${action === "retry" ? "Leave" : "Keep"} ${count === 1 ? "it" : "them"}</a></p>`;
}

/** Table of mass actions. */
export function massActionList(actions: readonly MassAction[], { prefix }: FormContext): Html {
  if (actions.length === 0)
    return html`<p>Nobody has retried or discarded several dead letters at once since this process was started.</p>`;
  return table("Retries and discards, the newest first", actions, [
    {
      head: "Retry or discard",
      cell: ({ id, kind }) =>
        html`<a href="${prefix}/actions/${id}">${kind === "retry" ? "Retry" : "Discard"} ${id}</a>`,
    },
    { head: "State", cell: ({ state }) => state },
    { head: "Done", cell: (action) => String(doneOf(action)), isNumber: true },
    { head: "Refused", cell: ({ counts }) => String(counts.refused ?? 0), isNumber: true },
  ]);
}

function doneOf({ counts }: MassAction): number {
  return Object.entries(counts).reduce(
    (sum, [outcome, count]) => sum + (outcome === "refused" || outcome === "missing" ? 0 : count),
    0,
  );
}

/** Progress of a mass action. */
export function oneMassAction(action: MassAction, { prefix, token }: FormContext): Html {
  const { id, kind, state, expected, counts, refusals, lastId, error } = action;
  const seen = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const isOpen = state === "waiting" || state === "running";
  const bar =
    (expected === undefined || expected > examinedDeadLetters) && isOpen
      ? html`<progress aria-label="Progress"></progress>`
      : html`<progress aria-label="Progress" max="${Math.max(expected ?? 0, seen, 1)}" value="${seen}"></progress>`;
  const undo = {
    retry:
      "A retry is not undone: retried messages are on their way to their handlers. Dead letters of subscriptions stay listed until their function has succeeded.",
    discard:
      "Discarded dead letters are deleted. Stopping a discard before it begins, or between batches, keeps the rest.",
  };
  return html`<p role="status">State: <strong class="${state === "failed" ? "error" : ""}">${state}</strong>${state === "waiting" ? `; it begins at most ${undoMs / 1_000} seconds after it was asked for` : ""}.</p>
<p>${bar} ${seen} of ${countText(expected).toLowerCase()}${lastId === undefined ? "" : `, the last one ${lastId}`}</p>
${seen === 0 ? "" : html`<dl>${Object.entries(counts).map(([outcome, count]) => html`<dt>${outcome}</dt><dd>${count}</dd>`)}</dl>`}
${error === undefined ? "" : html`<p class="error">${short(error)}</p>`}
${refusals.size === 0 ? "" : html`<h2>Refused</h2><ul>${[...refusals].map(([reason, letter]) => html`<li><a href="${prefix}/dead/${letter}">Dead letter ${letter}</a> ${short(reason)}</li>`)}</ul>`}
${isOpen ? html`<form method="post" action="${prefix}/actions/${id}/stop">${hiddenFields({ token })}<button type="submit">${state === "waiting" ? "Undo" : "Stop"}</button></form>` : ""}
<p>${undo[kind]}</p>`;
}
