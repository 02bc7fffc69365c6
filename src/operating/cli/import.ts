/** `hawser jobs import`: moves the jobs that wait in another job queue of the same database. */
import { HawserError, plural } from "../../foundation/errors/index.js";
import { type ImportedQueue, importJobs, importSources } from "../operate/index.js";
import { type Arguments, actionOf, flag, type Given, option } from "./command-line.js";
import { print, printable, printRows } from "./output.js";

/** Flags of the import. */
export const importOptions = {
  schema: option("NAME", "With import: the schema of the other queue. Default: pgboss, graphile_worker"),
  queue: option("NAME", "With import: only the jobs of this queue or task; may be repeated", { multiple: true }),
  to: option("QUEUE=TOPIC", "With import: another topic for the jobs of a queue or task; may be repeated", {
    multiple: true,
  }),
  owner: option(
    "ROLE",
    "With import: owner of the tables, if it is not the login, and you trust it with the login's rights",
  ),
  move: flag("With import: move the jobs, in one transaction"),
} as const satisfies Arguments;

/** Counts or moves the jobs, and prints their number by queue. @throws HawserError `invalid_argument`; as {@link importJobs} */
export async function importFrom(
  url: string | undefined,
  from: string,
  args: Given<typeof importOptions> & { readonly json?: boolean | undefined },
): Promise<void> {
  const source = actionOf("jobs import", from, importSources);
  const { schema, queue: queues, owner, move = false, json = false } = args;
  const topics = new Map((args.to ?? []).map(topicOf));
  const counted = await importJobs(url, source, { schema, queues, topics, move, owner });
  await printRows(counted, {
    json,
    none: "There are no jobs.",
    columns: [
      { head: "QUEUE", cell: (row) => row.queue },
      { head: "TOPIC", cell: (row) => row.topic },
      { head: move ? "MOVED" : "WAITING", cell: ({ waiting, refused }) => (move ? waiting - refused : waiting) },
      { head: "DUE LATER", cell: ({ later }) => later },
      { head: "RUNNING", cell: ({ running }) => running },
      { head: "FAILED", cell: ({ failed }) => failed },
      { head: "HELD", cell: ({ held }) => held },
      { head: "REFUSED", cell: ({ refused }) => refused },
    ],
  });
  if (!json) printRest(counted);
  if (counted.some(({ refused }) => refused > 0)) process.exitCode = 1;
  if (!move && !json) print(process.stderr, "Nothing was changed; --move moves the jobs that wait.");
}

/** Number of lines about jobs that stay. */
const shownRefusals = 20;

/** Says what stays and is to be looked after: jobs of which no message can be made, and schedules. */
function printRest(counted: readonly ImportedQueue[]): void {
  const refusals = counted.flatMap(({ queue, refusals: some }) => some.map((each) => ({ queue, ...each })));
  for (const { queue, id, reason } of refusals.slice(0, shownRefusals)) {
    const which = id === undefined ? "all jobs" : `job ${printable(id)}`;
    print(process.stderr, `${which} of "${printable(queue)}" cannot be moved: ${printable(reason)}`);
  }
  const refused = counted.reduce((sum, each) => sum + each.refused, 0);
  if (refused > 0)
    print(process.stderr, `${plural(refused, "job")} cannot be moved, and ${refused === 1 ? "stays" : "stay"}.`);
  const schedules = counted.reduce((sum, each) => sum + each.schedules, 0);
  if (schedules > 0)
    print(
      process.stderr,
      `${plural(schedules, "schedule")} ${schedules === 1 ? "is" : "are"} not taken over: call hawser.schedule for each.`,
    );
}

/** Queue and topic of a value of `--to`. @throws HawserError `invalid_argument` */
function topicOf(text: string): [queue: string, topic: string] {
  const at = text.lastIndexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new HawserError("invalid_argument", `--to ${text}: must be QUEUE=TOPIC`);
}
