/** `hawser schedules`: lists recurring messages with their last and next run, and removes schedules. */

import { schedulesTable } from "../console/index.js";
import { HawserError } from "../errors/index.js";
import { listSchedules, removeSchedule, withCommandDatabase } from "../operate/index.js";
import { actionOf, defineCommand, flag, optional, refusal } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printable, printOutcomes, printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";

const actions = ["list", "remove"] as const;

export const command = defineCommand({
  details: "`remove NAME` ends one; its enqueued messages stay",
  args: {
    action: optional("Default: list", { valueHint: actions.join("|") }),
    name: optional("The schedule to remove", { valueHint: "NAME" }),
    ...databaseOption,
    json: flag("Print each schedule as one line of JSON"),
  },
  run: async (args) => {
    const { name, json = false } = args;
    const action = actionOf("schedules", args.action ?? "list", actions);
    const url = databaseUrlOf(args);
    if (action === "remove") await remove(url, name, json);
    else if (name === undefined) await list(url, json);
    else throw refusal("schedules", action, `it lists all schedules, and takes no name: "${name}"`);
  },
  examples: [
    ["hawser schedules", "Schedules with their next run"],
    ["hawser schedules remove nightly", "End a schedule"],
    ["hawser schedules --json | jq 'select(.problem)'", "Schedules that do not run, with the reason"],
  ],
});

async function list(url: string | undefined, json: boolean): Promise<void> {
  const rows = await withCommandDatabase(url, listSchedules);
  await printRows(rows, overviewRows(schedulesTable, json));
}

async function remove(url: string | undefined, name: string | undefined, json: boolean): Promise<void> {
  if (name === undefined)
    throw new HawserError("invalid_argument", "name the schedule: `hawser schedules remove NAME`");
  const removed = await withCommandDatabase(url, (database) => removeSchedule(database, name));
  if (!removed)
    throw new HawserError(
      "invalid_argument",
      `neither this login nor a role that it is a member of has a schedule "${printable(name)}". See \`hawser schedules\`.`,
    );
  await printOutcomes([{ name, outcome: "removed" }], json, () => `Removed the schedule "${printable(name)}".`);
}
