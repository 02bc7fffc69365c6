/** Workers of a topic, or of a name, with what they say of their handlers. */
import { type WorkerStatusResult, workerStatusFunctions } from "../../../generated/ts/rows/queue.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Worker and a topic that it takes messages of. */
export type WorkerStatus = WorkerStatusResult;

/** Workers, and what they do, of a topic or a name: at most 1,000 rows. */
export interface WorkerFilter {
  readonly topic?: string | undefined;
  readonly name?: string | undefined;
}

/** Lists workers by name, a row for each topic. @throws HawserError as {@link Database.query} */
export function workerStatus(database: Database, { topic, name }: WorkerFilter): Promise<WorkerStatus[]> {
  const functions = workerStatusFunctions(database.caller("read what workers do"));
  return functions.workerStatus({ topic: topic ?? null, name: name ?? null });
}
