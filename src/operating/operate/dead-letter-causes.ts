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

/** Texts that all error messages of a cause have: what they start with, and the longest one behind a number. Undefined: not known. */
export function messageParts(cause: string): {
  readonly start: string | undefined;
  readonly within: string | undefined;
} {
  const [start, ...others] = cause === noMessage ? [] : cause.split("#");
  const [within] = others.toSorted((one, other) => other.length - one.length);
  return { start: start || undefined, within: within || undefined };
}

/** Age up to which dead letters are news. */
export const newsMs = 3_600_000;

/** Where a dead letter comes from. */
export type DeadLetterOrigin = "subscription" | "outbox" | "queue";

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

/** SQL expression for an order: those with a time within the last `newsMs` first, if the parameter is true. */
const newsFirst = (parameter: string, at: string): string =>
  `(${parameter}::boolean AND ${at} > clock_timestamp() - interval '${newsMs} ms') DESC`;

/** Statement of {@link deadLetterCauses}: the id to begin below, the number of rows, the number of causes, the only topic, and whether news come first. */
export const deadLetterCausesSql = `
  WITH newest AS MATERIALIZED (
    SELECT d.id, d.origin, d.source, d.topic, d.error_code, left(d.error_message, 200) AS error_message, d.created_at
      FROM ${views.deadLetter} AS d
     WHERE $1::bigint IS NULL OR d.id < $1
     ORDER BY d.id DESC LIMIT $2
  )
  SELECT d.origin, CASE WHEN d.origin = 'subscription' THEN d.source END AS function, d.topic, d.error_code AS "errorCode",
         ${causeSql} AS cause, count(*)::integer AS count,
         min(d.created_at) AS "oldestAt",
         max(d.created_at) AS "newestAt", (SELECT count(*)::integer FROM newest) AS examined,
         (SELECT min(a.id)::text FROM newest AS a) AS "lowestId"
    FROM newest AS d
   WHERE $4::text IS NULL OR d.topic = $4
   GROUP BY 1, 2, 3, 4, 5
   ORDER BY ${newsFirst("$5", "max(d.created_at)")}, min(d.id) DESC
   LIMIT $3`;

/** Statement of {@link deadLetterCauses} for a login that may not read dead letters. */
const countsSql = `
  SELECT d.origin, d.function, d.topic, d.error_code AS "errorCode", '' AS cause, d.messages::integer AS count,
         d.oldest_at AS "oldestAt", d.newest_at AS "newestAt"
    FROM hawser.dead_letter_counts($1) AS d WHERE $3::text IS NULL OR d.topic = $3
   ORDER BY ${newsFirst("$4", "d.newest_at")}, d.oldest_at DESC, d.messages DESC LIMIT $2`;

/**
 * Groups the newest dead letters by cause. It reads at most `examine` rows by the primary key, so that its time does not
 * depend on the size of the table. For a login that may not read dead letters, those with one error code are together, and
 * none is older than the newest `examine`.
 *
 * @param options.beforeId examines only dead letters with a lower id
 * @param options.topic only causes of this topic or subject, among the examined ones
 * @param options.newsFirst true if causes that have occurred in the last `newsMs` come before others
 * @throws HawserError as {@link Database.query}
 */
export async function deadLetterCauses(
  database: Database,
  options: {
    readonly examine: number;
    readonly causes: number;
    readonly beforeId?: string | undefined;
    readonly topic?: string | undefined;
    readonly newsFirst?: boolean | undefined;
  },
): Promise<DeadLetterCauses> {
  const { examine, causes: limit, beforeId = null, topic = null, newsFirst: isNewsFirst = false } = options;
  const action = "group the dead letters by cause";
  let rows: (DeadLetterCause & { readonly examined: number; readonly lowestId: string })[];
  try {
    rows = await database.query(action, {
      text: deadLetterCausesSql,
      values: [beforeId, examine, limit, topic, isNewsFirst],
    });
  } catch (error) {
    if (!lacksPrivilege(error)) throw error;
    const causes = await database.query<DeadLetterCause>(action, {
      text: countsSql,
      values: [examine, limit, topic, isNewsFirst],
    });
    return { causes, examined: causes.reduce((sum, { count }) => sum + count, 0), olderThanId: undefined };
  }
  const [first] = rows;
  const causes = rows.map(({ examined: _, lowestId: __, ...cause }) => cause);
  if (first === undefined) return { causes, examined: 0, olderThanId: undefined };
  return { causes, examined: first.examined, olderThanId: first.examined < examine ? undefined : first.lowestId };
}
