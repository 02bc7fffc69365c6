/**
 * Process-level utilities shared by all layers: logger, clock, backoff, time limits, queues, fair shares, semaphore,
 * ASCII. Independent of Postgres, NATS and peers.
 */
export { Backoff, type BackoffOptions, backoffMs } from "./backoff.js";
export { Cancellation } from "./cancellation.js";
export { type Clock, delay, systemClock, unlessAborted, whenAborted } from "./clock.js";
export { RoundRobin, shareOf } from "./fair-share.js";
export { Fifo } from "./fifo.js";
export { type LogDetails, type Logger, ProblemLog, RareLog, silentLogger } from "./logger.js";
export { uncleared } from "./memory.js";
export { openPrivate, writePrivate } from "./private-file.js";
export { oncePerTurn, Repeated, shared } from "./repeated.js";
export { Semaphore } from "./semaphore.js";
export { readSmallFile, readSmallFileSync, tlsFileMaxBytes } from "./small-file.js";
export { hurryAfterMs, onStopSignal, stopSignals } from "./stop-signals.js";
export type { Subscription } from "./subscription.js";
export {
  addressAttempts,
  Deadline,
  DeadlineTimer,
  inTime,
  maxTimerMs,
  stopReserveMs,
  TimeLimit,
  within,
} from "./time-limit.js";
export { sharedTrace, type TraceContext, traceContextIn, traceContextOf } from "./trace-context.js";
export {
  type Beginning,
  inSpan,
  nothingThrown,
  type Operation,
  type OperationSpan,
  rpcErrorIn,
  setTracer,
  startSpan,
  type Tracer,
  traceHeaders,
  tracer,
  withTrace,
} from "./tracing.js";
export { version } from "./version.js";
export { Waiters } from "./waiters.js";
