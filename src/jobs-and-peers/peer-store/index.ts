/**
 * All access of a running peer to Postgres: the statements of `src/jobs-and-peers/store` and `src/operating/operate`, on a pool and sessions that the
 * peers or workers of a process and database share.
 */
export type { HandlingCalls } from "./shared-database.js";
export { openQueueStore, openStore, type QueueStore, type Store } from "./store.js";
