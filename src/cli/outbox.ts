/** `hawser outbox`: shows and cancels waiting messages, and publishes messages again. */
import { limits } from "../../generated/ts/rules/outbox/outbox.js";
import { outboxTable, scheduledTable } from "../console/index.js";
import { HawserError, plural } from "../errors/index.js";
import {
  type Cancelled,
  cancelMessages,
  listScheduled,
  outboxOverview,
  replayOutbox,
  withCommandDatabase,
} from "../operate/index.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  option,
  optional,
  refusal,
  refuseForeignFlags,
  required,
} from "./command-line.js";
import { databaseOption, databaseUrlOf, idOf, oneOf } from "./options.js";
import { printFirstRows, printOutcomes, printRows, rowLimit, startProgress } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { momentOf, wholeNumber } from "./quantities.js";

const kinds = limits.LaterMessage.kind.values;

/** Flags that only some actions have. */
const actionOptions = {
  kind: option(kinds.join("|"), "With list: only messages for NATS, or for peers"),
  to: option("NAME", "With list: only messages for this subject or topic. With cancel: the messages of this topic"),
  key: option("KEY", "With cancel --to: only messages with this key"),
  "older-than": option("TIME", "With cancel --to: only messages enqueued longer ago than a time, or before a date"),
  limit: option("N", "With list: at most N. Default: all; without --json 100"),
  since: option("MOMENT", "With replay: messages enqueued, or due, since a date, or within a time such as 10m"),
  until: option("MOMENT", "With replay: messages enqueued before a date or time"),
  subject: option("SUBJECT", "With replay: only this subject; may have * and >"),
  core: flag("With replay: also messages to core NATS, which delivers each of them again"),
} as const satisfies Arguments;

const actions = {
  status: [],
  list: ["kind", "to", "limit"],
  cancel: ["to", "key", "older-than"],
  replay: ["since", "until", "subject", "core"],
} as const;
type Action = keyof typeof actions;

export const command = defineCommand({
  details:
    "replay reaches back as far as the outbox keeps messages (--outbox-retention of hawser serve). It first looks " +
    "each message up in its stream",
  args: {
    action: required("Action", { valueHint: Object.keys(actions).join("|") }),
    ids: optional("With cancel: the messages", { multiple: true, valueHint: "ID…" }),
    ...databaseOption,
    ...actionOptions,
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const action = actionOf("outbox", args.action, Object.keys(actions) as Action[]);
    const { ids, json = false } = args;
    checkFlags(action, ids, args);
    const kind = oneOf("kind", args.kind, kinds);
    const since = momentOf("--since", args.since);
    const until = momentOf("--until", args.until);
    const before = momentOf("--older-than", args["older-than"]);
    const limit = wholeNumber("--limit", args.limit);
    const numbers = ids.map(idOf);
    await withCommandDatabase(databaseUrlOf(args), async (database) => {
      if (action === "status") await printRows(await outboxOverview(database), overviewRows(outboxTable, json));
      else if (action === "list") {
        const filter = { kind, destination: args.to, limit: rowLimit(limit, json) };
        const none = "No message is due later or held, or none that matches.";
        const rows = await listScheduled(database, filter);
        await printFirstRows(rows, limit, { ...overviewRows(scheduledTable, json), none });
      } else if (action === "cancel") {
        const outcomes: Cancelled[] = [];
        const selection = { ids: numbers, destination: args.to, key: args.key, before };
        for await (const page of cancelMessages(database, selection)) outcomes.push(...page);
        await printCancelled(outcomes, json);
      } else {
        const selection = { since: since!, until, subject: args.subject, core: args.core ?? false };
        const progress = startProgress("searching messages", !json);
        let replayed: number;
        try {
          replayed = await replayOutbox(database, selection, (count, reached) =>
            progress.update(`${plural(count, "message")} written again, up to ${reached.toISOString()}`),
          );
        } finally {
          progress.stop();
        }
        const next = "`hawser serve` publishes the messages that are missing in their streams.";
        const done = `Enqueued ${plural(replayed, "message")} again. ${next}`;
        await printOutcomes([{ replayed }], json, () => done);
      }
    });
  },
  examples: [
    ["hawser outbox status", "Waiting messages, their age, and the size of the outbox"],
    ["hawser outbox list --to orders.remind", "Messages of a subject that are due later"],
    ["hawser outbox cancel 17 18", "Cancel two messages"],
    ["hawser outbox cancel --to reports --older-than 1h", "Cancel what waits for a topic for more than an hour"],
    [
      "hawser outbox replay --since 10m --subject 'orders.>'",
      "Publish messages of the last ten minutes again that NATS may have lost",
    ],
  ],
});

function checkFlags(action: Action, ids: readonly string[], args: Readonly<Record<string, unknown>>): void {
  const refuse = (why: string): never => {
    throw refusal("outbox", action, why);
  };
  refuseForeignFlags("outbox", action, actions, args);
  if (action === "cancel" && ids.length > 0 === (args["to"] !== undefined))
    refuse("name the messages, or their topic with --to; `hawser outbox list` shows ids");
  if (action === "cancel" && args["to"] === undefined && (args["key"] ?? args["older-than"]) !== undefined)
    refuse("--key and --older-than go with --to");
  if (action !== "cancel" && ids.length > 0) refuse("ids go with cancel");
  if (action === "replay" && args["since"] === undefined) refuse("set the start, such as --since 10m");
}

async function printCancelled(outcomes: readonly Cancelled[], json: boolean): Promise<void> {
  const of = (wanted: Cancelled["outcome"]) => outcomes.filter(({ outcome }) => outcome === wanted);
  const running = of("cancelling").length;
  const told = running === 0 ? "" : ` ${plural(running, "message")} may be running: their signals are aborted.`;
  await printOutcomes(outcomes, json, () => `Cancelled ${plural(of("cancelled").length, "message")}.${told}`);
  const missing = of("not_waiting").map(({ id }) => id);
  if (missing.length > 0) {
    throw new HawserError(
      "invalid_argument",
      `no message ${missing.slice(0, 10).join(", ")}${missing.length > 10 ? ", …" : ""} waits: handled, published, or cancelled already? See \`hawser outbox list\`.`,
    );
  }
}
