/** `hawser jobs`: shows, lists and cancels jobs, and moves those of other job queues here. */

import { type Job, job, jobs } from "../../jobs-and-peers/queue/enqueue/index.js";
import { jobsTable, listedJobsTable } from "../console/index.js";
import { importSources, jobsOverview, why, withCommandDatabase } from "../operate/index.js";
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
import { headersOf } from "./message-input.js";
import { databaseOption, databaseUrlOf, idOf, oneOf } from "./options.js";
import { print, printable, printOutcomes, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";
import { wholeNumber } from "./quantities.js";

const states = ["waiting", "running", "later", "held", "dead", "done", "cancelled"] as const;
/** Number of jobs that are listed by default, and at most. */
const listed = { default: 100, max: 10_000 };

/** Flags that only some actions have. */
const actionOptions = {
  state: option(states.join("|"), "With list: only jobs in this state"),
  topic: option("TOPIC", "With list: only jobs of this topic. With cancel: the jobs of this topic"),
  header: option("NAME=VALUE", "With list: only jobs with this header. All jobs of the topic are read for it"),
  after: option("PLACE", "With list: the page behind this place, which the one before has named"),
  limit: option("N", `With list: at most N, up to ${listed.max}. Default: ${listed.default}`),
  flow: flag("With cancel and ids: also the jobs before and behind them in their flows"),
  key: option("KEY", "With list and cancel --topic: only jobs with this key"),
  "older-than": option("TIME", "With cancel --topic: only jobs enqueued longer ago than a time, or before a date"),
  yes: flag("With cancel --topic: do not ask; without a terminal nothing is asked"),
  ...importOptions,
} as const satisfies Arguments;

const actions = {
  list: ["state", "topic", "key", "header", "after", "limit"],
  show: [],
  cancel: ["flow", "topic", "key", "older-than", "yes"],
  status: [],
  import: Object.keys(importOptions),
} as const;
type Action = keyof typeof actions;

export const command = defineCommand({
  details:
    "`list` has jobs in whatever state, those that came last first: what waits, runs, is due later, held or dead, and what was " +
    "done or cancelled as long as that is kept (keepMs, --keep, hawser.keep_result, or `hawser topics keep`). `show` tells the " +
    "state of one. `list`, `show` and `cancel` are for jobs of the login, and of roles that it is a member of. `import` counts the jobs of the other queue, and with --move " +
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
    const limit = wholeNumber("--limit", args.limit, { min: 1, max: listed.max }) ?? listed.default;
    const [header] = headersOf(args.header === undefined ? [] : [args.header]);
    const after = args.after === undefined ? undefined : idOf(args.after);
    const page = { topic, state, key: args.key, header, after, limit };
    const rows = await withCommandDatabase(url, (database) => jobs(sqlClientOf(database, "list the jobs"), page), {
      anyLogin: true,
    });
    const shown = rows.map((row) => ({
      ...row,
      id: String(row.id),
      place: String(row.place),
      waitsFor: digitsOf(row),
    }));
    await printRows(shown, overviewRows(listedJobsTable, json));
    if (rows.length === limit && !json) print(process.stderr, `There may be more: --after ${rows.at(-1)!.place}`);
  },
  examples: [
    ["hawser jobs list --topic reports --state done --key customer-7", "Whether the reports of a customer were done"],
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

/** Messages that a job waits for, with their ids as digits, for JSON. */
function digitsOf({ waitsFor }: Pick<Job, "waitsFor">) {
  return waitsFor?.map((each) => ({ ...each, id: String(each.id) }));
}

/** Replaces ids by their digits, for JSON. */
function digits(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** Prints what has become of a job, and what its handler returned. */
async function show(url: string | undefined, id: bigint, json: boolean): Promise<void> {
  const { found, remedy } = await withCommandDatabase(
    url,
    async (database) => {
      const found = await job(sqlClientOf(database, "look for the job"), id);
      const [reason] = found.state === "dead" && !json ? await why(database, { id }) : [];
      return { found, remedy: reason?.remedy ?? undefined };
    },
    { anyLogin: true },
  );
  if (found.state === "unknown" && !json) {
    print(
      process.stderr,
      `No job ${id} of this login waits, and no result of it was kept (--keep of \`hawser enqueue\`, \`hawser topics keep\`).`,
    );
    return;
  }
  const lines = Object.entries({ ...found, remedy }).flatMap(([name, value]) => {
    if (value === undefined) return [];
    const text = typeof value === "string" ? value : JSON.stringify(value, digits);
    return [`${name}: ${printable(text)}`];
  });
  await printOutcomes([{ id: String(id), ...found, waitsFor: digitsOf(found) }], json, () => lines.join("\n"));
}
