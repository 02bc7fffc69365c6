/** Search for a message, and the conditions under which one that waits is taken. */
import { reading } from "../../console/index.js";
import { findByNumber, findMessage, findSteps, messageIdsOf, why } from "../../operate/index.js";
import { messagePage, type SearchedStep, waitingIds } from "../html/message.js";
import { type Site, valueIn } from "./site.js";

export function messageRoutes(site: Site): void {
  const { prefix, database, traceUrl, logUrl } = site.options;
  site.app.get("/message", async (c) => {
    const id = c.req.query("id") ?? "";
    const shown = { prefix, id, traceUrl, logUrl, now: Date.now() };
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
    return site.answer(c, "Find a message", messagePage({ ...shown, conditions }, searched));
  });
}
