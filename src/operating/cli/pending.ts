/** `hawser pending`: lists messages that are stored and not handled yet. */

import { pendingTable } from "../console/index.js";
import { listPending, withCommandDatabase } from "../operate/index.js";
import { defineCommand, flag, option } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printRows } from "./output.js";
import { overviewRows } from "./overview-rows.js";

/** Number of rows that are counted with --exact. */
const exactRows = 10_000_000;

export const command = defineCommand({
  details:
    "`hawser jobs` lists jobs that are due later or held, `hawser outbox status` counts the messages that wait for NATS",
  args: {
    ...databaseOption,
    name: option("NAME", "Only messages for the listener NAME"),
    topic: option("TOPIC", "Only messages sent to TOPIC"),
    exact: flag("Count all messages, which takes seconds for millions of them"),
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const maxRows = args.exact ? exactRows : undefined;
    const filter = { listener: args.name, topic: args.topic, maxRows };
    const rows = await withCommandDatabase(databaseUrlOf(args), (database) => listPending(database, filter), {
      anyLogin: true,
    });
    await printRows(rows, overviewRows(pendingTable, args.json ?? false));
  },
  examples: [
    ["hawser pending", "All waiting messages"],
    [
      "hawser pending --name billing-1 --exact --json | jq -s 'map(.count) | add'",
      "Number of messages waiting for one listener",
    ],
  ],
});
