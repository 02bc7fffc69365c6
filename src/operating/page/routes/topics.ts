/** Forms that pause a topic, resume it, and cancel its messages. */
import { html } from "hono/html";
import { invalidArgument } from "../../../foundation/errors/index.js";
import { cancelMessages, limitTopic, pauseTopic, resumeTopic } from "../../operate/index.js";
import { queryOf } from "../html/filter.js";
import { cancelledByForm, cancelledText, confirmCancel, limitForm } from "../html/topics.js";
import { type Site, valueIn } from "./site.js";

export function topicRoutes(site: Site): void {
  const { prefix, changing, readings, logger } = site.options;
  for (const [action, change] of [
    ["pause", pauseTopic],
    ["resume", resumeTopic],
  ] as const) {
    site.onAction(`/topics/${action}`, "canPause", `${action} topics`, async (c, { topic = "" }) => {
      await change(changing, topic);
      logger.info({ action, topic }, "an operator changes a topic");
      return c.redirect(`${prefix}/topic${queryOf({ name: topic })}`, 303);
    });
  }
  site.app.get("/topic/limit", async (c) => {
    const topic = c.req.query("name") ?? "";
    const limits = valueIn(await readings.topics({ topic }))?.[0]?.limits ?? null;
    return site.answer(c, `Limits of ${topic}`, limitForm(topic, limits, site.formContext()), { place: "/topics" });
  });
  site.onAction("/topics/limit", "canPause", "limit topics", async (c, form) => {
    const { topic = "", "typed-rate": rate, "typed-burst": burst, "typed-running": running } = form;
    const limits = {
      rate: rate || undefined,
      burst: numberIn("burst", burst),
      running: numberIn("running", running),
      runningPerKey: numberIn("running for each key", form["typed-running-per-key"]),
      keyHeader: form["typed-key-header"] || undefined,
    };
    await limitTopic(changing, topic, limits);
    logger.info({ action: "limit", topic, limits }, "an operator changes a topic");
    return c.redirect(`${prefix}/topic${queryOf({ name: topic })}`, 303);
  });
  site.onAction("/topics/cancel", "canCancel", "cancel messages", async (c, form) => {
    const { topic = "", confirm, "typed-key": key = "", "typed-minutes": minutes = "0" } = form;
    if (confirm !== "yes") return site.answer(c, "Cancel messages?", confirmCancel(topic, site.formContext()));
    const age = numberIn("minutes", minutes) ?? 0;
    const before = age === 0 ? undefined : new Date(Date.now() - age * 60_000);
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
    const body = html`${cancelledText(topic, counts, hasMore)}\n<p><a href="${prefix}/topic${queryOf({ name: topic })}">Back to the topic</a></p>`;
    return site.answer(c, "Cancelled", body);
  });
}

/** Number in a field of a form; undefined if it is empty. @throws HawserError `invalid_argument` */
function numberIn(name: string, text = ""): number | undefined {
  if (text === "") return undefined;
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw invalidArgument(`${name} "${text.slice(0, 60)}": must be a whole number from 0`);
}
