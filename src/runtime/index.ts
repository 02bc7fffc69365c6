/**
 * What every layer needs of the process it runs in, once: the logger, the clock and waits on it, backoff, time limits,
 * a queue, room for so many, and ASCII. It knows nothing of Postgres, NATS or peers.
 */
export { isAscii, latin1Of } from "./ascii.js";
export { Backoff, type BackoffOptions, backoffMs } from "./backoff.js";
export { ByteQueue } from "./byte-queue.js";
export { type Clock, delay, systemClock, unlessAborted, whenAborted } from "./clock.js";
export { Fifo } from "./fifo.js";
export { type LogDetails, type Logger, ProblemLog, RareLog, silentLogger } from "./logger.js";
export { type DueFound, LookPace, type PaceSettings } from "./look-pace.js";
export { uncleared } from "./memory.js";
export { Repeated, shared } from "./repeated.js";
export { Room } from "./room.js";
export { hurryAfterMs, onStopSignal, stopSignals } from "./stop-signals.js";
export { Deadline, DeadlineTimer, inTime, maxTimerMs, TimeLimit, within } from "./time-limit.js";
