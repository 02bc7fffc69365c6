/** End of a run within a time limit. */
import { within } from "../../foundation/runtime/index.js";

/** Part of a stop's deadline, at most a tenth, that is reserved for cutting handlers off, and for what comes behind them. */
const leaveMs = 1_000;
/** Minimum of that reserved time, even if the deadline is shorter. */
const leaveLeastMs = 500;
/** Parts of that time for handlers that end because their signals are aborted, and for giving back what does not. */
const [heedPart, cutOffPart] = [0.25, 0.7];

/** Handlers that take longer than the stop may. */
interface LateHandlers {
  /** Called first, for the log. */
  warn(): void;
  /** Aborts the signals of handlers. One that heeds its signal may end now, or say when it wants its message again. */
  abort(): void;
  /** Cuts off all that run. */
  cutOff(): Promise<void>;
}

/** Time at which a stop ends, in ms of `performance.now`. */
export const endOf = (deadlineMs: number): number => performance.now() + Math.max(deadlineMs, leaveLeastMs);

/** Waits for handlers until most of the deadline is over, and then ends them. @param until end of the stop: {@link endOf} */
export async function endHandlers(
  handlers: Promise<unknown>,
  deadlineMs: number,
  until: number,
  late: LateHandlers,
): Promise<void> {
  if (await endsWithin(deadlineMs - Math.min(leaveMs, deadlineMs / 10), handlers)) return;
  late.warn();
  late.abort();
  const leftMs = until - performance.now();
  if (!(await endsWithin(leftMs * heedPart, handlers))) await endsWithin(leftMs * cutOffPart, late.cutOff());
}

/** Waits for the promise. @returns true if it settled within `limitMs` */
export async function endsWithin(limitMs: number, work: Promise<unknown>): Promise<boolean> {
  const ended = work.then(
    () => true,
    () => false,
  );
  return (await within(limitMs, ended)) === true;
}
