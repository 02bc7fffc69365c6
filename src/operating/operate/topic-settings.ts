/** Settings of topics for all processes, as operators change them: see `topic-settings.ts` in `src/jobs-and-peers/queue/enqueue`. */
import { type PauseTopicResult, queueFunctions } from "../../../generated/ts/rows/queue.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Limits of a topic in all processes. What is left out has no limit. */
export interface TopicLimits {
  /**
   * Number of messages that may start in a second, minute, hour or day, such as `100/s`, `10/m`, `500/h` or `1000/d`. A start
   * is the moment at which Postgres gives the message to a process.
   */
  readonly rate?: string | undefined;
  /**
   * Number of messages that may start at once after a pause in the starts: in any time no more start than this and what the
   * rate allows in that time. 1 to 1,000,000. Default: one more than the rate allows in a second; 1 for one in 50 seconds or slower.
   */
  readonly burst?: number | undefined;
  /** Number of messages that may be handled at a time. 1 to 10,000. */
  readonly running?: number | undefined;
  /** Number of messages of one role with one key that may be handled at a time. 1 to 10,000. */
  readonly runningPerKey?: number | undefined;
  /** Header with the key for `runningPerKey`. Messages without it have no such limit. Default: the key of the message. */
  readonly keyHeader?: string | undefined;
}

/** Limits as one text, such as `100/s, burst 20, 8 running, 1 per tenant`. */
export function limitsText({ rate, burst, running, runningPerKey, keyHeader = "key" }: TopicLimits): string {
  const parts = {
    [`${rate}, burst ${burst}`]: rate,
    [`${running} running`]: running,
    [`${runningPerKey} per ${keyHeader}`]: runningPerKey,
  };
  return Object.entries(parts)
    .flatMap(([text, value]) => (value === undefined ? [] : [text]))
    .join(", ");
}

/** Sets the limits of a topic. @throws HawserError as {@link Database.query}; `invalid_argument` for what is no limit */
export async function limitTopic(database: Database, topic: string, limits: TopicLimits): Promise<void> {
  const { rate = null, burst = null, running = null, runningPerKey = null, keyHeader = null } = limits;
  const functions = queueFunctions(database.caller(`limit the topic "${topic}"`));
  await functions.limitTopic({ topic, rate, burst, running, runningPerKey, keyHeader });
}

/** Has the results of a topic kept. @param keepMs null to keep none @throws HawserError as {@link Database.query} */
export async function keepResults(database: Database, topic: string, keepMs: number | null): Promise<void> {
  await queueFunctions(database.caller(`keep the results of the topic "${topic}"`)).keepResults({ topic, keepMs });
}

/** Pauses a topic. @throws HawserError as {@link Database.query} */
export async function pauseTopic(database: Database, topic: string): Promise<PauseTopicResult> {
  return await queueFunctions(database.caller(`pause the topic "${topic}"`)).pauseTopic({ topic });
}

/** Ends the pause of a topic. @returns false if it was not paused @throws HawserError as {@link Database.query} */
export async function resumeTopic(database: Database, topic: string): Promise<boolean> {
  return (await queueFunctions(database.caller(`resume the topic "${topic}"`)).resumeTopic({ topic })).resumed;
}
