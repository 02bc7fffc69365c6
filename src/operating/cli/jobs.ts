/** `hawser jobs`: shows, lists and cancels jobs, and moves those of other job queues here. */

import { job } from "../../jobs-and-peers/queue/enqueue/index.js";
import { jobsTable, scheduledTable } from "../console/index.js";
import { importSources, jobsOverview, listScheduled, withCommandDatabase } from "../operate/index.js";
import { cancel } from "./cancel.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  option,
  optional,
  refusal,
  refuseForeignFlags,
} from "./command-line.js";
import { sqlClientOf } from "./enqueue.js";
import { importFrom, importOptions } from "./import.js";
import { databaseOption, databaseUrlOf, idOf, oneOf } from "./options.js";
import { print, printable, printFirstRows, printOutcomes, printRows, rowLimit } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { wholeNumber } from "./quantities.js";

const states = ["later", "held"] as const;

/** Flags that only some actions have. */
const actionOptions = {
  state: option(states.join("|"), "With list: only jobs that are due later, or that are held for others"),
  topic: option("TOPIC", "With list: only jobs of this topic. With cancel: the jobs of this topic"),
  limit: option("N", "With list: at most N. Default: all; without --json 100"),
  flow: flag("With cancel and ids: also the jobs before and behind them in their flows"),
  key: option("KEY", "With cancel --topic: only jobs with this key"),
  "older-than": option("TIME", "With cancel --topic: only jobs enqueued longer ago than a time, or before a date"),
  yes: flag("With cancel --topic: do not ask; without a terminal nothing is asked"),
  ...importOptions,
} as const satisfies Arguments;

const actions = {
  list: ["state", "topic", "limit"],
  show: [],
  cancel: ["flow", "topic", "key", "older-than", "yes"],
  status: [],
  import: Object.keys(importOptions),
} as const;
type Action = keyof typeof actions;

export const command = defineCommand({
  details:
    "`list` has the jobs that are due later or held for others, the next one first; `hawser pending` counts those that " +
    "wait, by topic, and `hawser dead` lists dead letters. `show` tells the state of one: after its end if its result is " +
    "kept (keepMs, --keep, hawser.keep_result, or `hawser topics keep`), until that time is over. `show` and `cancel` are " +
    "for jobs of the login, and of roles that it is a member of. `import` counts the jobs of the other queue, and with --move " +
    "moves them, as jobs of the login, each queue or task to a topic. Those that run, have failed or are of a flow stay, and " +
    "schedules too; the exit status is 1 if some of the others cannot be moved",
  args: {
    action: optional("Default: list", { valueHint: Object.keys(actions).join("|") }),
    ids: optional(`With show and cancel: the jobs. With import: ${importSources.join(" or ")}`, {
      multiple: true,
      valueHint: "ID…",
    }),
    ...databaseOption,
    ...actionOptions,
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const action = actionOf("jobs", args.action ?? "list", Object.keys(actions) as Action[]);
    refuseForeignFlags("jobs", action, actions, args);
    const { ids, topic, json = false } = args;
    const [first, ...others] = ids;
    const url = databaseUrlOf(args);
    if (action === "cancel") return await cancel(url, "peer", { ...args, destination: topic });
    if (action === "import") {
      if (first === undefined || others.length > 0)
        throw refusal("jobs", action, `name one other job queue: ${importSources.join(" or ")}`);
      return await importFrom(url, first, args);
    }
    if (action === "show") {
      if (first === undefined || others.length > 0) throw refusal("jobs", action, "name one job by its id");
      return await show(url, idOf(first), json);
    }
    if (first !== undefined) throw refusal("jobs", action, `ids go with show and cancel: "${printable(first)}"`);
    if (action === "status") {
      const rows = await withCommandDatabase(url, jobsOverview);
      return await printRows(rows, overviewRows(jobsTable, json));
    }
    const state = oneOf("state", args.state, states);
    const limit = wholeNumber("--limit", args.limit);
    const filter = { kind: "peer", state, destination: topic, limit: rowLimit(limit, json) } as const;
    const rows = await withCommandDatabase(url, (database) => listScheduled(database, filter));
    const none = "No job is due later or held, or none that matches; `hawser pending` counts those that wait.";
    await printFirstRows(rows, limit, { ...overviewRows(scheduledTable, json), none });
  },
  examples: [
    ["hawser jobs list --topic reports", "Jobs of a topic that are due later or held"],
    ["hawser jobs show 17", "State, attempts, progress, and the result or the error"],
    ["hawser jobs show 17 --json | jq .result", "What the handler returned"],
    ["hawser jobs cancel 17 18", "Cancel two jobs"],
    ["hawser jobs cancel --flow 17", "Cancel a job with all of its flow"],
    ["hawser jobs cancel --topic reports --older-than 1h", "Cancel what waits for a topic for more than an hour"],
    ["hawser jobs status", "Number of jobs that wait or are due later, and their age"],
    ["hawser jobs import pg-boss", "Count what would be moved"],
    [
      "hawser jobs import graphile-worker --to user:mail=mail --move",
      "Move all jobs, those of one task to another topic",
    ],
  ],
});

/** Replaces ids by their digits, for JSON. */
function digits(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** Prints what has become of a job, and what its handler returned. */
async function show(url: string | undefined, id: bigint, json: boolean): Promise<void> {
  const found = await withCommandDatabase(url, (database) => job(sqlClientOf(database, "look for the job"), id), {
    anyLogin: true,
  });
  const lines = Object.entries(found).flatMap(([name, value]) => {
    if (value === undefined) return [];
    const text = typeof value === "string" ? value : JSON.stringify(value, digits);
    return [`${name}: ${printable(text)}`];
  });
  const waitsFor = found.waitsFor?.map((each) => ({ ...each, id: String(each.id) }));
  await printOutcomes([{ id: String(id), ...found, waitsFor }], json, () => lines.join("\n"));
  if (found.state === "unknown" && !json) {
    print(
      process.stderr,
      "No such job of this login waits, and no result of it was kept (--keep of `hawser enqueue`, `hawser topics keep`).",
    );
  }
}
