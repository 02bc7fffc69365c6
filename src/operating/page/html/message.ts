/** Page of one message: the steps of its way that the database knows, in their order. */

import { html } from "hono/html";
import { traceConstants } from "../../../../generated/ts/settings/queue.js";
import { plural } from "../../../foundation/errors/index.js";
import { heldForText, type Reading } from "../../console/index.js";
import {
  type Condition,
  type EndedMessage,
  type FindStep,
  type FoundMessage,
  foundPlaces,
  type OutboxMessage,
  type QueuedMessageFound,
} from "../../operate/index.js";
import { conditionsText } from "./conditions.js";
import { logLink, traceLink } from "./dead.js";
import { queryOf } from "./filter.js";
import { unread } from "./table.js";
import { type Html, short, span, time } from "./text.js";

/** Result of a step. Outbox and queue are searched by number first, which are steps of their own. */
export interface SearchedStep {
  readonly step: FindStep | "outboxNumber" | "queueNumber";
  readonly found: Reading<readonly FoundMessage[]>;
}

/** Sections with their steps, in the order of a message's way. */
const sections: readonly {
  readonly id: string;
  readonly title: string;
  readonly steps: readonly SearchedStep["step"][];
}[] = [
  { id: "scheduled", title: "Enqueued: due later", steps: ["scheduledNumber", "scheduled"] },
  { id: "outbox", title: "Outbox for NATS: waits, or published", steps: ["outboxNumber", "outbox"] },
  { id: "queue", title: "Queue: not handled yet", steps: ["queueNumber", "queue"] },
  { id: "ended", title: "Ended, and its result is kept", steps: ["ended"] },
  { id: "stored", title: "Stored for a listener", steps: ["channel", "stored"] },
  { id: "saved", title: "Saved for a subscription", steps: ["saved"] },
  { id: "dead", title: "Dead letters", steps: ["dead", "deadByHeader"] },
];

interface Shown {
  readonly prefix: string;
  /** Id that was asked for. */
  readonly id: string;
  readonly traceUrl: string | undefined;
  readonly logUrl: string | undefined;
  readonly now: number;
  /** True if the login may read payloads, and enqueue messages. */
  readonly canCopy: boolean;
  /** Payload of the message with the id, if it was asked for. */
  readonly payload?: Html | undefined;
  /** Conditions of the messages that were found waiting, by their ids. */
  readonly conditions?: ReadonlyMap<string, Reading<readonly Condition[]>>;
}

/** State of a message that the cursor of its channel has passed. */
const passedText = "it was handled, or has left its channel for the queue";

/** Ids of the messages that were found waiting. */
export function waitingIds(searched: readonly SearchedStep[]): string[] {
  const places = searched.flatMap(({ found }) => (found.state === "read" ? found.value : []));
  const waiting = places.flatMap((one) => (one.place === "queued" || one.place === "scheduled" ? String(one.id) : []));
  return [...new Set(waiting)];
}

/** Form and result of the search for a message. @param searched empty: nothing was asked for */
export function messagePage(shown: Shown, searched: readonly SearchedStep[]): Html {
  const { prefix, id } = shown;
  return html`<form method="get" action="${prefix}/message"><p><label for="id">Message id, or channel/epoch/number</label>
<input id="id" name="id" value="${id}" autocomplete="off" required> <button type="submit">Find</button></p></form>
<p class="quiet">By topic, state, key or header: <a href="${prefix}/jobs">jobs</a>.</p>
${searched.length === 0 ? "" : html`${shown.logUrl === undefined ? "" : html`<p>${logLink(id, shown.logUrl)}</p>`}${summary(searched)}${sections.map((each) => sectionOf(each, searched, shown))}${shown.payload ?? ""}`}`;
}

function summary(searched: readonly SearchedStep[]): Html {
  if (searched.some(({ found }) => found.state === "read" && found.value.length > 0)) return html``;
  const scope = searched.every(({ found }) => found.state === "read") ? "" : " in the parts that could be read";
  return html`<p role="status">Nothing is known of it${scope}. It may be a message</p>
<ul>
<li>that was handled, after which it is deleted unless its result is kept, or that was sent and never stored;</li>
<li>that was published, and is no longer in the outbox, which keeps messages for a while only;</li>
<li>that was discarded, cancelled, or expired as a dead letter;</li>
<li>whose transaction has not committed, or was rolled back;</li>
<li>of a role that this login is not a member of.</li>
</ul>`;
}

function sectionOf(
  { id, title, steps }: (typeof sections)[number],
  searched: readonly SearchedStep[],
  shown: Shown,
): Html {
  const readings = searched.filter(({ step }) => steps.includes(step)).map(({ found }) => found);
  const places = readings.flatMap((read) => (read.state === "read" ? read.value : []));
  const failures = readings.flatMap((read) => (read.state === "read" ? [] : [read]));
  const isCut = readings.some((read) => read.state === "read" && read.value.length >= foundPlaces);
  // The parts of a section are denied, or take too long, for the same reason.
  const reasons = failures.filter((each, nth) => failures.findIndex(({ why }) => why === each.why) === nth);
  return html`<section id="${id}" aria-labelledby="${id}-title">
<h2 id="${id}-title">${title}</h2>
${places.length === 0 ? "" : html`<ul>${places.map((place) => html`<li>${placeText(place, shown)}</li>\n`)}</ul>`}
${isCut ? html`<p>At most ${String(foundPlaces)} are shown by one id: there may be more.</p>` : ""}
${reasons.map(unread)}
${places.length + reasons.length === 0 ? html`<p>It is not there.</p>` : ""}
</section>`;
}

function placeText(found: FoundMessage, shown: Shown): Html {
  const { prefix, now } = shown;
  switch (found.place) {
    case "scheduled":
      return html`Message ${found.id} for ${short(found.destination)}, enqueued ${time(found.at, now)}, is ${
        found.heldFor > 0
          ? html`held until ${plural(found.heldFor, "message")} before it ${found.heldFor === 1 ? "has" : "have"} been handled (${heldForText(found.heldFor, found.waitsFor ?? [])})`
          : html`due ${time(found.dueAt, now)}`
      }.
Then a message for NATS gets another id; a job keeps this one.${whyText(found.id, shown)}${found.kind === "nats" ? "" : jobLinks(found.id, true, shown)}`;
    case "outbox":
      return html`${inOutbox(found, shown)}${more(found, shown)}`;
    case "queued":
      return html`${inQueue(found, shown)}${more(found, shown)}${whyText(String(found.id), shown)}${jobLinks(String(found.id), true, shown)}`;
    case "ended":
      return html`${endedText(found, shown)}${found.state === "dead" ? "" : jobLinks(found.id, false, shown)}`;
    case "stored":
      return html`${inChannel(found)}, stored ${time(found.at, now)}; ${found.passed ? passedText : "waits"}.${more(found, shown)}`;
    case "passed":
      return html`The listener ${short(found.listener)} has gone past it: ${passedText}.`;
    case "saved":
      return html`Received on ${short(found.subject)} for the function ${short(found.function)}, saved ${time(found.at, now)}; waits.`;
    case "dead":
      return html`<a href="${prefix}/dead/${found.id}">Dead letter ${found.id}</a> (${found.origin}) on ${short(found.topic)}: ${short(found.errorCode)}, ${time(found.at, now)}; of the role ${short(found.role)}${found.worker === null ? "" : html`, had by ${short(found.worker)}`}.${more(found, shown)}`;
  }
}

function inOutbox(found: OutboxMessage, { prefix, now }: Shown): Html {
  const origin =
    found.copyOf !== null
      ? html`; published again, copy of <a href="${prefix}/message${queryOf({ id: String(found.copyOf) })}">message ${String(found.copyOf)}</a>, enqueued ${time(found.firstEnqueuedAt, now)}`
      : found.firstEnqueuedAt !== null
        ? html`; was due ${time(found.firstEnqueuedAt, now)}`
        : "";
  const relay = html`<a href="${prefix}/outbox">relay</a>`;
  const state = found.waits
    ? html`Waits for the ${relay}${found.lags ? "; its role or its destination lags behind" : ""}.`
    : html`The ${relay} has passed it: it was published${found.toStream ? " into a stream" : ""}, or is a dead letter.`;
  return html`Message ${String(found.id)} for the subject ${short(found.destination)}, enqueued ${time(found.enqueuedAt, now)} by ${short(found.role)}${origin}. ${state} Position saved ${time(found.positionSavedAt, now)}.`;
}

function inQueue(found: QueuedMessageFound, { now }: Shown): Html {
  const { listener, groupName, toAll, worker, attempts, givenBack, dueAt, priority, sentAs } = found;
  const recipient =
    listener !== null
      ? html` (listener ${short(listener)})`
      : groupName !== null
        ? html` (group ${short(groupName)})`
        : toAll
          ? ", for all listeners"
          : "";
  const ofPriority = priority === 0 ? "" : ` with the priority ${priority}`;
  const failed = attempts === 0 ? "" : html` after ${plural(attempts, "failed attempt")}`;
  const cut = givenBack === 0 ? "" : `, and was cut off ${plural(givenBack, "time")} by a stop`;
  const state =
    worker !== null
      ? html`${short(worker)} has it${failed}${cut}.`
      : dueAt !== null
        ? html`Is tried again ${time(dueAt, now)}${failed}${cut}.`
        : html`Waits${failed}${cut}.`;
  const since =
    sentAs === null
      ? html`enqueued ${time(found.enqueuedAt, now)} by ${short(found.role)}`
      : html`sent as ${short(sentAs)}, in the queue since ${time(found.enqueuedAt, now)}`;
  return html`Message ${String(found.id)} for the topic ${short(found.topic)}${recipient}${ofPriority}, ${since}. ${state}`;
}

/** Links to the payload of a job, and to the form that enqueues another one like it. */
function jobLinks(id: string, hasPayload: boolean, { prefix, canCopy }: Shown): Html {
  if (!canCopy) return html``;
  const payload = hasPayload ? html` <a href="${payloadLink(prefix, id)}">Show the payload</a>.` : "";
  return html`${payload} <a href="${prefix}/message/like${queryOf({ id })}">Enqueue another one like it</a>.`;
}

/** Link to the page of a job with its payload. */
export function payloadLink(prefix: string, id: string): string {
  return `${prefix}/message${queryOf({ id, payload: "1" })}#payload`;
}

/** What holds the message. */
function whyText(id: string, { prefix, conditions, now }: Shown): Html {
  const read = conditions?.get(id);
  return read === undefined ? html`` : conditionsText(read, prefix, now);
}

function endedText(found: EndedMessage, { now }: Shown): Html {
  const { state, listener, attempts, durationMs, errorCode } = found;
  const by = listener === null ? "" : html` by ${short(listener)}`;
  const duration = durationMs === null ? "" : html`, in ${String(durationMs)} ms`;
  const tries = attempts === 0 ? "" : html` after ${plural(attempts, "attempt")}`;
  const how = { done: html`Handled${by}`, dead: html`Given up${by}`, cancelled: html`Cancelled` }[state];
  const parts: readonly (readonly [string, string | null])[] = [
    ["Result", found.result],
    ["Progress", found.progress],
    ["Error", errorCode === null ? null : `${errorCode}: ${found.errorMessage ?? ""}`],
  ];
  return html`Message ${found.id} for the topic ${short(found.topic)}, enqueued ${time(found.enqueuedAt, now)} by ${short(found.role)}. ${how}${tries} ${time(found.at, now)}${duration}.
${parts.map(([name, value]) => (value === null ? "" : html` ${name}: ${short(value)}.`))} Kept for another ${span(found.expiresAt, now)}.`;
}

function inChannel({ name, topic, listener }: FoundMessage & { readonly place: "stored" }): Html {
  return html`${short(name)} on the topic ${short(topic)} for ${short(listener)}`;
}

/** Id under which more is found, and the trace. */
function more(
  { messageId, traceparent }: { readonly messageId: string | null; readonly traceparent: string | null },
  { prefix, id, traceUrl }: Shown,
): Html {
  const own =
    messageId === null || messageId === id
      ? ""
      : html` Its messageId: <a href="${prefix}/message${queryOf({ id: messageId })}">${short(messageId)}</a>.`;
  const trace =
    traceparent === null ? "" : html` Trace: ${traceLink([[traceConstants.parentHeader, traceparent]], traceUrl)}.`;
  return html`${own}${trace}`;
}
