/** Why a job waits: the conditions under which a worker takes it, and what holds those that are not met. */
import { type WhyResult, whyFunctions } from "../../../generated/ts/rows/queue.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Job that is asked about: by its id, or the first one of a topic, and of a key, that waits. */
export type AskedJob =
  | { readonly id: bigint; readonly topic?: undefined; readonly key?: undefined }
  | { readonly id?: undefined; readonly topic: string; readonly key?: string | undefined };

/** Condition under which a worker takes a job. */
export type Condition = WhyResult;

/** A session, as the holder of a condition. */
const sessionPattern = /^session (\d+)$/;

/**
 * Conditions under which a worker takes a job, in the order in which they are asked. Only of jobs of the login, and of roles that it
 * is a member of.
 *
 * @throws HawserError as {@link Database.query}; `invalid_argument` if neither an id nor a topic is given
 */
export async function why(database: Database, { id, topic, key }: AskedJob): Promise<Condition[]> {
  const functions = whyFunctions(database.caller("look for what a job waits for"));
  const conditions = await functions.why({ id: id ?? null, topic: topic ?? null, key: key ?? null });
  const pids = conditions.flatMap(
    ({ holder, since }) => (since === null && sessionPattern.exec(holder ?? "")?.[1]) || [],
  );
  if (pids.length === 0) return conditions;
  // The function's owner may not see when the transactions of others began, and the login may.
  const sessions = await database.query<{ holder: string; since: Date | null }>("look for sessions", {
    text: "SELECT 'session ' || a.pid AS holder, a.xact_start AS since FROM pg_stat_activity AS a WHERE a.pid = ANY ($1::integer[])",
    values: [pids],
  });
  const sinceOf = new Map(sessions.map(({ holder, since }) => [holder, since]));
  return conditions.map((one) => ({ ...one, since: one.since ?? sinceOf.get(one.holder ?? "") ?? null }));
}
