/** Settings of topics for all processes, as operators change them: see `topic-settings.ts` in `src/peer`. */
import { type PauseTopicResult, queueFunctions } from "../../generated/ts/rows/queue.js";
import type { Database } from "../store/index.js";

/** Pauses a topic. @throws HawserError as {@link Database.query} */
export async function pauseTopic(database: Database, topic: string): Promise<PauseTopicResult> {
  return await queueFunctions(database.caller(`pause the topic "${topic}"`)).pauseTopic({ topic });
}

/** Ends the pause of a topic. @returns false if it was not paused @throws HawserError as {@link Database.query} */
export async function resumeTopic(database: Database, topic: string): Promise<boolean> {
  return (await queueFunctions(database.caller(`resume the topic "${topic}"`)).resumeTopic({ topic })).resumed;
}
