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
