/** Search for a message, the conditions under which one that waits is taken, and the form that enqueues another one like it. */
import { html } from "hono/html";
import { HawserError, invalidArgument } from "../../../foundation/errors/index.js";
import { enqueueLike, reading } from "../../console/index.js";
import {
  findByNumber,
  findMessage,
  findSteps,
  type JobMessage,
  jobMessage,
  messageIdsOf,
  why,
} from "../../operate/index.js";
import { editableText, likeForm, typedText } from "../html/edit.js";
import { queryOf } from "../html/filter.js";
import { messagePage, type SearchedStep, waitingIds } from "../html/message.js";
import { payloadBlock } from "../html/payload.js";
import { section } from "../html/table.js";
import type { Html } from "../html/text.js";
import { type Site, valueIn } from "./site.js";

export function messageRoutes(site: Site): void {
  const { prefix, database, changing, readings, descriptors, traceUrl, logUrl, logger } = site.options;
  site.app.get("/message", async (c) => {
    const id = c.req.query("id") ?? "";
    const abilities = await readings.abilities();
    const canCopy = valueIn(abilities)?.canCopy === true;
    const shown = { prefix, id, traceUrl, logUrl, canCopy, now: Date.now() };
    if (id === "") return site.answer(c, "Find a message", messagePage(shown, []));
    // First, because it may say the message id, by which all others are found.
    const numbered = await Promise.all([
      reading(() => findByNumber(database, id, "outbox")),
      reading(() => findByNumber(database, id, "queue")),
    ]);
    const ids = messageIdsOf(
      id,
      numbered.flatMap((read) => valueIn(read) ?? []),
    );
    const steps = await Promise.all(
      findSteps.map(
        async (step): Promise<SearchedStep> => ({
          step,
          found: await reading(() => findMessage(database, id, ids, step)),
        }),
      ),
    );
    const [outbox, queue] = numbered;
    const first: SearchedStep[] = [
      { step: "outboxNumber", found: outbox },
      { step: "queueNumber", found: queue },
    ];
    const searched = [...first, ...steps];
    const conditions = new Map(
      await Promise.all(
        waitingIds(searched).map(async (of) => [of, await reading(() => why(database, { id: BigInt(of) }))] as const),
      ),
    );
    const payload = c.req.query("payload") === "1" && isNumber(id) ? await payloadOf(id) : undefined;
    return site.answer(c, "Find a message", messagePage({ ...shown, conditions, payload }, searched), { abilities });
  });

  async function payloadOf(id: string): Promise<Html> {
    const read = await reading(() => jobMessage(database, id));
    return section("payload", "Payload", read, (job) =>
      job?.payload === undefined
        ? html`<p>It is not kept, or the message is of a role that this login is no member of.</p>`
        : payloadBlock({ ...job, payload: job.payload }, descriptors),
    );
  }

  /** Message with an id. @throws HawserError `invalid_argument` if there is none */
  async function jobOf(id: string): Promise<JobMessage> {
    const job = isNumber(id) ? await jobMessage(database, id) : undefined;
    if (job !== undefined) return job;
    throw invalidArgument(`nothing is kept of message "${id.slice(0, 20)}", or its role is none of this login`);
  }
  const title = "Enqueue another one like it";
  const more = { place: "/jobs" };
  site.app.get("/message/like", async (c) => {
    const abilities = await readings.abilities();
    if (valueIn(abilities)?.canCopy !== true)
      return site.answer(c, title, html`<p class="denied">This login may not enqueue messages.</p>`, {
        ...more,
        abilities,
        status: 403,
      });
    const job = await jobOf(c.req.query("id") ?? "");
    const { payload } = job;
    const text = payload === undefined ? "" : editableText({ ...job, payload }, descriptors);
    return site.answer(c, title, likeForm(job, text, site.formContext()), more);
  });
  site.onAction("/message/like", "canCopy", "enqueue messages", async (c, form) => {
    const job = await jobOf(form["id"] ?? "");
    const text = typedText(form["typed-payload"] ?? "");
    try {
      const bytes = Buffer.from(text);
      const id = String(await enqueueLike(changing, job, descriptors?.encode(bytes, job.headers) ?? bytes));
      logger.info({ action: "enqueue", like: job.id, job: id }, "an operator enqueues a message like another one");
      return c.redirect(`${prefix}/message${queryOf({ id })}`, 303);
    } catch (error) {
      if (!(error instanceof HawserError) || error.code !== "invalid_argument") throw error;
      return site.answer(c, title, likeForm(job, text, site.formContext(), error.message), { ...more, status: 400 });
    }
  });
}

/** True for an id that enqueue may have returned. */
const isNumber = (id: string): boolean => /^[1-9]\d{0,17}$/.test(id);
