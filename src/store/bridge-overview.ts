/** Leader and stream subscriptions of `hawser serve`, for operators. */
import { type StreamStatusRow, views } from "../../generated/ts/rows/nats.js";
import type { Database } from "./database.js";

/** Row of `hawser.bridge_lead`: the process that runs the subscribed functions. */
export interface LeaderOverview {
  /** Identifier of the leading process, which its log names; null if none leads. */
  readonly owner: string | null;
  readonly epoch: bigint;
  /** Time of the last progress; null if it has made none. */
  readonly progressAt: Date | null;
  /** Time since which it handles the messages of all subscriptions; null if it does not. */
  readonly completeSince: Date | null;
}

/** Reads which process leads. @throws HawserError as {@link Database.query} */
export async function readLeader(database: Database): Promise<LeaderOverview | undefined> {
  const text = `SELECT l.owner, l.epoch, l.progress_at AS "progressAt", l.complete_since AS "completeSince" FROM ${views.bridgeLead} AS l`;
  return (await database.query<LeaderOverview>("read which process leads", { text }))[0];
}

/** Lists the stream subscriptions by name. @throws HawserError as {@link Database.query} */
export function listStreamSubscriptions(database: Database): Promise<StreamStatusRow[]> {
  return database.query<StreamStatusRow>("list the stream subscriptions", {
    text: `SELECT s.* FROM ${views.streamStatus} AS s ORDER BY s.name`,
  });
}
