/** `hawser outbox`: shows messages for NATS, cancels those that are due later, and publishes messages again. */

import { plural } from "../../foundation/errors/index.js";
import { outboxTable, scheduledTable } from "../console/index.js";
import { listScheduled, outboxOverview, replayOutbox, withCommandDatabase } from "../operate/index.js";
import { cancel } from "./cancel.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  type Given,
  option,
  optional,
  refusal,
  refuseForeignFlags,
  required,
} from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printFirstRows, printOutcomes, printRows, rowLimit, startProgress } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { momentOf, wholeNumber } from "./quantities.js";

/** Flags that only some actions have. */
const actionOptions = {
  to: option("SUBJECT", "With list: only messages for this subject. With cancel: the messages for this subject"),
  key: option("KEY", "With cancel --to: only messages with this key"),
  yes: flag("With cancel --to: do not ask; without a terminal nothing is asked"),
  "older-than": option("TIME", "With cancel --to: only messages enqueued longer ago than a time, or before a date"),
  limit: option("N", "With list: at most N. Default: all; without --json 100"),
  since: option("MOMENT", "With replay: messages enqueued, or due, since a date, or within a time such as 10m"),
  until: option("MOMENT", "With replay: messages enqueued before a date or time"),
  subject: option("SUBJECT", "With replay: only this subject; may have * and >"),
  core: flag("With replay: also messages to core NATS, which delivers each of them again"),
} as const satisfies Arguments;

const actions = {
  status: [],
  list: ["to", "limit"],
  cancel: ["to", "key", "older-than", "yes"],
  replay: ["since", "until", "subject", "core"],
} as const;
type Action = keyof typeof actions;

export const command = defineCommand({
  details:
    "`list` has the messages that are due later, the next one first. `replay` reaches back as far as the outbox keeps messages " +
    "(--outbox-retention of hawser serve). It first looks each message up in its stream. Jobs have `hawser jobs`",
  args: {
    action: required("Action", { valueHint: Object.keys(actions).join("|") }),
    ids: optional("With cancel: the messages", { multiple: true, valueHint: "ID…" }),
    ...databaseOption,
    ...actionOptions,
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const action = actionOf("outbox", args.action, Object.keys(actions) as Action[]);
    refuseForeignFlags("outbox", action, actions, args);
    const { ids, to: destination, json = false } = args;
    const url = databaseUrlOf(args);
    if (action === "cancel") return await cancel(url, "nats", { ...args, destination });
    if (ids.length > 0) throw refusal("outbox", action, "ids go with cancel");
    if (action === "replay") return await replay(url, args, json);
    if (action === "status") {
      const rows = await withCommandDatabase(url, outboxOverview);
      return await printRows(
        rows.filter(({ kind }) => kind === "nats"),
        overviewRows(outboxTable, json),
      );
    }
    const limit = wholeNumber("--limit", args.limit);
    const filter = { kind: "nats", destination, limit: rowLimit(limit, json) } as const;
    const rows = await withCommandDatabase(url, (database) => listScheduled(database, filter));
    const none = "No message for NATS is due later, or none that matches.";
    await printFirstRows(rows, limit, { ...overviewRows(scheduledTable, json), none });
  },
  examples: [
    ["hawser outbox status", "Waiting messages, their age, and the size of the outbox"],
    ["hawser outbox list --to orders.remind", "Messages of a subject that are due later"],
    ["hawser outbox cancel 17 18", "Cancel two messages"],
    [
      "hawser outbox replay --since 10m --subject 'orders.>'",
      "Publish messages of the last ten minutes again that NATS may have lost",
    ],
  ],
});

async function replay(url: string | undefined, args: Given<typeof actionOptions>, json: boolean): Promise<void> {
  const since = momentOf("--since", args.since);
  if (since === undefined) throw refusal("outbox", "replay", "set the start, such as --since 10m");
  const until = momentOf("--until", args.until);
  const selection = { since, until, subject: args.subject, core: args.core ?? false };
  const progress = startProgress("searching messages", !json);
  let replayed: number;
  try {
    replayed = await withCommandDatabase(url, (database) =>
      replayOutbox(database, selection, (count, reached) =>
        progress.update(`${plural(count, "message")} written again, up to ${reached.toISOString()}`),
      ),
    );
  } finally {
    progress.stop();
  }
  const next = "`hawser serve` publishes the messages that are missing in their streams.";
  await printOutcomes([{ replayed }], json, () => `Enqueued ${plural(replayed, "message")} again. ${next}`);
}
