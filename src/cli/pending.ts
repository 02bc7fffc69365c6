/** `hawser pending`: lists messages that are stored and not handled yet. */
import { defineCommand } from "citty";
import { listPending, outboxSender, withCommandDatabase } from "../store/index.js";
import { withExamples } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printRows } from "./output.js";

export const pending = withExamples(
  defineCommand({
    meta: {
      name: "pending",
      description: "List the stored messages that wait for a listener, by listener, topic and sender",
    },
    args: {
      ...databaseOption,
      name: { type: "string", valueHint: "NAME", description: "Only messages for the listener NAME" },
      topic: { type: "string", valueHint: "TOPIC", description: "Only messages sent to TOPIC" },
      json: { type: "boolean", description: "Print each line as JSON" },
    },
    run: async ({ args }) => {
      const filter = { listener: args.name, topic: args.topic };
      const rows = await withCommandDatabase(databaseUrlOf(args), (database) => listPending(database, filter));
      await printRows(rows, {
        json: args.json ?? false,
        none: "Nothing waits.",
        columns: [
          {
            head: "LISTENER",
            cell: ({ listener, group, topic }) =>
              listener ?? (group === null ? `one of the listeners of ${topic}` : `a member of the group ${group}`),
          },
          { head: "TOPIC", cell: ({ topic }) => topic },
          { head: "SENDER", cell: ({ sender }) => (sender === outboxSender ? "enqueued" : sender) },
          { head: "FROM", cell: ({ sender, from }) => (sender === outboxSender ? "" : from) },
          { head: "MESSAGES", cell: ({ count }) => count },
          { head: "BYTES", cell: ({ bytes }) => bytes },
          { head: "OLDEST", cell: ({ oldest }) => oldest.toISOString() },
        ],
      });
    },
  }),
  [
    ["hawser pending", "All waiting messages"],
    [
      "hawser pending --name billing-1 --json | jq -s 'map(.count) | add'",
      "Number of messages waiting for one listener",
    ],
  ],
);
