/** Listing and ending schedules, for operators. */
import { schedulerFunctions, views } from "../../../generated/ts/rows/queue.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { type Listing, listed } from "./listing.js";

/** Row of `hawser.schedule_status`. */
export interface ScheduleOverview {
  readonly name: string;
  readonly role: string;
  readonly kind: "nats" | "peer";
  readonly destination: string;
  readonly cron: string;
  readonly timezone: string;
  readonly missed: "one" | "all" | "none";
  readonly nextAt: Date | null;
  readonly lastAt: Date | null;
  readonly problem: string | null;
  readonly priority: number;
}

/**
 * Lists the schedules: those that do not run first, then by their next occurrence.
 *
 * @throws HawserError as {@link Database.query}
 */
export function listSchedules(database: Database, listing: Listing = {}): Promise<ScheduleOverview[]> {
  const rows = `SELECT s.name, s.role, s.kind, s.destination, s.cron, s.timezone, s.missed, s.next_at AS "nextAt",
                       s.last_at AS "lastAt", s.problem, s.priority
                  FROM ${views.scheduleStatus} AS s`;
  const names = ["l.name", "l.role", "l.destination"];
  const order = 'l.problem IS NULL, l."nextAt", l.name COLLATE "C", l.role COLLATE "C"';
  const sorts = { name: 'l.name COLLATE "C"', last: 'l."lastAt"', next: 'l."nextAt"' };
  return listed(database, "list the schedules", { rows, names, order, sorts }, listing);
}

/**
 * Ends a schedule.
 *
 * @returns false if the login owns no schedule of this name
 * @throws HawserError as {@link Database.query}
 */
export async function removeSchedule(database: Database, name: string): Promise<boolean> {
  return (await schedulerFunctions(database.caller(`end the schedule "${name}"`)).unschedule({ name })).ended;
}

/**
 * Enqueues a message of a schedule now. Its next occurrence stays.
 *
 * @param role whose schedule it is; default: the login's, or if it has none, that of a role of which it is a member
 * @returns id of the message; undefined if there is no such schedule
 * @throws HawserError `invalid_argument` for one that is due or has a problem; as {@link Database.query}
 */
export async function runSchedule(database: Database, name: string, role?: string): Promise<string | undefined> {
  const functions = schedulerFunctions(database.caller(`run the schedule "${name}"`));
  return (await functions.runSchedule({ name, ofRole: role ?? null })).id?.toString();
}

/** Time after its due time from which a schedule counts as late, in ms. */
const lateMs = 15_000;

/** Schedule that does not run. */
export interface StuckSchedule {
  readonly name: string;
  readonly role: string;
  /** Why it does not run; null if it is late. */
  readonly problem: string | null;
  /** Null with a problem. */
  readonly lateSeconds: number | null;
}

/**
 * Reads the schedules that are late or have a problem, by name and role.
 *
 * @param limit maximum number
 * @throws the error of `query`
 */
export function stuckSchedules(
  query: (text: string, values: readonly unknown[]) => Promise<readonly object[]>,
  limit: number,
): Promise<readonly StuckSchedule[]> {
  const text = `
    SELECT s.name, s.role, s.problem, extract(epoch FROM clock_timestamp() - s.next_at)::float8 AS "lateSeconds"
      FROM ${views.scheduleStatus} AS s
     WHERE s.problem IS NOT NULL OR s.next_at < clock_timestamp() - $1 * interval '1 ms'
     ORDER BY s.name, s.role LIMIT $2`;
  return query(text, [lateMs, limit]) as Promise<StuckSchedule[]>;
}
