/** First messages of a topic, and a message with its payload, for operators. */
import { type FirstJobsResult, jobsFunctions } from "../../../generated/ts/rows/queue.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Messages of a topic that are not handled, the first ones of both orders. */
export interface FirstJobs {
  /** By age, also those that run or wait for their key. */
  readonly oldest: readonly FirstJobsResult[];
  /** Messages that a worker may take at once, in the order in which it takes them. */
  readonly next: readonly FirstJobsResult[];
}

/** Reads the first 10 messages of a topic in both orders, of roles of the login. @throws HawserError as {@link Database.query} */
export async function firstJobs(database: Database, topic: string): Promise<FirstJobs> {
  const read = (isReady: boolean) =>
    jobsFunctions(database.caller("list the first messages")).firstJobs({ ofTopic: topic, isReady, maxRows: null });
  const [oldest, next] = await Promise.all([read(false), read(true)]);
  return { oldest, next };
}

/** Message for a topic, with its payload. */
export interface JobMessage {
  readonly id: string;
  readonly topic: string;
  readonly key: string | undefined;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Undefined once it has ended. */
  readonly payload: Uint8Array | undefined;
  /** False: it is for a certain listener, a group or all. */
  readonly isForAny: boolean;
}

/** Reads a message of a role of the login; undefined if there is none. @throws HawserError as {@link Database.query} */
export async function jobMessage(database: Database, id: string): Promise<JobMessage | undefined> {
  const functions = jobsFunctions(database.caller(`read message ${id}`));
  const { topic, key, headers, payload, isForAny } = await functions.jobMessage({ id: BigInt(id) });
  if (topic === null) return undefined;
  const pairs = (headers ?? []) as JobMessage["headers"];
  return {
    id,
    topic,
    key: key ?? undefined,
    headers: pairs,
    payload: payload ?? undefined,
    isForAny: isForAny === true,
  };
}
