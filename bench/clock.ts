/**
 * The system's monotonic clock, in ms: the same in all processes of a machine (CLOCK_MONOTONIC; `performance.now` begins
 * anew in each), so that one process can say when something began and another when it ended.
 */
export function systemMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
