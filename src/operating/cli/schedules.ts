/** `hawser schedules`: lists recurring messages with their last and next run, and adds, runs and removes schedules. */

import { HawserError } from "../../foundation/errors/index.js";
import { schedule } from "../../jobs-and-peers/queue/enqueue/index.js";
import { schedulesTable } from "../console/index.js";
import { listSchedules, removeSchedule, runSchedule, withCommandDatabase } from "../operate/index.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  type Given,
  option,
  optional,
  refusal,
} from "./command-line.js";
import { destinationOf, messageOptions, messageOptionsOf, sqlClientOf } from "./enqueue.js";
import { databaseOption, databaseUrlOf, oneOf } from "./options.js";
import { printable, printOutcomes, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";

const actions = ["list", "add", "run", "remove"] as const;
const missedValues = ["one", "all", "none"] as const;

/** Flags of `add`. */
const addOptions = {
  cron: option("CRON", "With add: when, as five fields, or six with the seconds first"),
  to: option("NAME", "With add: the topic, or with --core or --stream the NATS subject"),
  payload: option("TEXT", "With add: the payload. Default: {}"),
  timezone: option("ZONE", "With add: time zone of the expression, such as Europe/Berlin. Default: UTC"),
  missed: option(missedValues.join("|"), "With add: which missed occurrences are enqueued. Default: one"),
  ...messageOptions,
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "`add NAME` makes a schedule of the login, or changes it; `run NAME` enqueues a message of one now, and its next occurrence stays; " +
    "`remove NAME` ends one, whose enqueued messages stay. The flags of messages go with add",
  args: {
    action: optional("Default: list", { valueHint: actions.join("|") }),
    name: optional("The schedule to add, run or remove", { valueHint: "NAME" }),
    ...addOptions,
    ...databaseOption,
    json: flag("Print each schedule as one line of JSON"),
  },
  run: async (args) => {
    const { name, json = false } = args;
    const action = actionOf("schedules", args.action ?? "list", actions);
    const url = databaseUrlOf(args);
    const stray = Object.keys(addOptions).find((each) => args[each as keyof typeof addOptions] !== undefined);
    if (action === "add") await add(url, name, args, json);
    else if (stray !== undefined) throw refusal("schedules", action, `--${stray} goes with add`);
    else if (action === "run") await run(url, name, json);
    else if (action === "remove") await remove(url, name, json);
    else if (name === undefined) await list(url, json);
    else throw refusal("schedules", action, `it lists all schedules, and takes no name: "${name}"`);
  },
  examples: [
    ["hawser schedules", "Schedules with their next run"],
    ["hawser schedules add nightly --cron '0 3 * * *' --to reports", "A message for the topic, each night"],
    ["hawser schedules run nightly", "A message of it now"],
    ["hawser schedules remove nightly", "End a schedule"],
    ["hawser schedules --json | jq 'select(.problem)'", "Schedules that do not run, with the reason"],
  ],
});

async function list(url: string | undefined, json: boolean): Promise<void> {
  const rows = await withCommandDatabase(url, listSchedules);
  await printRows(rows, overviewRows(schedulesTable, json));
}

async function add(
  url: string | undefined,
  name: string | undefined,
  args: Given<typeof addOptions>,
  json: boolean,
): Promise<void> {
  const { cron, to, payload, timezone } = args;
  if (name === undefined || cron === undefined || to === undefined)
    throw refusal(
      "schedules",
      "add",
      "give a name, --cron and --to, such as `add nightly --cron '0 3 * * *' --to reports`",
    );
  const missed = oneOf("missed", args.missed, missedValues);
  const options = { cron, to: destinationOf(to, args), payload, timezone, missed, ...messageOptionsOf(args) };
  await withCommandDatabase(url, (database) => schedule(sqlClientOf(database, "add the schedule"), name, options), {
    anyLogin: true,
  });
  await printOutcomes([{ name, outcome: "added" }], json, () => `Added the schedule "${printable(name)}".`);
}

async function run(url: string | undefined, name: string | undefined, json: boolean): Promise<void> {
  if (name === undefined) throw refusal("schedules", "run", "name the schedule, such as `run nightly`");
  const id = await withCommandDatabase(url, (database) => runSchedule(database, name));
  if (id === undefined) throw missing(name);
  await printOutcomes([{ name, outcome: "enqueued", id }], json, () => `Enqueued message ${id}.`);
}

async function remove(url: string | undefined, name: string | undefined, json: boolean): Promise<void> {
  if (name === undefined)
    throw new HawserError("invalid_argument", "name the schedule: `hawser schedules remove NAME`");
  const removed = await withCommandDatabase(url, (database) => removeSchedule(database, name));
  if (!removed) throw missing(name);
  await printOutcomes([{ name, outcome: "removed" }], json, () => `Removed the schedule "${printable(name)}".`);
}

function missing(name: string): HawserError {
  return new HawserError(
    "invalid_argument",
    `neither this login nor a role that it is a member of has a schedule "${printable(name)}". See \`hawser schedules\`.`,
  );
}
