/** Dead letters: their list, one of them, its payload, and the retries and discards of many. */
import type { Context } from "hono";
import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import { examinedDeadLetters, type MassAction, type MassActionKind, reading, shownRows } from "../../console/index.js";
import { type DeadLetterSelection, deadLetterIdOf } from "../../operate/index.js";
import { confirmChange, deadList, massActionList, oneLetter, oneMassAction } from "../html/dead.js";
import { filterFields, filterOf } from "../html/filter.js";
import { short } from "../html/text.js";
import { type Form, type Site, valueIn } from "./site.js";

export function deadRoutes(site: Site): void {
  const { prefix, readings, letters, massActions, descriptors, traceUrl, logUrl, logger } = site.options;
  const { app } = site;

  /** Number of dead letters that match, up to `examinedDeadLetters` + 1; undefined if counting takes too long. */
  const countOf = (filter: DeadLetterSelection): Promise<number | undefined> =>
    letters.count(filter, examinedDeadLetters + 1);

  app.get("/dead", async (c) => {
    const given = filterFields(c.req.query());
    const through = c.req.query("through");
    const filter = filterOf(given);
    const listed = reading(async () => {
      const [list, count, throughId] = await Promise.all([
        letters.list({
          ...filter,
          throughId: through === undefined ? undefined : deadLetterIdOf(through),
          limit: shownRows + 1,
        }),
        countOf(filter),
        letters.newestId(),
      ]);
      return { letters: list, count, throughId };
    });
    const abilities = await readings.abilities();
    const body = deadList(await listed, given, valueIn(abilities), site.formContext());
    return site.answer(c, "Dead letters", body, { abilities });
  });

  app.get("/dead/:id", async (c) => {
    const id = deadLetterIdOf(c.req.param("id"));
    const [read, abilities] = await Promise.all([reading(() => letters.get(id)), readings.abilities()]);
    const title = `Dead letter ${id}`;
    if (read.state !== "read")
      return site.answer(c, title, html`<p class="${read.state}">${short(read.why)}</p>`, { abilities });
    if (read.value === undefined) return site.answer(c, title, gone, { abilities, status: 404 });
    const shown = { showsPayload: c.req.query("payload") === "1", descriptors, traceUrl, logUrl };
    const body = oneLetter(read.value, { ...shown, abilities: valueIn(abilities) }, site.formContext());
    return site.answer(c, title, body, { abilities });
  });

  app.get("/dead/:id/payload", async (c) => {
    const id = deadLetterIdOf(c.req.param("id"));
    const read = await reading(() => letters.get(id));
    const title = `Dead letter ${id}`;
    if (read.state !== "read") {
      const status = read.state === "denied" ? 403 : 500;
      return site.answer(c, title, html`<p class="${read.state}">${short(read.why)}</p>`, { status });
    }
    if (read.value === undefined) return site.answer(c, title, gone, { status: 404 });
    return c.body(read.value.payload as Uint8Array<ArrayBuffer>, 200, {
      "Content-Type": "application/octet-stream",
      "Content-Disposition": `attachment; filename="dead-letter-${id}.bin"`,
    });
  });

  site.onAction("/dead/retry", "canRetry", "retry dead letters", (c, form) => changed(c, "retry", form));
  site.onAction("/dead/discard", "canDiscard", "discard dead letters", (c, form) => changed(c, "discard", form));

  async function changed(c: Context, kind: MassActionKind, form: Form): Promise<Response> {
    const { id, through, confirm } = form;
    const fields = filterFields(form);
    const selection: DeadLetterSelection =
      id === undefined
        ? { ...filterOf(fields), throughId: deadLetterIdOf(through ?? "") }
        : { ids: [deadLetterIdOf(id)] };
    const expected = await countOf(selection);
    // A retry of the one that the page shows is what its button says.
    if (confirm !== "yes" && (kind === "discard" || id === undefined)) {
      const repeated = id === undefined ? { ...fields, through } : { id };
      const title = kind === "discard" ? "Discard?" : "Retry?";
      return site.answer(c, title, confirmChange(kind, expected, repeated, site.formContext()));
    }
    const massAction = massActions.start(kind, selection, expected);
    logger.info({ action: kind, selection, massAction: massAction.id }, "an operator changes dead letters");
    return c.redirect(`${prefix}/actions/${massAction.id}`, 303);
  }

  /** Mass action of a path. @throws HawserError `invalid_argument` */
  const massActionOf = (id: string): MassAction => {
    const massAction = massActions.get(id);
    if (massAction !== undefined) return massAction;
    throw new HawserError(
      "invalid_argument",
      `this process has no retry or discard ${id}: it ended with the process, or is one of another`,
    );
  };
  app.get("/actions", (c) =>
    site.answer(c, "Retries and discards", massActionList(massActions.all, site.formContext()), { refreshes: true }),
  );
  app.get("/actions/:id", async (c) => {
    const massAction = massActionOf(c.req.param("id"));
    const refreshes = massAction.state === "waiting" || massAction.state === "running";
    const title = `${massAction.kind === "retry" ? "Retry" : "Discard"} ${massAction.id}`;
    return site.answer(c, title, oneMassAction(massAction, site.formContext()), { refreshes });
  });
  site.onForm("/actions/:id/stop", async (c) => {
    const massAction = massActionOf(c.req.param("id") ?? "");
    massActions.stop(massAction.id);
    return c.redirect(`${prefix}/actions/${massAction.id}`, 303);
  });
}

const gone = html`<p>There is no such dead letter: it was retried, discarded, or expired.</p>`;
