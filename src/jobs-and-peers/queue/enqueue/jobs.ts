/** Lists of messages for topics, by topic, state, key and header: to look at, to count, and to cancel. */
import { jobsFunctions } from "../../../../generated/ts/rows/queue.js";
import { invalidArgument, namesOf, unknownOption } from "../../../foundation/errors/index.js";
import type { SqlClient } from "../../../foundation/sql-clients/index.js";
import { checkedId, checkServable } from "./destination.js";
import { type CancelledJob, type CancelOutcome, callerOf, cancel } from "./enqueue.js";
import { awaitedJobs, type Job, type JobState } from "./job.js";

/** Selection of messages for topics. What is left out selects all. */
export interface JobSelection {
  /** Without a topic, jobs of all topics are read, also those of other roles: slow beside millions. */
  readonly topic?: string | undefined;
  readonly state?: Exclude<JobState, "unknown"> | undefined;
  /** Ordering key, as it was enqueued with. */
  readonly key?: string | undefined;
  /** Name and value of a header. All jobs of the topic are read for it. */
  readonly header?: readonly [name: string, value: string] | undefined;
}

/** Page of a list of {@link jobs}. */
export interface JobsPage extends JobSelection {
  /** {@link ListedJob.place} of the last job of the page before, or its digits. Default: the first page. */
  readonly after?: bigint | string | undefined;
  /** Maximum number of jobs, from 1 to 10,000. Default: 100. */
  readonly limit?: number | undefined;
}

/** Message for a topic in a list. */
export interface ListedJob {
  readonly id: bigint;
  readonly topic: string;
  readonly state: Exclude<JobState, "unknown">;
  readonly key: string | undefined;
  /** Database role that has enqueued it. */
  readonly enqueuedBy: string;
  /** Listener that has the message, or had it last. */
  readonly listener: string | undefined;
  /** Number of attempts that have ended. */
  readonly attempts: number;
  /** When the message was enqueued. One that was due later: when it was due. */
  readonly enqueuedAt: Date;
  /** When the message is due, or tried again. */
  readonly dueAt: Date | undefined;
  readonly endedAt: Date | undefined;
  /** Duration of the attempt that was done, in ms. */
  readonly durationMs: number | undefined;
  /** Of a dead letter, the code of its error. */
  readonly errorCode: string | undefined;
  /** Undefined once it was handled or cancelled. */
  readonly priority: number | undefined;
  /** As {@link Job.waitsFor}. */
  readonly waitsFor: Job["waitsFor"];
  /** Place in the list, for {@link JobsPage.after}. */
  readonly place: bigint;
}

/**
 * Lists messages for topics, those that came last first: what waits, runs, is due later, held or dead, and what was done or cancelled as long
 * as that is kept (`keepMs`, `keepResults`). Needs the roles that enqueued them, and the role `hawser_peer` or a grant.
 *
 * @throws HawserError (as a rejection) `invalid_argument`, `schema_missing`; errors of Postgres
 */
export async function jobs(client: SqlClient, { after, limit, ...selection }: JobsPage = {}): Promise<ListedJob[]> {
  const rows = await jobsFunctions(callerOf(client)).jobs({
    ...argumentsOf(selection),
    ofTopic: selection.topic ?? null,
    ofState: selection.state ?? null,
    after: after === undefined ? null : checkedId("after", after),
    maxRows: limit ?? null,
  });
  return rows.map(({ role, ...row }) => ({
    id: row.id,
    topic: row.topic,
    state: row.state as ListedJob["state"],
    key: row.key ?? undefined,
    enqueuedBy: role,
    listener: row.listener ?? undefined,
    attempts: row.attempts,
    enqueuedAt: row.enqueuedAt,
    dueAt: row.dueAt ?? undefined,
    endedAt: row.endedAt ?? undefined,
    durationMs: row.durationMs === null ? undefined : Number(row.durationMs),
    errorCode: row.errorCode ?? undefined,
    priority: row.priority ?? undefined,
    waitsFor: awaitedJobs(row.waitsFor),
    place: row.place,
  }));
}

/**
 * Counts messages of a topic by their states, as {@link jobs} lists them. All of them are read.
 *
 * @returns number of messages by state, of the states that some are in; with `state`, of that one
 * @throws as {@link jobs}
 */
export async function countJobs(
  client: SqlClient,
  selection: JobSelection & { readonly topic: string },
): Promise<Partial<Record<ListedJob["state"], number>>> {
  checkServable(selection.topic);
  const rows = await jobsFunctions(callerOf(client)).countJobs({ ...argumentsOf(selection), ofTopic: selection.topic });
  const counts = rows.map(({ state, count }) => [state, Number(count)] as const);
  return Object.fromEntries(counts.filter(([state]) => selection.state === undefined || state === selection.state));
}

/** Jobs that one statement lists before they are cancelled. */
const cancelledAtOnce = 1_000;

/**
 * Cancels the messages of a topic that {@link jobs} lists and that have not ended, in the current transaction of the client, as {@link cancel}.
 *
 * @returns the messages that it has cancelled, those that came last first
 * @throws as {@link jobs}; `invalid_argument` for a state of messages that have ended
 */
export async function cancelJobs(
  client: SqlClient,
  selection: JobSelection & { readonly topic: string },
): Promise<CancelledJob[]> {
  checkServable(selection.topic);
  const { state } = selection;
  if (state === "dead" || state === "done" || state === "cancelled")
    throw invalidArgument(`state "${state}": jobs that have ended cannot be cancelled; name another state, or none`);
  const cancelled: CancelledJob[] = [];
  for (let after: bigint | undefined; ; ) {
    const page = await jobs(client, { ...selection, after, limit: cancelledAtOnce });
    for (const job of page) {
      if (job.endedAt !== undefined) continue;
      const outcome: CancelOutcome = await cancel(client, job.id);
      if (outcome !== "not_waiting") cancelled.push({ id: job.id, outcome });
    }
    if (page.length < cancelledAtOnce) return cancelled;
    after = page.at(-1)!.place;
  }
}

const selectionNames = namesOf<JobSelection>({ topic: true, state: true, key: true, header: true });

/** Arguments of a selection that all functions have. @throws HawserError `invalid_argument` */
function argumentsOf(selection: JobSelection) {
  const problem = unknownOption(selection, "a list of jobs", selectionNames);
  if (problem !== undefined) throw invalidArgument(problem);
  const { topic, key = null, header } = selection;
  if (topic !== undefined) checkServable(topic);
  return { ofKey: key, headerName: header?.[0] ?? null, headerValue: header?.[1] ?? null };
}
