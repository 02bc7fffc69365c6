/** Leader and stream subscriptions of `hawser serve`, for operators. */
import { type StreamStatusRow, views } from "../../../generated/ts/rows/nats.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { type Listing, listed } from "./listing.js";

/** Row of `hawser.bridge_lead`: the process that runs the subscribed functions. */
export interface LeaderOverview {
  /** Identifier of the leading process, which its log names; null if none leads. */
  readonly owner: string | null;
  readonly epoch: bigint;
  /** Changes with each heartbeat of the leader. */
  readonly beat: bigint;
  /** Time of the last progress; null if it has made none. */
  readonly progressAt: Date | null;
  /** Time since which it handles the messages of all subscriptions; null if it does not. */
  readonly completeSince: Date | null;
  /** Time at which the first TLS certificate of a running gateway ends; null if none has one. */
  readonly certificateEndsAt: Date | null;
}

/** Reads which process leads. @throws HawserError as {@link Database.query} */
export async function readLeader(database: Database): Promise<LeaderOverview | undefined> {
  const text = `
    SELECT l.owner, l.epoch, l.beat, l.progress_at AS "progressAt", l.complete_since AS "completeSince",
           w.certificate_ends_at AS "certificateEndsAt"
      FROM ${views.bridgeLead} AS l CROSS JOIN ${views.bridgeWork} AS w`;
  return (await database.query<LeaderOverview>("read which process leads", { text }))[0];
}

/**
 * Lists the stream subscriptions: those that have stopped first, then those with missing messages, then by name.
 *
 * @throws HawserError as {@link Database.query}
 */
export function listStreamSubscriptions(database: Database, listing: Listing = {}): Promise<StreamStatusRow[]> {
  const rows = `SELECT s.* FROM ${views.streamStatus} AS s`;
  const names = ["l.name", "l.stream", "l.function"];
  const order = 'l.problem IS NULL, l.paused DESC, l.missing_at NULLS LAST, l.name COLLATE "C"';
  const sorts = { name: 'l.name COLLATE "C"', behind: "l.lag", missing: "l.missing", written: "l.written_at" };
  return listed(database, "list the stream subscriptions", { rows, names, order, sorts }, listing);
}
