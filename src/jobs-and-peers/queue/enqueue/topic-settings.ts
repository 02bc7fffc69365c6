/** Settings of topics that operators change while peers run. They hold in all processes. */
import { queueFunctions } from "../../../../generated/ts/rows/queue.js";
import { columnChecks } from "../../../../generated/ts/rules/queue/queue.js";
import { refuse } from "../../../foundation/errors/index.js";
import type { SqlClient } from "../../../foundation/sql-clients/index.js";
import type { TopicLimits } from "../../../operating/operate/index.js";
import { checkServable } from "./destination.js";
import { callerOf } from "./enqueue.js";
import { checkKnownOptions, type EnqueueOptions } from "./enqueue-options.js";

export type { TopicLimits };

/** Pause of a topic in all processes. */
export interface TopicPause {
  readonly pausedAt: Date;
  /** Database role that has paused the topic. */
  readonly pausedBy: string;
  /** False if the topic was paused before. */
  readonly changed: boolean;
}

/**
 * Pauses a topic in all processes, in the current transaction of the client: handlers of its messages that run end, and
 * no other one starts until {@link resumeTopic}. Messages wait where they are, and senders go on. Requests are answered.
 * Processes learn of it with the commit. Needs the role `hawser_peer`.
 *
 * @returns the pause, also if it is an earlier one
 * @throws HawserError (as a rejection) `invalid_argument`, `internal_topic`, `schema_missing`; errors of Postgres
 */
export async function pauseTopic(client: SqlClient, topic: string): Promise<TopicPause> {
  checkServable(topic);
  return await queueFunctions(callerOf(client)).pauseTopic({ topic });
}

/** Ends {@link pauseTopic}. @returns false if the topic was not paused @throws as {@link pauseTopic} */
export async function resumeTopic(client: SqlClient, topic: string): Promise<boolean> {
  checkServable(topic);
  return (await queueFunctions(callerOf(client)).resumeTopic({ topic })).resumed;
}

/**
 * Sets the limits of a topic for all processes, in place of earlier ones, in the current transaction of the client. They hold
 * for enqueued messages. Processes learn of them with the commit; handlers that run go on, and count. Needs the role
 * `hawser_peer`.
 *
 * @param limits `{}` ends all limits
 * @throws HawserError (as a rejection) as {@link pauseTopic}; errors of Postgres, also for a value that is no limit
 */
export async function limitTopic(client: SqlClient, topic: string, limits: TopicLimits): Promise<void> {
  checkServable(topic);
  checkKnownOptions(limits, "limits of a topic");
  const { rate = null, burst = null, running = null, runningPerKey = null, keyHeader = null } = limits;
  await queueFunctions(callerOf(client)).limitTopic({ topic, rate, burst, running, runningPerKey, keyHeader });
}

/**
 * Has the results of all messages of a topic kept, in the current transaction of the client: those of messages that processes take, or
 * that are cancelled, after the commit. {@link EnqueueOptions.keepMs} of a message goes before this time. Meanwhile Postgres refuses
 * messages for `all` of the topic. Needs the role `hawser_peer`.
 *
 * @param keepMs as {@link EnqueueOptions.keepMs}; null ends it: what has ended is kept as long as it was to be
 * @throws HawserError (as a rejection) as {@link pauseTopic}; `invalid_argument` for another time
 */
export async function keepResults(client: SqlClient, topic: string, keepMs: number | null): Promise<void> {
  checkServable(topic);
  if (keepMs !== null) refuse(columnChecks.topic_settings.keep_ms(keepMs), "keepMs");
  await queueFunctions(callerOf(client)).keepResults({ topic, keepMs });
}
