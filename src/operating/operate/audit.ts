/** Acts of operators, as the SQL functions that do them have recorded: who has done what, and when. */
import { views } from "../../../generated/ts/rows/peer.js";
import { columnChecks } from "../../../generated/ts/rules/peer/audit.js";
import { HawserError, refuse } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Recorded act. */
export interface Act {
  readonly id: number;
  readonly at: Date;
  readonly login: string;
  /** Role that was set: the login, or another one by SET ROLE. */
  readonly role: string;
  /** `application_name` of the session, which the session chooses; null if it has none. */
  readonly application: string | null;
  /** Verb, such as `retry` or `pause`. */
  readonly action: string;
  /** Topic, subject, schedule, stream subscription or peer; null for messages of more than one topic, and for the database. */
  readonly object: string | null;
  /** Number of messages, or of records; null if it is not about messages. */
  readonly count: number | null;
  /** Such as ids; null if there is nothing more, or if the login may not read messages. */
  readonly details: Readonly<Record<string, unknown>> | null;
}

/** Filter of acts. All given criteria must match. */
export interface ActFilter {
  /** Topic, subject, schedule, stream subscription or peer. */
  readonly object?: string | undefined;
  readonly action?: string | undefined;
  readonly login?: string | undefined;
  /** Only acts at or after this time. */
  readonly since?: Date | undefined;
  /** Only acts with a lower id. */
  readonly beforeId?: number | undefined;
  /** Maximum number, the newest. Default: no limit. */
  readonly limit?: number | undefined;
}

const sql = `
  SELECT a.id::float8 AS id, a.at, a.login, a.role, a.application, a.action, a.object, a.count::float8 AS count, a.details
    FROM ${views.auditLog} AS a
   WHERE ($1::text IS NULL OR a.object = $1 OR a.details -> 'topics' ? $1) AND ($2::text IS NULL OR a.action = $2)
     AND ($3::text IS NULL OR a.login = $3) AND ($4::timestamptz IS NULL OR a.at >= $4) AND ($5::bigint IS NULL OR a.id < $5)
   ORDER BY a.id DESC LIMIT $6::bigint`;

/**
 * Lists acts, the newest first.
 *
 * @throws HawserError `invalid_argument` for an action that is never recorded; as {@link Database.query}
 */
export async function listActs(database: Pick<Database, "query">, filter: ActFilter = {}): Promise<Act[]> {
  const { object, action, login, since, beforeId, limit } = filter;
  if (action !== undefined) refuse(columnChecks.audit_records.action(action));
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 1))
    throw new HawserError("invalid_argument", `limit ${limit}: must be a positive integer`);
  const values = [object, action, login, since?.toISOString(), beforeId, limit].map((value) => value ?? null);
  return await database.query<Act>("list what operators have done", { text: sql, values });
}
