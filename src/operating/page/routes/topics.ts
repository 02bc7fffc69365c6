/** Forms that pause a topic, resume it, and cancel its messages. */
import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import { cancelMessages, pauseTopic, resumeTopic } from "../../operate/index.js";
import { cancelledByForm, cancelledText, confirmCancel } from "../html/topics.js";
import type { Site } from "./site.js";

export function topicRoutes(site: Site): void {
  const { prefix, changing, logger } = site.options;
  for (const [action, change] of [
    ["pause", pauseTopic],
    ["resume", resumeTopic],
  ] as const) {
    site.onAction(`/topics/${action}`, "canPause", `${action} topics`, async (c, { topic = "" }) => {
      await change(changing, topic);
      logger.info({ action, topic }, "an operator changes a topic");
      return c.redirect(`${prefix}/topics`, 303);
    });
  }
  site.onAction("/topics/cancel", "canCancel", "cancel messages", async (c, form) => {
    const { topic = "", confirm, "typed-key": key = "", "typed-minutes": minutes = "0" } = form;
    if (confirm !== "yes") return site.answer(c, "Cancel messages?", confirmCancel(topic, site.formContext()));
    if (!/^\d{1,7}$/.test(minutes))
      throw new HawserError("invalid_argument", `minutes "${minutes.slice(0, 60)}": must be a whole number from 0`);
    const before = minutes === "0" ? undefined : new Date(Date.now() - Number(minutes) * 60_000);
    const counts: Record<string, number> = {};
    let seen = 0;
    let hasMore = false;
    const selection = { kind: "peer", destination: topic, key: key || undefined, before } as const;
    for await (const page of cancelMessages(changing, selection)) {
      for (const { outcome } of page) counts[outcome] = (counts[outcome] ?? 0) + 1;
      seen += page.length;
      hasMore = seen >= cancelledByForm;
      if (hasMore) break;
    }
    logger.info({ action: "cancel", topic, key, before, counts }, "an operator cancels messages");
    const body = html`${cancelledText(topic, counts, hasMore)}\n<p><a href="${prefix}/topics">Topics</a></p>`;
    return site.answer(c, "Cancelled", body);
  });
}
