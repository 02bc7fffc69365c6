/**
 * What every layer needs of the process it runs in, once: the logger, the clock and waits on it, backoff, time limits,
 * and a queue. It knows nothing of Postgres, NATS or peers.
 */
export { Backoff, type BackoffOptions, backoffMs } from "./backoff.js";
export { ByteQueue } from "./byte-queue.js";
export { type Clock, delay, systemClock, whenAborted } from "./clock.js";
export { Fifo } from "./fifo.js";
export { type Logger, ProblemLog, RareLog, silentLogger } from "./logger.js";
export { Repeated, shared } from "./repeated.js";
export { Deadline, DeadlineTimer, inTime, TimeLimit, within } from "./time-limit.js";
