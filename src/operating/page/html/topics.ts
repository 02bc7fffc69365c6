/** Forms that limit a topic, and cancel its messages. */
import { html } from "hono/html";
import { plural } from "../../../foundation/errors/index.js";
import type { TopicLimits } from "../../operate/index.js";
import { type FormContext, hiddenFields, queryOf } from "./filter.js";
import { type Html, short } from "./text.js";

/** Number of messages that one form cancels at most, so that its answer does not take long. */
export const cancelledByForm = 10_000;

/** Asks which messages of a topic are to be cancelled. */
export function confirmCancel(topic: string, { prefix, token }: FormContext): Html {
  return html`<p>Messages of the topic ${short(topic)} that wait will be deleted, with payload, and the signals of those that run are aborted. This
cannot be undone. Only messages of roles that this login may act as are cancelled.</p>
<form method="post" action="${prefix}/topics/cancel">${hiddenFields({ topic, confirm: "yes", token })}
<p><span class="field"><label for="f-key">Key</label> <input id="f-key" name="typed-key" autocomplete="off" placeholder="any"></span>
<span class="field"><label for="f-minutes">Minimum age in minutes</label> <input id="f-minutes" name="typed-minutes" type="number" min="0" value="0"></span>
<button type="submit">Cancel them</button></p></form>
<p><a href="${prefix}/topic${queryOf({ name: topic })}">Keep them</a></p>`;
}

/** Asks for the limits of a topic. @param limits those that it has now */
export function limitForm(topic: string, limits: TopicLimits | null, { prefix, token }: FormContext): Html {
  const field = (name: string, label: string, value: string | number | undefined, hint: string): Html =>
    html`<p><span class="field"><label for="f-${name}">${label}</label> <input id="f-${name}" name="typed-${name}" autocomplete="off" placeholder="${hint}" value="${value ?? ""}"></span></p>\n`;
  const { rate, burst, running, runningPerKey, keyHeader } = limits ?? {};
  return html`<section aria-label="Limits"><p>The limits of the topic ${short(topic)} hold in all processes. An empty field sets no limit.</p>
<form method="post" action="${prefix}/topics/limit">${hiddenFields({ topic, token })}
${field("rate", "Rate: starts in a time", rate, "100/s, 10/m, 500/h")}${field("burst", "Burst: starts at once after a pause", burst, "one more than in a second")}${field("running", "Running: handled at a time", running, "any number")}${field("running-per-key", "Running of one key", runningPerKey, "any number")}${field("key-header", "Header with that key", keyHeader, "the key of the message")}
<button type="submit">Set the limits</button></form>
<p><a href="${prefix}/topic${queryOf({ name: topic })}">Leave them</a></p></section>`;
}

/** Says what a form has cancelled. */
export function cancelledText(topic: string, counts: Readonly<Record<string, number>>, hasMore: boolean): Html {
  const { cancelled = 0, cancelling = 0 } = counts;
  const more = hasMore ? ` There are more: one form cancels at most ${cancelledByForm}.` : "";
  return html`<p role="status">${plural(cancelled, "message")} of the topic ${short(topic)} cancelled; ${cancelling} run, and their signals are aborted.${more}</p>`;
}
