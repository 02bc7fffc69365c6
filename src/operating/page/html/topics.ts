/** Forms that pause a topic, resume it, and cancel its messages. */
import { html } from "hono/html";
import { plural } from "../../../foundation/errors/index.js";
import type { Abilities } from "../../console/index.js";
import type { TopicOverview } from "../../operate/index.js";
import type { FormContext } from "./dead.js";
import { hiddenFields } from "./filter.js";
import { type Html, short } from "./text.js";

/** Number of messages that one form cancels at most, so that its answer does not take long. */
export const cancelledByForm = 10_000;

/** Actions on a topic, in all processes; undefined if the login may change none. */
export function topicActions(
  { canPause, canCancel }: Pick<Abilities, "canPause" | "canCancel">,
  { prefix, token }: FormContext,
): ((topic: TopicOverview) => Html) | undefined {
  if (!canPause && !canCancel) return undefined;
  const form = (action: string, topic: string, text: string): Html =>
    html`<form class="inline" method="post" action="${prefix}/topics/${action}">${hiddenFields({ topic, token })}<button type="submit">${text}</button></form>`;
  return ({ topic, pausedAt }) =>
    html`${canPause ? form(pausedAt === null ? "pause" : "resume", topic, pausedAt === null ? "Pause" : "Resume") : ""}${canCancel ? form("cancel", topic, "Cancel messages…") : ""}`;
}

/** Asks which messages of a topic are to be cancelled. */
export function confirmCancel(topic: string, { prefix, token }: FormContext): Html {
  return html`<p>Messages of the topic ${short(topic)} that wait will be deleted, with payload, and the signals of those that run are aborted. This
cannot be undone. Only messages of roles that this login may act as are cancelled.</p>
<form method="post" action="${prefix}/topics/cancel">${hiddenFields({ topic, confirm: "yes", token })}
<p><span class="field"><label for="f-key">Key</label> <input id="f-key" name="typed-key" autocomplete="off" placeholder="any"></span>
<span class="field"><label for="f-minutes">Enqueued more than so many minutes ago</label> <input id="f-minutes" name="typed-minutes" type="number" min="0" value="0"></span>
<button type="submit">Cancel them</button></p></form>
<p><a href="${prefix}/topics">Keep them</a></p>`;
}

/** Says what a form has cancelled. */
export function cancelledText(topic: string, counts: Readonly<Record<string, number>>, hasMore: boolean): Html {
  const { cancelled = 0, cancelling = 0 } = counts;
  const more = hasMore ? ` There are more: one form cancels at most ${cancelledByForm}.` : "";
  return html`<p role="status">${plural(cancelled, "message")} of the topic ${short(topic)} cancelled; ${cancelling} run, and their signals are aborted.${more}</p>`;
}
