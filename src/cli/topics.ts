/** `hawser topics`: lists the directory of listeners. */

import { topicsTable } from "../console/index.js";
import { listTopics, withCommandDatabase } from "../operate/index.js";
import { defineCommand, flag } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";

export const command = defineCommand({
  details:
    "A listener that is not running is in the list because it is durable, because an operator added it, or " +
    "because it crashed",
  args: {
    ...databaseOption,
    json: flag("Print each listener as one line of JSON"),
  },
  run: async (args) => {
    const rows = await withCommandDatabase(databaseUrlOf(args), (database) => listTopics(database), {
      anyLogin: true,
    });
    await printRows(rows, overviewRows(topicsTable, args.json ?? false));
  },
  examples: [
    ["hawser topics", "Who listens, and where"],
    [`hawser topics --json | jq -r 'select(.running | not) | .name'`, "Names of listeners that are not running"],
  ],
});
