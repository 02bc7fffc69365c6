/** Dead letters grouped by cause: what they have in common, apart from the numbers in their error messages. */
import { views } from "../../../generated/ts/rows/peer.js";
import { lacksPrivilege } from "../../foundation/postgres/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

const noMessage = "(no message)";

/**
 * SQL expression over `dead_letters AS d`: first line of the first 200 characters of the error message, with `#` for each
 * UUID and each number, so that messages that differ only by ids and amounts are equal. An empty message has a text, too,
 * so that a filter can name its cause.
 */
export const causeSql = `coalesce(nullif(regexp_replace(rtrim(split_part(left(d.error_message, 200), E'\\n', 1), E'\\r'), '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]+', '#', 'g'), ''), '${noMessage}')`;

/** Text with which all error messages of a cause start; undefined if it is not known. */
export function messageStart(cause: string): string | undefined {
  return cause === noMessage ? undefined : cause.split("#", 1)[0] || undefined;
}

/** Where a dead letter comes from. */
export type DeadLetterOrigin = "peer" | "subscription" | "outbox" | "queue";

/** Dead letters of one cause, among those that were examined. */
export interface DeadLetterCause {
  readonly origin: DeadLetterOrigin;
  /** Subscribed function; null for other origins. */
  readonly function: string | null;
  /** Topic or subject. */
  readonly topic: string;
  readonly errorCode: string;
  /** Error message as {@link causeSql} shortens it; empty for a login that may not read dead letters. */
  readonly cause: string;
  readonly count: number;
  /** Number that the leader will handle again. */
  readonly retryRequested: number;
  /** Time of the oldest and the newest of them. */
  readonly oldestAt: Date;
  readonly newestAt: Date;
}

/** Result of {@link deadLetterCauses}. */
export interface DeadLetterCauses {
  /** The cause that occurred first most recently comes first: what is new says what has changed. */
  readonly causes: readonly DeadLetterCause[];
  /** Number of examined dead letters. */
  readonly examined: number;
  /** Lowest examined id if there are older dead letters, to go on from; undefined otherwise. */
  readonly olderThanId: string | undefined;
}

/** Statement of {@link deadLetterCauses}: the id to begin below, the number of rows, the number of causes. */
export const deadLetterCausesSql = `
  WITH newest AS MATERIALIZED (
    SELECT d.id, d.origin, CASE WHEN d.origin = 'subscription' THEN d.source END AS function, d.topic, d.error_code,
           ${causeSql} AS cause, d.created_at, d.retry_requested
      FROM ${views.deadLetter} AS d
     WHERE $1::bigint IS NULL OR d.id < $1
     ORDER BY d.id DESC LIMIT $2
  )
  SELECT n.origin, n.function, n.topic, n.error_code AS "errorCode", n.cause, count(*)::integer AS count,
         (count(*) FILTER (WHERE n.retry_requested))::integer AS "retryRequested", min(n.created_at) AS "oldestAt",
         max(n.created_at) AS "newestAt", (SELECT count(*)::integer FROM newest) AS examined,
         (SELECT min(a.id)::text FROM newest AS a) AS "lowestId"
    FROM newest AS n
   GROUP BY n.origin, n.function, n.topic, n.error_code, n.cause
   ORDER BY min(n.id) DESC
   LIMIT $3`;

/** Statement of {@link deadLetterCauses} for a login that may not read dead letters. */
const countsSql = `
  SELECT d.origin, d.function, d.topic, d.error_code AS "errorCode", '' AS cause, d.messages::integer AS count,
         d.retry_requested::integer AS "retryRequested", d.oldest_at AS "oldestAt", d.newest_at AS "newestAt"
    FROM hawser.dead_letter_counts($1) AS d ORDER BY d.oldest_at DESC, d.messages DESC LIMIT $2`;

/**
 * Groups the newest dead letters by cause. It reads at most `examine` rows by the primary key, so that its time does not
 * depend on the size of the table. For a login that may not read dead letters, those with one error code are together, and
 * none is older than the newest `examine`.
 *
 * @param options.beforeId examines only dead letters with a lower id
 * @throws HawserError as {@link Database.query}
 */
export async function deadLetterCauses(
  database: Database,
  options: { readonly examine: number; readonly causes: number; readonly beforeId?: string | undefined },
): Promise<DeadLetterCauses> {
  const { examine, causes: limit, beforeId = null } = options;
  const action = "group the dead letters by cause";
  let rows: (DeadLetterCause & { readonly examined: number; readonly lowestId: string })[];
  try {
    rows = await database.query(action, { text: deadLetterCausesSql, values: [beforeId, examine, limit] });
  } catch (error) {
    if (!lacksPrivilege(error)) throw error;
    const causes = await database.query<DeadLetterCause>(action, { text: countsSql, values: [examine, limit] });
    return { causes, examined: causes.reduce((sum, { count }) => sum + count, 0), olderThanId: undefined };
  }
  const [first] = rows;
  const causes = rows.map(({ examined: _, lowestId: __, ...cause }) => cause);
  if (first === undefined) return { causes, examined: 0, olderThanId: undefined };
  return { causes, examined: first.examined, olderThanId: first.examined < examine ? undefined : first.lowestId };
}
