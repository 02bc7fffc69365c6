/** Schedules: messages that are enqueued at the times of a cron expression, by whichever process looks first. */
import { scheduleFunctions, schedulerFunctions } from "../../../../generated/ts/rows/queue.js";
import { namedRules } from "../../../../generated/ts/rules/named.js";
import { checkBytes, checkText } from "../../../../generated/ts/rules/violation.js";
import { scheduleConstants } from "../../../../generated/ts/settings/queue.js";
import { HawserError, refuse } from "../../../foundation/errors/index.js";
import type { SqlClient } from "../../../foundation/sql-clients/index.js";
import { loadingFor } from "../protobuf.js";
import { address } from "./destination.js";
import { callerOf } from "./enqueue.js";
import { checkKnownOptions, type ScheduleOptions } from "./enqueue-options.js";
import type { Destination, NatsSubject } from "./topic-types.js";

const ownHeaders: readonly string[] = [scheduleConstants.nameHeader, scheduleConstants.timeHeader];

/**
 * Creates or updates the schedule of this name for the client's role, in the current transaction of the client. An
 * unchanged schedule continues; a new `cron` or `timezone` restarts it with the first occurrence after now. Handlers
 * get the time of the occurrence in the header `schedule-time`, and the name in `schedule-name`.
 *
 * @param name name of the schedule, unique per database role
 * @throws HawserError (as a rejection) `invalid_argument`, `internal_topic`, `invalid_schema`, all before a statement
 * is sent to Postgres; `schema_missing` if the database has no schedules; errors of Postgres
 */
export async function schedule<To extends Destination | NatsSubject, Given>(
  client: SqlClient,
  name: string,
  options: ScheduleOptions<To, Given>,
): Promise<void> {
  checkKnownOptions(options, "a schedule");
  const { cron, to, timezone = "UTC", missed = "one", payload = {}, ...given } = options;
  refuse(checkText("name", namedRules.scheduleName, name));
  // Loaded when used: most programs that enqueue have no schedules.
  const { checkTimes } = await import("../schedules/index.js");
  refuse(checkTimes(cron, timezone, new Date()));
  refuse(checkText("missed", namedRules.scheduleMissed, missed));
  await loadingFor(to);
  const { destination, payload: bytes, headers, key, priority } = address(to, payload, given);
  refuse(checkBytes("payload", namedRules.schedulePayload, bytes));
  refuseOwnHeaders(headers);
  const functions = scheduleFunctions(callerOf(client));
  const common = { name, cron, payload: bytes, timezone, missed, headers, key };
  if (destination.sink === "nats") await functions.scheduleSubject({ ...common, ...destination });
  else await functions.schedule({ ...common, topic: destination.topic, toAll: given.all ?? false, priority });
}

/**
 * Deletes the schedule of this name that belongs to the client's role. If the role has none, deletes the schedules of
 * this name that belong to the roles of which it is a member. Messages that are already enqueued stay.
 *
 * @returns false if there is no schedule of this name
 * @throws HawserError (as a rejection) `invalid_argument`; `schema_missing` if the database has no schedules; errors of
 * Postgres
 */
export async function unschedule(client: SqlClient, name: string): Promise<boolean> {
  refuse(checkText("name", namedRules.scheduleName, name));
  return (await schedulerFunctions(callerOf(client)).unschedule({ name })).ended;
}

function refuseOwnHeaders(headers: string | null): void {
  if (headers === null) return;
  const own = Object.keys(JSON.parse(headers)).find((name) => ownHeaders.includes(name.toLowerCase()));
  if (own === undefined) return;
  throw new HawserError("invalid_argument", `header ${own}: is set by Hawser; leave it out`);
}
