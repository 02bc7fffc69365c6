/** What operators have done, and the form that corrects a dead letter. */
import { html } from "hono/html";
import { HawserError, invalidArgument } from "../../../foundation/errors/index.js";
import { enqueueLike, reading, shownRows } from "../../console/index.js";
import { deadLetterIdOf, deadLetters, listActs } from "../../operate/index.js";
import { auditFields, auditList } from "../html/audit.js";
import { editableText, editForm, typedText } from "../html/edit.js";
import { queryOf } from "../html/filter.js";
import { short } from "../html/text.js";
import { type Site, valueIn } from "./site.js";

export function auditRoutes(site: Site): void {
  const { prefix, database, changing, readings, letters, descriptors, logger } = site.options;
  const { app } = site;
  const changer = deadLetters(changing);

  app.get("/audit", async (c) => {
    const given = auditFields(c.req.query());
    const { topic: object, action, login } = given;
    const before = c.req.query("before");
    const beforeId = before === undefined ? undefined : actIdOf(before);
    const acts = await reading(() => listActs(database, { object, action, login, beforeId, limit: shownRows + 1 }));
    return site.answer(c, "Audit", auditList(acts, given, { path: `${prefix}/audit`, now: Date.now() }));
  });

  app.get("/dead/:id/edit", async (c) => {
    const id = deadLetterIdOf(c.req.param("id"));
    const [read, abilities] = await Promise.all([reading(() => letters.get(id)), readings.abilities()]);
    const title = `Edit dead letter ${id}`;
    const more = { abilities, place: "/dead" };
    if (read.state !== "read")
      return site.answer(c, title, html`<p class="${read.state}">${short(read.why)}</p>`, more);
    if (read.value === undefined) return site.answer(c, title, gone, { ...more, status: 404 });
    if (valueIn(abilities)?.canRetry !== true)
      return site.answer(c, title, html`<p class="denied">This login may not edit dead letters.</p>`, more);
    return site.answer(c, title, editForm(read.value, editableText(read.value, descriptors), site.formContext()), more);
  });

  site.onAction("/dead/:id/edit", "canRetry", "edit dead letters", async (c, form) => {
    const id = deadLetterIdOf(c.req.param("id") ?? "");
    const { do: action = "edit", any } = form;
    const text = typedText(form["typed-payload"] ?? "");
    const letter = await letters.get(id);
    if (letter === undefined) return site.answer(c, `Edit dead letter ${id}`, gone, { status: 404, place: "/dead" });
    try {
      const bytes = Buffer.from(text);
      const payload = descriptors?.encode(bytes, letter.headers) ?? bytes;
      if (action === "new") {
        const job = await enqueueLike(changing, letter, payload);
        logger.info(
          { action: "enqueue", like: id, job: String(job) },
          "an operator enqueues a message like a dead letter",
        );
        return c.redirect(`${prefix}/message${queryOf({ id: String(job) })}`, 303);
      }
      await changer.edit(id, payload, any === "yes");
      logger.info({ action: "edit", id }, "an operator edits a dead letter");
      if (action !== "retry") return c.redirect(`${prefix}/dead/${id}?payload=1`, 303);
      const [outcome] = await changer.retry({ ids: [id] });
      if (outcome?.outcome === "refused") throw new HawserError(outcome.code, outcome.message);
      logger.info({ action: "retry", id }, "an operator retries a dead letter");
      // One of a subscription stays until the function has handled it.
      const next = letter.jobId === null ? `/dead/${id}` : `/message${queryOf({ id: letter.jobId })}`;
      return c.redirect(`${prefix}${next}`, 303);
    } catch (error) {
      if (!(error instanceof HawserError) || (error.code !== "invalid_argument" && error.code !== "not_permitted"))
        throw error;
      const status = error.code === "not_permitted" ? 403 : 400;
      const body = editForm(letter, text, site.formContext(), error.message);
      return site.answer(c, `Edit dead letter ${id}`, body, { status, place: "/dead" });
    }
  });
}

const gone = html`<p>There is no such dead letter: it was retried, discarded, or expired.</p>`;

/** Id of an act in a query string. @throws HawserError `invalid_argument` */
function actIdOf(text: string): number {
  const id = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(id)) return id;
  throw invalidArgument(`before "${text.slice(0, 60)}": must be the number of a record`);
}
