/** `hawser import`: moves the jobs that wait in another job queue of the same database. */
import { HawserError } from "../errors/index.js";
import { importJobs, importSources } from "../operate/index.js";
import { actionOf, defineCommand, flag, option, required } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { print, printRows } from "./output.js";

export const command = defineCommand({
  details:
    "Without --move it only counts, and changes nothing. A queue of pg-boss, or a task of graphile-worker, becomes a topic. " +
    "Jobs that run or have failed, and those of flows, stay where they are. The login becomes the role that has enqueued " +
    "the messages: take that of your program. Programs of the other library wait meanwhile",
  args: {
    source: required("The other job queue", { valueHint: importSources.join("|") }),
    ...databaseOption,
    schema: option("NAME", "Its schema. Default: pgboss, graphile_worker"),
    queue: option("NAME", "Only the jobs of this queue or task; may be repeated", { multiple: true }),
    topic: option("QUEUE=TOPIC", "Another topic for the jobs of a queue or task; may be repeated", { multiple: true }),
    move: flag("Move the jobs, in one transaction"),
    json: flag("Print each line as JSON"),
  },
  run: async (args) => {
    const source = actionOf("import", args.source, importSources);
    const { schema, queue: queues, move = false, json = false } = args;
    const topics = new Map((args.topic ?? []).map(topicOf));
    const counted = await importJobs(databaseUrlOf(args), source, { schema, queues, topics, move });
    await printRows(counted, {
      json,
      none: "There are no jobs.",
      columns: [
        { head: "QUEUE", cell: (row) => row.queue },
        { head: "TOPIC", cell: (row) => row.topic },
        { head: move ? "MOVED" : "WAITING", cell: ({ waiting }) => waiting },
        { head: "DUE LATER", cell: ({ later }) => later },
        { head: "RUNNING", cell: ({ running }) => running },
        { head: "FAILED", cell: ({ failed }) => failed },
        { head: "HELD", cell: ({ held }) => held },
      ],
    });
    if (!move && !json) print(process.stderr, "Nothing was changed; --move moves the jobs that wait.");
  },
  examples: [
    ["hawser import pg-boss", "Count what would be moved"],
    ["hawser import pg-boss --queue mail --move", "Move the jobs of one queue"],
    [
      "hawser import graphile-worker --topic user:mail=mail --move",
      "Move all jobs, those of one task to another topic",
    ],
  ],
});

/** Queue and topic of a value of `--topic`. @throws HawserError `invalid_argument` */
function topicOf(text: string): [queue: string, topic: string] {
  const at = text.lastIndexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new HawserError("invalid_argument", `--topic ${text}: must be QUEUE=TOPIC`);
}
