/**
 * How many kills the loops make.
 */

/**
 * The share of one of `loops` loops in HAWSER_FAULT_KILLS (default 20: enough to see that it works; the full proof is
 * 200 and more).
 */
export function killsPerLoop(loops: number): number {
  const total = Number(process.env["HAWSER_FAULT_KILLS"] ?? 20);
  if (!Number.isSafeInteger(total) || total < loops) {
    throw new Error(`HAWSER_FAULT_KILLS is "${process.env["HAWSER_FAULT_KILLS"]}"; it must be ${loops} or more`);
  }
  return Math.ceil(total / loops);
}

/** How long a test may take that starts some processes, in milliseconds: slow machines are slow. */
export const patienceMs = 180_000;

/** How long a loop may take, in milliseconds. */
export function loopTimeoutMs(kills: number): number {
  return patienceMs + kills * 20_000;
}

/** Fault times in milliseconds, in words. */
export function spread(times: readonly number[]): string {
  const sorted = [...times].sort((one, other) => one - other);
  const at = (share: number): string =>
    `${Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN)} ms`;
  return `median ${at(0.5)}, longest ${at(1)}`;
}
